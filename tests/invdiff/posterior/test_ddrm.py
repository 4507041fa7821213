"""DDRM on a white Gaussian prior, where its scalar rule is a recursion of one mean and one variance a component."""

from itertools import pairwise

import pytest
import torch
from toys import OPERATORS, assert_components_follow, natural_prior, pose, sample

from invdiff.posterior import DDRM


def moments(sampler, mean, std, target, spread):
    """Mean and variance of a component under Kawar et al. 2022, Eqs. 4 to 8, for x0 ~ N(mean, std^2): scalars.

    `target` is the component of A^+ y and `spread` its noise, sigma_y / s; infinite where nothing is measured. With
    `draw`, x0 given x has its variance, and is conditioned on the measurement while that is noisier than the level.
    """
    sigmas = sampler.schedule(sampler.num_steps, sampler.sigma_min, sampler.sigma_max).tolist()
    high, eta, eta_b = sigmas[0], sampler.eta, sampler.eta_b
    m, v = (target, high**2 - spread**2) if spread <= high else (0.0, high**2)
    for sigma, after in pairwise(sigmas):
        gain = std**2 / (std**2 + sigma**2)                                   # x0 = mean + gain (x - mean) + error
        slope, constant, error = gain, (1 - gain) * mean, gain * sigma**2 if sampler.draw and after > 0 else 0.0
        if error > 0 and after < spread < float("inf"):
            trust = error / (error + spread**2)
            slope, constant = (1 - trust) * slope, (1 - trust) * constant + trust * target
            error = (1 - trust) ** 2 * error + trust**2 * spread**2
        if spread == float("inf") or (spread > after and sampler.draw):       # Eq. 8, first line: (1 - keep) x0 + keep x
            keep = (1 - eta**2) ** 0.5 * after / sigma
            a, b, share, fresh = keep, 0.0, 1 - keep, eta**2 * after**2
        elif spread > after:                                                  # second line
            b = (1 - eta**2) ** 0.5 * after / spread
            a, share, fresh = 0.0, 1 - b, eta**2 * after**2
        else:                                                                 # third line
            a, b, share, fresh = 0.0, eta_b, 1 - eta_b, after**2 - eta_b**2 * spread**2
        m = (a + share * slope) * m + share * constant + b * target
        v = (a + share * slope) ** 2 * v + share**2 * error + fresh
    return m, v


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sampler", [DDRM(steps=20), DDRM(steps=20, eta=0.5, eta_b=0.7), DDRM(steps=20, eta=0.85, draw=False),
                                     DDRM(steps=20, eta=0.5, eta_b=0.7, draw=False)],
                         ids=lambda s: f"eta={s.eta},eta_b={s.eta_b},draw={s.draw}")
def test_each_component_follows_the_paper(operator, sampler):
    assert_components_follow(sampler, operator, moments)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_noiseless_measurement_is_reproduced(operator):
    prior = natural_prior()
    problem = pose(operator, prior, 0.0)
    samples = sample(DDRM(steps=30), prior, problem, 100)
    assert (problem.physics.A(samples) - problem.y).abs().max() < 1e-5


def test_what_was_not_seen_keeps_its_conditional_spread():
    """Trace of the covariance over the exact one's. The published rule loses the variance of x0 given x at every step: 0.77."""
    prior = natural_prior()
    problem = pose("inpainting", prior, 0.0)
    _, cov = prior.posterior(problem)
    calibrated, published = (torch.cov(sample(s, prior, problem, 2000).flatten(1).T).trace() / cov.trace()
                             for s in (DDRM(steps=100), DDRM(steps=100, eta=0.85, draw=False)))
    assert 0.95 < calibrated < 1.08
    assert 0.65 < published < 0.9
