"""How much larger than usual for its prior an estimate's error is, by its misfit to the data."""

import torch
from torch import Tensor

from invdiff.posterior.covariance import NOISE_FLOOR, StationaryCovariance, selects_orthonormal_rows
from invdiff.problem import Problem

CHANCE = 3.0        # standard errors by which a misfit exceeds what is expected before it counts


class Surplus:
    """A factor for the covariance C of x0 given x, for each measurement, at least 1. The problem is linear.

    A prior's error spectrum is a mean over images, and a harder one has larger errors. With the right C the residual
    y - A D has the covariance A C A^T + sigma_y^2 I; where its square exceeds the trace of that by more than chance, C is
    scaled until both agree: the method of moments for its scale, or Morozov's discrepancy principle (1966) for the weight of
    the data. Without it samples of such images leave more than noise. The factor is 1 for few measured values, whose square
    says little.
    """

    def __init__(self, problem: Problem):
        self.problem, self.noise = problem, max(problem.sigma_y, NOISE_FLOOR) ** 2
        self.size = (problem.image_shape[-2], problem.image_shape[-1])
        self.values = problem.observed().flatten(1).sum(1).to(problem.y.dtype)
        self.rows = selects_orthonormal_rows(problem.physics)
        self.response = getattr(problem.physics, "response", None)
        probe = torch.randn((1, *problem.image_shape), generator=torch.Generator().manual_seed(0))
        self.probe = probe.to(problem.y).expand(len(problem.y), *problem.image_shape)

    def __call__(self, power: Tensor, residual: Tensor) -> Tensor:
        """(B, 1, 1, 1) for C of spectrum `power` (K, H, W // 2 + 1) or (B, K, ...), of which the residuals (B, ...) are
        y - A D."""
        trace = self._trace(power)
        gain = trace / (self.values * power.mean((-3, -2, -1)))
        errors = power * gain.reshape(-1, 1, 1, 1) + self.noise
        concentration = errors.square().mean((1, 2, 3)) / errors.mean((1, 2, 3)).square()
        square = residual.square().flatten(1).sum(1) * (1 - CHANCE * (2 * concentration / self.values).sqrt())
        return ((square - self.values * self.noise) / trace).clamp_min(1).reshape(-1, 1, 1, 1)

    def _trace(self, power: Tensor) -> Tensor:
        """tr(A C A^T), (1,) or (B,): exact for circular filters and selections, else by a random image."""
        if self.response is not None:
            return self._over_plane(power * self.response.abs().square())
        if self.rows:
            channels = self.probe.shape[1] // power.shape[-3]       # that share a spectrum
            return self.values * channels / self.probe[0].numel() * self._over_plane(power)
        drawn = StationaryCovariance(power.sqrt(), self.size)(self.probe)
        return self.problem.A(drawn).square().flatten(1).sum(1)

    def _over_plane(self, half: Tensor) -> Tensor:
        """Sums over channels and the whole plane of frequencies, (1,) or (B,), of what is given on its half."""
        once = half[..., 0].sum(-1) + (half[..., -1].sum(-1) if self.size[1] % 2 == 0 else 0)
        return (2 * half.sum((-2, -1)) - once).sum(-1).reshape(-1)
