"""DDS: conjugate gradients on the data, from the denoiser's estimate."""

import pytest
import torch
from toys import OPERATORS, assert_moments_close, draw, natural_prior, pose, sample, tweedie, white_prior

from invdiff.diffusion.integrators import DPMSolverPP
from invdiff.posterior import DDS


def states(prior, sigma, count=3):
    return draw(prior, count, 5) + sigma * torch.randn(count, *prior.mean.shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.02, 0.5])
def test_enough_steps_are_tweedie_with_a_measurement_for_a_white_prior(operator, sigma_y):
    """As many steps as A has different singular values: 64 at most, fewer in float32."""
    prior = white_prior()
    problem = pose(operator, prior, sigma_y)
    rule = DDS(cg_steps=100).posterior_denoiser(prior, problem.rows(torch.zeros(3, dtype=torch.long)))
    for sigma in (5.0, 0.5, 0.1, 0.02):
        x = states(prior, sigma)
        exact = tweedie(prior, problem, x, sigma)
        assert (rule(x, sigma) - exact).norm() < 2e-3 * (exact - prior(x, sigma)).norm() + 1e-4


@pytest.mark.parametrize("operator", ["denoising", "inpainting", "super-resolution"])
@pytest.mark.parametrize("sigma_y", [0.0, 0.05])
def test_one_step_is_enough_for_one_singular_value(operator, sigma_y):
    """A^T A then is a multiple of a projection, and the first step ends on it; with sigma_y = 0 it fits the data."""
    prior = natural_prior()
    problem = pose(operator, prior, sigma_y)
    x = states(prior, 0.3, 1)
    one, many = (DDS(cg_steps=n).posterior_denoiser(prior, problem)(x, 0.3) for n in (1, 50))
    torch.testing.assert_close(one, many, rtol=0, atol=1e-4)
    if sigma_y == 0:
        assert (problem.physics.A(one) - problem.y).abs().max() < 1e-4


def test_steps_descend_the_objective():
    """gamma |y - A z|^2 / 2 + |z - D|^2 / 2 with their gamma: lower with each step, and zero gradient in the end."""
    prior, gamma = natural_prior(), 50.0
    problem = pose("blur", prior, 0.05)
    x = states(prior, 0.3, 1)
    x0, values = prior(x, 0.3), []
    for steps in (1, 2, 4, 60):
        z = DDS(cg_steps=steps, gamma=gamma).posterior_denoiser(prior, problem)(x, 0.3)
        values.append(float(gamma * (problem.y - problem.physics.A(z)).square().sum() + (z - x0).square().sum()))
    assert values == sorted(values, reverse=True)
    assert values[0] > 1.001 * values[-1]
    pull = gamma * problem.physics.A_adjoint(problem.y - problem.physics.A(z))
    assert (pull + x0 - z).norm() < 1e-3 * pull.norm()


def test_it_samples_the_posterior_of_a_white_prior():
    prior = white_prior()
    problem = pose("inpainting", prior, 0.05)
    samples = sample(DDS(steps=40, sigma_min=0.002, integrator=DPMSolverPP(eta=0.0)), prior, problem, 2000)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.04)
