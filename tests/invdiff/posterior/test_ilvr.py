"""ILVR on a white Gaussian prior, where it is a recursion of one mean and one variance a component."""

from itertools import pairwise

import pytest
import torch
from deepinv.physics import LinearPhysics
from toys import OPERATORS, assert_components_follow, natural_prior, pose

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
    assert_components_follow(ILVR(steps=20), operator, moments)


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
