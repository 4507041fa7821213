"""How much larger than usual for its prior an estimate's error is, by its misfit to the data."""

import torch
from torch import Tensor

from invdiff.physics import selects_pixels
from invdiff.posterior.covariance import StationaryCovariance, has_closed_form, is_window
from invdiff.problem import Problem
from operators import CompressedSensing

CHANCE = 3.0        # standard errors by which a misfit exceeds what is expected before it counts
LARGEST = 4.0       # factor: what is further off has another cause, such as a wrong noise level


class Surplus:
    """A factor for the covariance C of x0 given x, for each measurement, from 1 to LARGEST.

    A prior's error spectrum is a mean over images, and a harder one has larger errors. With the right C the residual
    y - A D has the covariance A C A^T + sigma_y^2 I; where its square exceeds the trace of that by more than chance, C is
    scaled until the trace is the square, less what chance may add to it where C is right: the method of moments for its
    scale, or Morozov's discrepancy principle (1966) for the weight of the data. Without it samples of such images leave more
    than noise.

    It is for operators that treat all of an image alike, with closed forms, windows of such or random pixels and sums
    (`suits`): only for those is so little known of A C A^T enough.
    """

    def __init__(self, problem: Problem):
        self.problem, self.noise = problem, problem.noise_variance
        self.values = problem.observed().flatten(1).sum(1).to(problem.y.dtype).clamp_min(1)
        self.gain = getattr(problem.physics, "response_power", None)         # of a circular filter
        probe = torch.randn((1, *problem.image_shape), dtype=torch.float32, generator=torch.Generator().manual_seed(0))
        self.probe = probe.to(problem.y).expand(len(problem.y), *problem.image_shape)

    @staticmethod
    def suits(problem: Problem) -> bool:
        return has_closed_form(problem) or _at_random(problem) or is_window(problem)

    def __call__(self, power: Tensor, residual: Tensor) -> Tensor:
        """(B, 1, 1, 1) for C of spectrum `power` (K, H, W // 2 + 1) or (B, K, ...), of which the residuals (B, ...) are
        y - A D, and 0 where nothing is measured."""
        trace, error = self._trace(power)
        square, noise = residual.square().flatten(1).sum(1), self.values * self.noise
        chance = CHANCE * error * (trace + noise)
        factor = (square - chance - noise) / trace.clamp_min(torch.finfo(trace.dtype).tiny)
        return factor.clamp(1, LARGEST).reshape(-1, 1, 1, 1)

    def _trace(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """tr(A C A^T), exact for circular filters, right on average for random pixels and sums, else by a random image; and
        the standard error of the residual's square over its mean, (1,) or (B,)."""
        draws, seen = 1, power
        if self.gain is not None:
            seen = power * self.gain
            trace = self._over_plane(seen) * self.values / self.probe[0].numel()        # of a window, its share
        elif _at_random(self.problem):
            channels = self.probe.shape[1] // power.shape[-3]       # that share a spectrum
            trace = self.values * channels / self.probe[0].numel() * self._over_plane(power)
        else:
            draws = 2                                               # the trace is one itself
            trace = self.problem.A(StationaryCovariance(power, self.problem.size).root(self.probe)).square().flatten(1).sum(1)
        spectrum = seen * (trace / self.values / seen.mean((-3, -2, -1))).reshape(-1, 1, 1, 1) + self.noise
        concentration = spectrum.square().mean((1, 2, 3)) / spectrum.mean((1, 2, 3)).square()
        return trace, (2 * draws * concentration / self.values).sqrt()

    def _over_plane(self, half: Tensor) -> Tensor:
        """Sums over channels and the whole plane of frequencies, (1,) or (B,), of what is given on its half."""
        once = half[..., 0].sum(-1) + (half[..., -1].sum(-1) if self.problem.size[1] % 2 == 0 else 0)
        return (2 * half.sum((-2, -1)) - once).sum(-1).reshape(-1)


def _at_random(problem: Problem) -> bool:
    """Does it measure pixels or sums that were chosen at random, or as good as that?"""
    return selects_pixels(problem.physics) or isinstance(problem.physics, CompressedSensing)
