"""Small Gaussian problems whose posterior is known, and what is measured against it."""

import torch
from deepinv.models import Denoiser

import operators
from invdiff.priors.analytic import GaussianPrior
from invdiff.priors.spectrum import OPPONENT
from invdiff.simulation import simulate

SIZE = (1, 8, 8)
KERNEL = torch.tensor([[0.0, 0.25, 0.1], [0.05, 0.4, 0.0], [0.2, 0.0, 0.0]])       # of no symmetry


def spectrum(height=8, width=8, scale=0.04):
    """Like a photograph's, with a standard deviation of 0.2 or so."""
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    return (scale * 0.02 / (fy.square() + 2 * fx.square() + 0.02)).float()


def natural_prior(size=SIZE):
    return GaussianPrior.stationary(torch.full(size, 0.5), spectrum(*size[-2:], scale=0.1))


def white_prior(size=SIZE, std=0.2):
    return GaussianPrior.stationary(torch.full(size, 0.5), torch.full((size[1], size[2] // 2 + 1), std**2))


def coloured_prior(height=4, width=6):
    """Three channels whose luminance and chrominances have different spectra."""
    power = torch.stack([spectrum(height, width, s) for s in (0.2, 0.05, 0.01)])
    basis = torch.eye(height * width).reshape(-1, height, width)
    blocks = [torch.fft.irfft2(p * torch.fft.rfft2(basis), s=(height, width)).reshape(height * width, -1) for p in power]
    rotation = torch.kron(OPPONENT, torch.eye(height * width))
    return GaussianPrior(torch.full((3, height, width), 0.5), rotation.T @ torch.block_diag(*blocks) @ rotation, power)


OPERATORS = {
    "denoising": lambda size: operators.Denoising(size),
    "blur": lambda size: operators.Blur(size, KERNEL),
    "super-resolution": lambda size: operators.SuperResolution(size, 2),
    "inpainting": lambda size: operators.Inpainting(size, operators.random_mask(size, 0.5)),
}


def draw(prior, count=1, seed=0):
    """Images (count, C, H, W) of a Gaussian prior."""
    noise = torch.randn(count, prior.mean.numel(), generator=torch.Generator().manual_seed(seed))
    return prior.mean + (noise * prior.values.sqrt() @ prior.vectors.T).reshape(count, *prior.mean.shape)


def pose(operator, prior, sigma_y, count=1, seed=0):
    """A problem on images of the prior. `operator`: a name of OPERATORS, or a physics."""
    physics = OPERATORS[operator](tuple(prior.mean.shape)) if isinstance(operator, str) else operator
    return simulate(physics, draw(prior, count, seed), sigma_y, seed=seed + 1)


def sample(sampler, prior, problem, count):
    """Samples (count, C, H, W) in one batch."""
    *_, last = sampler.steps(prior, problem, range(count))
    return last.x0


def tweedie(prior, problem, x, sigma):
    """E[x0 | x, y] of a Gaussian prior, x = x0 + sigma n, by dense algebra in float64: x is one more measurement."""
    n = prior.mean.numel()
    basis = torch.eye(n).reshape(n, *prior.mean.shape)
    a = problem.physics.A(basis).flatten(1).double().T
    cov, mean, eye = prior.cov.double(), prior.mean.double().flatten(), torch.eye(n, dtype=torch.float64)
    gain = cov @ torch.linalg.inv(cov + sigma**2 * eye)
    x0, c = mean + (x.double().flatten(1) - mean) @ gain.T, cov - gain @ cov
    gram = a @ c @ a.T + problem.sigma_y**2 * torch.eye(len(a), dtype=torch.float64)
    gain = c @ a.T @ torch.linalg.pinv(gram, hermitian=True, rtol=1e-12)
    return (x0 + (problem.y.double().flatten(1) - x0 @ a.T) @ gain.T).reshape(x.shape)


def assert_moments_close(samples, mean, cov, discretisation):
    """Sample mean and covariance of n chains: their expected errors are sqrt(tr C / n) and, in the Frobenius norm,
    sqrt((tr(C)^2 + |C|^2) / n). Both may be 1.5 times that, and `discretisation` relative to the truth besides."""
    x = samples.flatten(1).double()
    n, trace, size = len(x), cov.trace(), cov.norm()
    error = (x.mean(0) - mean.flatten()).norm()
    limit = 1.5 * (trace / n).sqrt() + discretisation * trace.sqrt()
    assert error < limit, f"mean: off by {error:.4g}, expected under {limit:.4g}"
    error = (torch.cov(x.T) - cov).norm()
    limit = 1.5 * ((trace**2 + size**2) / n).sqrt() + discretisation * size
    assert error < limit, f"covariance: off by {error / size:.3f} of it, expected under {limit / size:.3f}"


def assert_components_follow(sampler, operator, moments, count=4000):
    """`count` chains on a white prior and an operator with an SVD: each component's mean and variance are, within 5 standard
    errors, those of `moments(sampler, prior's mean, its deviation, measured component, its noise)`."""
    sigma_y, std = 0.05, 0.2
    prior = white_prior(std=std)
    problem = pose(operator, prior, sigma_y)
    physics = problem.physics
    got = physics.V_adjoint(sample(sampler, prior, problem, count)).flatten(1).double()
    centre = physics.V_adjoint(prior.mean[None]).flatten().tolist()
    singular = physics.mask.expand(1, *prior.mean.shape).flatten().tolist()
    data = physics.U_adjoint(problem.y).flatten().tolist()
    for i, (c, s, d) in enumerate(zip(centre, singular, data, strict=True)):
        known = s > 1e-6 * max(singular)
        mean, variance = moments(sampler, c, std, d / s if known else 0.0, sigma_y / s if known else float("inf"))
        assert abs(float(got[:, i].mean()) - mean) < 5 * (variance / count) ** 0.5 + 1e-4
        assert abs(float(got[:, i].var()) - variance) < 5 * variance * (2 / count) ** 0.5 + 1e-6


class Steep(Denoiser):
    """A prior whose Jacobian is `times` what it should be."""

    def __init__(self, prior, times):
        super().__init__()
        self.prior, self.times = prior, times

    def forward(self, x, sigma, **kwargs):
        x0 = self.prior(x, sigma)
        return x0.detach() + self.times * (x0 - x0.detach())

    def error_spectrum(self, channels):
        return self.prior.error_spectrum(channels)
