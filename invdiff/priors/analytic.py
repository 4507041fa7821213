"""Priors whose denoiser, and whose posterior under a linear operator, are known in closed form: for tests and teaching."""

from dataclasses import dataclass

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
        self.channels, self.card = len(mean), {"image_size": list(mean.shape[1:])}

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
        a = operator_matrix(problem, self.mean)
        cov, mean = self.cov.double(), self.mean.double().flatten()
        gram = a @ cov @ a.T + problem.sigma_y**2 * torch.eye(len(a), dtype=torch.float64)
        gain = cov @ a.T @ torch.linalg.pinv(gram, hermitian=True, rtol=1e-12)
        residual = problem.y.double().flatten(1) - a @ mean
        return (mean + residual @ gain.T).reshape(-1, *self.mean.shape), cov - gain @ a @ cov


class MixturePrior(Denoiser):
    """x0 ~ sum over k of weights_k N(means_k, variance_k I). A toy of dimension d is an image (1, 1, d).

    With t_k = variance_k + sigma^2 and p_k the probability of component k given x,
    D(x, sigma) = sum p_k (means_k + variance_k / t_k (x - means_k)), worked out in float64.

    Args:
        weights: (K,), positive; they are made to sum to one.
        means: (K, C, H, W).
        variance: of each component, a number for all or (K,).
    """

    def __init__(self, weights: Tensor, means: Tensor, variance: float | Tensor):
        super().__init__()
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("means", means)
        self.register_buffer("variance", torch.as_tensor(variance, dtype=means.dtype).expand(len(means)).clone())
        self.channels, self.card = means.shape[1], {"image_size": list(means.shape[2:])}

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """E[x0 | x] for x (B, C, H, W), sigma a float or (B,)."""
        log_joint, total = self._log_joint(x, sigma)
        p = log_joint.softmax(1)
        keep = self.variance / total                                                   # (B or 1, K)
        mixed = (p * (1 - keep)) @ self.means.flatten(1).double()
        return (mixed + (p * keep).sum(1, keepdim=True) * x.flatten(1)).reshape(x.shape).to(x.dtype)

    def log_prob(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """log of the density of x = x0 + sigma n, (B,) in float64."""
        return self._log_joint(x, sigma)[0].logsumexp(1)

    def _log_joint(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """log of weights_k N(x; means_k, t_k I), (B, K); and t_k, (B or 1, K)."""
        total = self.variance + torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1, 1).square()
        x, means = x.flatten(1).double(), self.means.flatten(1).double()
        distance = (x.square().sum(1, keepdim=True) - 2 * x @ means.T + means.square().sum(1)) / total
        return self.weights.log() - (distance + x.shape[1] * (2 * torch.pi * total).log()) / 2, total

    def posterior(self, problem: Problem) -> "MixturePosterior":
        """x0 given y, again a mixture, for a linear operator. Meant for images of up to a few thousand values."""
        u, s, vt = torch.linalg.svd(operator_matrix(problem, self.means[0]), full_matrices=False)
        u, s, vt = u[:, s > 1e-12 * s[0]], s[s > 1e-12 * s[0]], vt[s > 1e-12 * s[0]]    # (m, r), (r,), (r, n)
        means, variance = self.means.flatten(1).double(), self.variance.double()[:, None]
        residual = (problem.y.flatten(1).double() @ u)[:, None] - s * (means @ vt.T)    # (B, K, r)
        total = variance * s.square() + problem.sigma_y**2                              # (K, r)
        fit = -(residual.square() / total + total.log()).sum(2) / 2
        moved = means + (variance * s / total * residual) @ vt                          # (B, K, n)
        return MixturePosterior((self.weights.log() + fit).softmax(1), moved.reshape(-1, *self.means.shape), variance[:, 0],
                                vt, 1 - (problem.sigma_y / total.sqrt()))

    def sample_posterior(self, problem: Problem, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws of x0 given y, (B, count, C, H, W)."""
        return self.posterior(problem).sample(count, generator)


@dataclass(frozen=True)
class MixturePosterior:
    """A mixture over k of N(means_k, variance_k I - V^T diag(...) V), narrower along the rows of an orthonormal V.

    Attributes:
        weights: (B, K).
        means: (B, K, C, H, W).
        variance: (K,).
        basis: V, (r, n).
        shrink: (K, r), how far the standard deviation along V falls, relative: 1 where the data leave nothing.
    """

    weights: Tensor
    means: Tensor
    variance: Tensor
    basis: Tensor
    shrink: Tensor

    def covariance(self, k: int) -> Tensor:
        """Of component k, (n, n)."""
        kept = (1 - self.shrink[k]).square() - 1
        return self.variance[k] * (torch.eye(self.basis.shape[1]) + (self.basis.T * kept) @ self.basis)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws (B, count, C, H, W), float32."""
        batch, _, *shape = self.means.shape
        k = torch.multinomial(self.weights, count, replacement=True, generator=generator)              # (B, count)
        noise = torch.randn(batch, count, self.basis.shape[1], generator=generator, dtype=torch.float64)
        noise = noise - (noise @ self.basis.T * self.shrink[k]) @ self.basis
        means = self.means.flatten(2)[torch.arange(batch)[:, None], k]
        return (means + self.variance[k].sqrt()[..., None] * noise).reshape(batch, count, *shape).float()


def operator_matrix(problem: Problem, like: Tensor) -> Tensor:
    """A as a dense matrix (m, n) in float64, for images of the shape and type of `like` (C, H, W)."""
    basis = torch.eye(like.numel(), dtype=torch.float64).reshape(-1, *like.shape).to(like)
    return torch.cat([problem.physics.A(e[None]).flatten(1) for e in basis]).double().T


class WienerSpectrum:
    """sigma^2 S / (S + sigma^2), exact for a stationary Gaussian prior of spectrum S (K, H, W // 2 + 1)."""

    source = "exact, stationary Gaussian prior"
    exact = True            # not a mean over images, some of which are harder

    def __init__(self, power: Tensor):
        self.power = power

    def at(self, sigma: float, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        return (sigma**2 * self.power / (self.power + sigma**2)).to(device)
