"""ILVR on a white Gaussian prior, where it is a recursion of one mean and one variance a component."""

from itertools import pairwise

import pytest
import torch
from deepinv.physics import LinearPhysics
from toys import OPERATORS, natural_prior, pose, sample, white_prior

from invdiff.posterior import ILVR
from invdiff.problem import Problem


def moments(sampler, mean, std, target, spread):
    """Mean and variance of a component that is measured as target, with noise of deviation spread: scalars."""
    sigmas = sampler.schedule(sampler.num_steps, sampler.sigma_min, sampler.sigma_max).tolist()
    m, v = (target, sigmas[0] ** 2 - spread**2) if spread <= sigmas[0] else (0.0, sigmas[0] ** 2)
    for sigma, after in pairwise(sigmas):
        gain, keep = std**2 / (std**2 + sigma**2), (after / sigma) ** 2           # an ancestral step
        slope = keep + (1 - keep) * gain
        m, v = slope * m + (1 - keep) * (1 - gain) * mean, slope**2 * v + after**2 * (1 - keep)
        if spread <= after:
            m, v = target, after**2 - spread**2
    return m, v


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_component_is_replaced_down_to_its_noise(operator):
    """4000 chains: 5 standard errors of each component's mean and variance."""
    count, sigma_y, std = 4000, 0.05, 0.2
    prior, sampler = white_prior(std=std), ILVR(steps=20)
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


@pytest.mark.parametrize("operator", ["denoising", "super-resolution", "inpainting"])
def test_without_noise_the_range_is_the_measurement_s(operator):
    """At every level: A x = y + sigma A n. An operator without an SVD does as well."""
    prior, count = natural_prior(), 400
    problem = pose(operator, prior, 0.0)
    plain = LinearPhysics(A=problem.physics.A, A_adjoint=problem.physics.A_adjoint, img_size=(1, 8, 8))
    for physics in (problem.physics, plain):
        steps = list(ILVR(steps=5).steps(prior, Problem(physics, problem.y, 0.0), range(count)))
        seen = problem.physics.A(torch.ones(1, 1, 8, 8)) != 0
        unit = problem.physics.A(problem.physics.A_adjoint(torch.ones_like(problem.y)))[seen].mean()  # A A^T = unit I
        for step in steps:
            noise = ((problem.physics.A(step.x) - problem.y) * seen)[:, seen[0]]
            assert noise.std() == pytest.approx(step.sigma * float(unit) ** 0.5, rel=0.05, abs=1e-4)
        assert (problem.physics.A(steps[-1].x0) - problem.y).abs().max() < 1e-4
