"""Split Gibbs sampling is exact: for Gaussian priors to the sampling error, once annealed slowly enough."""

import pytest
import torch
from deepinv.physics import LinearPhysics
from toys import OPERATORS, assert_moments_close, draw, natural_prior, pose, sample, white_prior

from invdiff.posterior import SplitGibbs
from invdiff.posterior.likelihood import GivenData
from invdiff.posterior.sampler import for_chains
from invdiff.posterior.split_gibbs import likelihood_draw, prior_draw
from invdiff.posterior.svd import components
from invdiff.problem import Problem


def streams(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda count: lambda shape: torch.randn(count, *shape, generator=generator)


def without_svd(physics):
    return LinearPhysics(A=physics.A, A_adjoint=physics.A_adjoint, img_size=physics.img_size)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.01, 0.05, 0.5])
def test_it_samples_the_posterior(operator, sigma_y):
    """1500 chains. What is unseen follows the seen while rho falls, and is late by a little: 120 steps, up to 4 %."""
    prior = natural_prior()
    problem = pose(operator, prior, sigma_y)
    samples = sample(SplitGibbs(steps=120, prior_steps=1, sigma_max=1.0), prior, problem, 1500)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.04)


def test_the_defaults_sample_the_posterior():
    prior = natural_prior()
    problem = pose("super-resolution", prior, 0.05)
    assert_moments_close(sample(SplitGibbs(), prior, problem, 1500), *prior.posterior(problem), discretisation=0.04)


def test_operators_without_an_svd_and_rho_far_below_the_noise():
    """There x has the law of the prior given y with noise sigma_y^2 + rho^2 A A^T: 4 % of the variance too much."""
    prior = natural_prior()
    problem = pose("blur", prior, 0.1)
    problem = Problem(without_svd(problem.physics), problem.y, 0.1)
    samples = sample(SplitGibbs(steps=60, prior_steps=1, sigma_min=0.02, sigma_max=1.0), prior, problem, 1500)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.04)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("rho", [0.02, 0.2])
def test_both_draws_make_up_the_noise(operator, rho):
    """z given x and y, where y has noise sigma_y^2 - rho^2 s^2 or none: with rho from x to z, y given x has sigma_y again."""
    count, sigma_y = 4000, 0.1
    prior = natural_prior()
    problem = for_chains(pose(operator, prior, sigma_y), range(count))
    basis = components(problem, "this test", "")
    x = draw(prior).expand(count, -1, -1, -1)
    c = basis.of(likelihood_draw(basis, x, rho, streams(1)(count))).flatten(1).double()
    s, centre = basis.singular[0].flatten().double(), basis.of(x)[0].flatten().double()
    target = basis.target[0].flatten().double()
    noise = (sigma_y**2 - rho**2 * s**2).clamp_min(0)
    variance = torch.where(s > 0, rho**2 * noise / (noise + rho**2 * s**2).clamp_min(1e-30), rho**2)
    mean = torch.where(s > 0, (noise * centre + rho**2 * s**2 * target) / (noise + rho**2 * s**2).clamp_min(1e-30), centre)
    assert ((c.mean(0) - mean).abs() < 5 * (variance / count).sqrt() + 1e-5).all()
    assert ((c.var(0) - variance).abs() < 5 * variance * (2 / count) ** 0.5 + 1e-9).all()


@pytest.mark.parametrize("levels", [[0.3, 0.0], [0.3, 0.25, 0.2, 0.15, 0.0]], ids=["one", "four"])
def test_the_prior_is_drawn_exactly_for_a_stationary_gaussian(levels):
    """x given x + rho n = z, in any number of steps."""
    prior, count = natural_prior(), 4000
    z = draw(prior) + 0.3 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    x = prior_draw(prior, prior.error_spectrum(1), z.expand(count, -1, -1, -1), torch.tensor(levels), streams(3)(count))
    gain = prior.cov.double() @ torch.linalg.inv(prior.cov.double() + 0.09 * torch.eye(64))
    assert_moments_close(x, prior(z, 0.3), prior.cov.double() - gain @ prior.cov.double(), discretisation=0.0)


def test_langevin_draws_what_solving_does(monkeypatch):
    """A linear operator taken for a nonlinear one: same mean, same covariance, whatever the step."""
    prior, count, rho = white_prior(), 3000, 0.1
    problem = for_chains(pose("blur", prior, 0.1), range(count))
    mean, power = draw(prior, seed=4).expand(count, -1, -1, -1), torch.full((1, 8, 5), rho**2)
    n = 64
    a = problem.physics.A(torch.eye(n).reshape(n, 1, 8, 8)).flatten(1).double().T
    gain = rho**2 * a.T @ torch.linalg.inv(rho**2 * a @ a.T + 0.01 * torch.eye(n))
    residual = (problem.y[:1] - problem.physics.A(mean[:1])).double().flatten()
    cov = rho**2 * (torch.eye(n) - gain @ a)
    expected = mean[:1].double().flatten() + gain @ residual
    assert_moments_close(GivenData(problem, 1)(mean, power, streams(5)(count)), expected, cov, discretisation=0.0)
    monkeypatch.setattr("invdiff.posterior.likelihood.is_linear", lambda problem: False)
    assert_moments_close(GivenData(problem, 40)(mean, power, streams(6)(count)), expected, cov, discretisation=0.01)
