import pytest
import torch

import operators
from invdiff.priors.analytic import GaussianPrior, MixturePrior
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


def mixture(dimension=2):
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(4, 1, 1, dimension, generator=generator, dtype=torch.float64)
    return MixturePrior(torch.tensor([1.0, 3.0, 0.5, 2.0]).double(), means, torch.tensor([0.05, 0.2, 0.1, 0.3]).double())


@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_a_mixture_and_tweedie(sigma):
    """D(x, sigma) = x + sigma^2 grad log p(x; sigma), with the gradient from autograd."""
    prior = mixture(5)
    x = (1 + sigma) * torch.randn(6, 1, 1, 5, dtype=torch.float64)
    x.requires_grad_()
    (score,) = torch.autograd.grad(prior.log_prob(x, sigma).sum(), x)
    torch.testing.assert_close(prior(x, sigma), x + sigma**2 * score)
    torch.testing.assert_close(prior(x, torch.full((6,), sigma)), prior(x, sigma))


def test_the_density_of_a_mixture():
    prior, x = mixture(5), torch.randn(6, 1, 1, 5, dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64)
    parts = [w * torch.distributions.MultivariateNormal(m.flatten(), (v + 0.49) * eye).log_prob(x.flatten(1)).exp()
             for w, m, v in zip(prior.weights, prior.means, prior.variance, strict=True)]
    torch.testing.assert_close(prior.log_prob(x, 0.7), sum(parts).log(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("sigma_y", [0.1, 0.7])
def test_the_posterior_of_a_mixture_by_quadrature(sigma_y):
    """Two values seen through one row: weights, mean and covariance from p(x) N(y; A x) on a grid, and from draws."""
    prior = mixture()
    physics = operators.Separable((1, 1, 2), torch.ones(1, 1), torch.tensor([[0.8, -0.5]])).double()
    problem = Problem(physics, torch.tensor([[[[0.3]]]], dtype=torch.float64), sigma_y)
    axis = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    log_likelihood = -(problem.y - physics.A(x[:, None, None])).square().flatten() / (2 * sigma_y**2)
    p = (prior.log_prob(x[:, None, None], 0.0) + log_likelihood).softmax(0)
    mean = p @ x
    cov = (p[:, None] * (x - mean)).T @ (x - mean)
    posterior = prior.posterior(problem)
    weights, means = posterior.weights[0], posterior.means[0].flatten(1)
    torch.testing.assert_close(weights @ means, mean, rtol=0, atol=1e-6)
    spread = sum(w * (posterior.covariance(k) + torch.outer(m, m)) for k, (w, m) in enumerate(zip(weights, means, strict=True)))
    torch.testing.assert_close(spread - torch.outer(mean, mean), cov, rtol=0, atol=1e-6)
    draws = prior.sample_posterior(problem, 40_000, torch.Generator().manual_seed(0))[0].flatten(1).double()
    assert (draws.mean(0) - mean).norm() < 3 * (cov.trace() / 40_000).sqrt()
    assert (torch.cov(draws.T) - cov).norm() < 3 * ((cov.trace() ** 2 + cov.norm() ** 2) / 40_000).sqrt()


def test_a_mixture_of_one_is_gaussian():
    problem = Problem(operators.SuperResolution((1, 4, 4), 2).double(), torch.rand(2, 1, 2, 2, dtype=torch.float64), 0.2)
    mean = torch.rand(1, 4, 4, dtype=torch.float64)
    one, gaussian = MixturePrior(torch.ones(1).double(), mean[None], 0.3), GaussianPrior(mean, 0.3 * torch.eye(16).double())
    posterior, (expected, cov) = one.posterior(problem), gaussian.posterior(problem)
    torch.testing.assert_close(posterior.means[:, 0], expected)
    torch.testing.assert_close(posterior.covariance(0), cov, rtol=1e-7, atol=1e-9)
