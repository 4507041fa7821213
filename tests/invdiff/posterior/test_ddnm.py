"""DDNM on white Gaussian priors: exact without noise, and with it a recursion of one mean and one variance a component."""

from itertools import pairwise

import pytest
import torch
from toys import OPERATORS, assert_components_follow, assert_moments_close, natural_prior, pose, sample, white_prior

from invdiff.diffusion.integrators import DPMSolverPP
from invdiff.posterior import DDNM


@pytest.mark.parametrize("operator", ["super-resolution", "inpainting"])
def test_noiseless_data_and_a_white_prior_are_exact(operator):
    prior = white_prior()
    problem = pose(operator, prior, 0.0)
    samples = sample(DDNM(steps=40, sigma_min=0.002, integrator=DPMSolverPP(eta=0.0)), prior, problem, 2000)
    assert (problem.physics.A(samples) - problem.y).abs().max() < 1e-4
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.04)


def test_the_null_space_is_the_prior_s():
    """A^+ y + (I - A^+ A) D."""
    prior = natural_prior()
    problem = pose("super-resolution", prior, 0.0)
    x = prior.mean + 0.3 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    got, x0, physics = DDNM().posterior_denoiser(prior, problem)(x, 0.3), prior(x, 0.3), problem.physics
    torch.testing.assert_close(physics.A(got), problem.y, rtol=0, atol=1e-5)
    torch.testing.assert_close(got - physics.A_dagger(physics.A(got)), x0 - physics.A_dagger(physics.A(x0)), rtol=0, atol=1e-5)


def moments(sampler, mean, std, target, spread):
    """Mean and variance over chains of a component that is measured as target, with noise of deviation spread: scalars."""
    sigmas = sampler.schedule(sampler.num_steps, sampler.sigma_min, sampler.sigma_max).tolist()
    m, v, carried = 0.0, sigmas[0] ** 2, 0.0
    for sigma, after in pairwise(sigmas):
        gain = std**2 / (std**2 + sigma**2)
        fresh = sampler.eta * after * (1 - (after / sigma) ** 2) ** 0.5
        keep = (after**2 - fresh**2) ** 0.5 / sigma
        share, noise = 0.0, fresh
        if spread < float("inf"):
            before = keep * carried
            most = (fresh**2 + before**2) ** 0.5                # the measurement's noise, the same in x and in x0, adds up
            share = min(1.0, (most - before) / ((1 - keep) * spread))
            carried = before + (1 - keep) * share * spread
            noise = max(most**2 - carried**2, 0.0) ** 0.5
        slope = keep + (1 - keep) * (1 - share) * gain
        m = slope * m + (1 - keep) * ((1 - share) * (1 - gain) * mean + share * target)
        v = slope**2 * v + noise**2
    return m, v


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("eta", [0.5, 0.85])
def test_each_component_follows_ddnm_plus(operator, eta):
    assert_components_follow(DDNM(steps=20, eta=eta), operator, moments)


@pytest.mark.parametrize("steps", [20, 200])
def test_noise_does_not_add_up_with_the_steps(steps):
    """Blur, whose smallest singular values amplify the noise 100 times: the samples stay within the prior's range."""
    prior = natural_prior()
    problem = pose("blur", prior, 0.1)
    samples = sample(DDNM(steps=steps), prior, problem, 100)
    assert samples.std() < 2 * prior.cov.diagonal().mean().sqrt()
