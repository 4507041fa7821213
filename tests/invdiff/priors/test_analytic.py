import pytest
import torch

import operators
from invdiff.priors.analytic import GaussianPrior
from invdiff.problem import Problem


def random_prior(shape=(2, 3, 4), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    n = shape[0] * shape[1] * shape[2]
    root = torch.randn(n, n, generator=generator, dtype=dtype)
    cov = root @ root.T / n + 0.01 * torch.eye(n, dtype=dtype)
    return GaussianPrior(torch.randn(shape, generator=generator, dtype=dtype), cov)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_the_denoiser_is_the_posterior_mean_of_a_noisy_image(sigma):
    """In information form: (cov^-1 + I / sigma^2)^-1 (cov^-1 mean + x / sigma^2)."""
    prior = random_prior()
    x = torch.randn(3, *prior.mean.shape, dtype=torch.float64)
    precision = prior.cov.inverse()
    right = precision @ prior.mean.flatten() + x.flatten(1) / sigma**2
    expected = torch.linalg.solve(precision + torch.eye(24, dtype=torch.float64) / sigma**2, right.T).T
    torch.testing.assert_close(prior(x, sigma).flatten(1), expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(prior(x, torch.full((3,), sigma)), prior(x, sigma))


def test_tweedie():
    """D(x, sigma) = x + sigma^2 grad log p(x; sigma)."""
    prior, sigma = random_prior(), torch.tensor([0.1, 2.0], dtype=torch.float64)
    x = torch.randn(2, *prior.mean.shape, dtype=torch.float64, requires_grad=True)
    for i, s in enumerate(sigma):
        marginal = torch.distributions.MultivariateNormal(prior.mean.flatten(), prior.cov + s**2 * torch.eye(24))
        (score,) = torch.autograd.grad(marginal.log_prob(x[i].flatten()), x)
        torch.testing.assert_close(prior(x, sigma)[i], x[i] + s**2 * score[i], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("sigma_y", [0.1, 1.0])
def test_the_posterior_in_information_form(sigma_y):
    """Precision cov^-1 + A^T A / sigma_y^2, by the dense matrix of A."""
    prior = random_prior((1, 4, 6))
    kernel = torch.tensor([[0.0, 0.5, 0.2], [0.1, 0.3, -0.1]], dtype=torch.float64)
    physics = operators.Blur((1, 4, 6), kernel).to(torch.float64)
    y = torch.randn(2, 1, 4, 6, dtype=torch.float64)
    a = physics.A(torch.eye(24, dtype=torch.float64).reshape(24, 1, 4, 6)).flatten(1).T
    precision = prior.cov.inverse() + a.T @ a / sigma_y**2
    expected = torch.linalg.solve(precision, (prior.cov.inverse() @ prior.mean.flatten() + y.flatten(1) @ a / sigma_y**2).T).T
    mean, cov = prior.posterior(Problem(physics, y, sigma_y))
    torch.testing.assert_close(mean.flatten(1), expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(cov, precision.inverse(), rtol=1e-7, atol=1e-8)


def test_a_noiseless_posterior_is_certain_of_what_was_seen():
    prior = random_prior((1, 4, 6))
    mask = operators.random_mask((1, 4, 6), 0.5)
    y = torch.randn(1, 1, 4, 6, dtype=torch.float64) * mask
    mean, cov = prior.posterior(Problem(operators.Inpainting((1, 4, 6), mask).to(torch.float64), y, 0.0))
    seen = mask.flatten()
    torch.testing.assert_close(mean.flatten()[seen], y.flatten()[seen])
    assert cov[seen].abs().max() < 1e-9
    s, cross = prior.cov, prior.cov[~seen][:, seen]
    schur = s[~seen][:, ~seen] - cross @ s[seen][:, seen].inverse() @ cross.T
    torch.testing.assert_close(cov[~seen][:, ~seen], schur)


@pytest.mark.parametrize("size", [(4, 6), (5, 5), (3, 4)])
def test_a_stationary_prior_has_its_spectrum(size):
    h, w = size
    fy, fx = torch.fft.fftfreq(h)[:, None], torch.fft.rfftfreq(w)[None]
    power = (0.01 / (fy.square() + 2 * fx.square() + 0.05)).double()
    prior = GaussianPrior.stationary(torch.zeros(2, h, w, dtype=torch.float64), power)
    torch.testing.assert_close(prior.cov, prior.cov.T)
    x = torch.randn(2, h, w, dtype=torch.float64)
    expected = torch.fft.irfft2(power * torch.fft.rfft2(x), s=size)
    torch.testing.assert_close((prior.cov @ x.flatten()).reshape(x.shape), expected)
    error = prior.error_spectrum(2).at(0.3, size)
    assert error.shape == (2, h, w // 2 + 1)
    torch.testing.assert_close(error[0], 1 / (1 / power + 1 / 0.3**2))
