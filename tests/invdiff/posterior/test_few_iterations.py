"""The default takes few conjugate-gradient iterations a step: what that leaves undone must not show in the samples."""

import pytest
from toys import assert_moments_close, natural_prior, pose, sample

import operators
from invdiff.posterior import MomentMatching

SIZE, LARGE = (1, 12, 12), (1, 32, 32)
MASKS = {
    "half": lambda: operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.5)),
    "box": lambda: operators.Inpainting(SIZE, operators.box_mask(SIZE, 3, 4, 5, 6)),
    "sensing": lambda: operators.CompressedSensing(SIZE, 0.25),
}


@pytest.mark.parametrize("sigma_y", [0.002, 0.05])
@pytest.mark.parametrize("mask", MASKS)
def test_the_default_has_the_posterior_s_moments(mask, sigma_y):
    prior = natural_prior(SIZE)
    problem = pose(MASKS[mask](), prior, sigma_y)
    samples = sample(MomentMatching(steps=60), prior, problem, 1000)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.02)


def test_they_are_few():
    """Operator calls a step: at full accuracy, many times as many."""
    prior = natural_prior(LARGE)
    physics = operators.Inpainting(LARGE, operators.random_mask(LARGE, 0.5))
    problem = pose(physics, prior, 0.02)
    counts = []
    for accuracy in ({}, {"cg_iterations": 50, "cg_tolerance": 1e-3}):
        before = problem.calls.operator
        sample(MomentMatching(steps=20, **accuracy), prior, problem, 1)
        counts.append((problem.calls.operator - before) / 21)
    assert counts[0] < 16 < counts[1]
