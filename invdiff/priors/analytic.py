"""Priors whose denoiser, and whose posterior under a linear operator, are known in closed form: for tests and teaching."""

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.priors.spectrum import ErrorSpectrum
from invdiff.problem import Problem


class GaussianPrior(Denoiser):
    """x0 ~ N(mean, cov). D(x, sigma) = mean + cov (cov + sigma^2 I)^-1 (x - mean).

    Args:
        mean: (C, H, W).
        cov: (n, n) symmetric positive definite, n = C H W.
        power: for a stationary prior, its spectrum (K, H, W // 2 + 1) as `stationary` makes it.
    """

    def __init__(self, mean: Tensor, cov: Tensor, power: Tensor | None = None):
        super().__init__()
        values, vectors = torch.linalg.eigh(cov.double())
        self.register_buffer("mean", mean)
        self.register_buffer("cov", cov)
        self.register_buffer("values", values.clamp_min(0).to(cov.dtype))
        self.register_buffer("vectors", vectors.to(cov.dtype))
        self.power = power

    @classmethod
    def stationary(cls, mean: Tensor, power: Tensor) -> "GaussianPrior":
        """The periodic stationary prior with spectrum `power` (H, W // 2 + 1), even in frequency, alike on channels."""
        channels, height, width = mean.shape
        basis = torch.eye(height * width, dtype=power.dtype).reshape(-1, height, width)
        block = torch.fft.irfft2(power * torch.fft.rfft2(basis), s=(height, width)).reshape(height * width, -1)
        return cls(mean, torch.block_diag(*[block] * channels), power.expand(channels, -1, -1))

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """E[x0 | x] for x (B, C, H, W), sigma a float or (B,)."""
        variance = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1).square()
        deviation = (x - self.mean).flatten(1) @ self.vectors
        shrunk = deviation * self.values / (self.values + variance)
        return self.mean + (shrunk @ self.vectors.T).reshape(x.shape)

    def error_spectrum(self, channels: int) -> "ErrorSpectrum | WienerSpectrum | None":
        """The exact covariance of x0 given x, where it is stationary."""
        return None if self.power is None else WienerSpectrum(self.power)

    def posterior(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Mean (B, C, H, W) and covariance (n, n) of x0 given y, for a linear operator. Meant for small images."""
        n = self.mean.numel()
        basis = torch.eye(n, dtype=torch.float64).reshape(n, *self.mean.shape).to(self.cov)
        a = torch.cat([problem.physics.A(e[None]).flatten(1) for e in basis]).double().T       # (m, n)
        cov, mean = self.cov.double(), self.mean.double().flatten()
        gram = a @ cov @ a.T + problem.sigma_y**2 * torch.eye(len(a), dtype=torch.float64)
        gain = cov @ a.T @ torch.linalg.pinv(gram, hermitian=True, rtol=1e-12)
        residual = problem.y.double().flatten(1) - a @ mean
        return (mean + residual @ gain.T).reshape(-1, *self.mean.shape), cov - gain @ a @ cov


class WienerSpectrum:
    """sigma^2 S / (S + sigma^2), exact for a stationary Gaussian prior of spectrum S (K, H, W // 2 + 1)."""

    source = "exact, stationary Gaussian prior"

    def __init__(self, power: Tensor):
        self.power = power

    def at(self, sigma: float, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        return (sigma**2 * self.power / (self.power + sigma**2)).to(device)
