"""The default takes few conjugate-gradient iterations a step: what that leaves undone must not show in the samples."""

import deepinv
import pytest
import torch
from toys import assert_moments_close, natural_prior, pose, sample

import operators
from invdiff.io.images import sample_image
from invdiff.physics import selects_pixels
from invdiff.posterior import MomentMatching
from invdiff.priors import load_prior
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate
from operators.mri import phantom, sampling

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


@pytest.mark.parametrize("kind", ["sensing", "mri"])
def test_frequencies_and_sums_have_as_many_as_they_need(kind):
    """With one above sigma = 1, as does for pixels, sums lost 10 dB, and scans of one coil ran away."""
    if kind == "sensing":
        x, prior = sample_image("astronaut", 128)[..., :64, :64], "natural"
        physics = operators.CompressedSensing((3, 64, 64), 0.25)
    else:
        x, physics, prior = phantom.image((96, 96)), operators.MRI((2, 96, 96), sampling.poisson_disc((96, 96), 4)), "brain"
    problem, errors = simulate(physics, x, 0.01), []
    for accuracy in ({}, {"cg_iterations": 50, "cg_tolerance": 1e-2}):
        result = restore(problem, load_prior(prior), MomentMatching(steps=10, **accuracy))
        errors.append(float((result.mean - x).square().mean().sqrt()))
    assert errors[0] < 1.1 * errors[1]


def test_a_blur_within_its_borders_has_few_and_leaves_what_noise_leaves():
    """Weighted by contrast, C is not what the preconditioner takes it for: two to three times as many, for worse samples."""
    x = sample_image("astronaut", 128)[..., :96, :96]
    physics = operators.blur((3, 96, 96), operators.kernels.gaussian_kernel(1.6), "valid")
    result = restore(simulate(physics, x, 0.02), load_prior("natural"), MomentMatching(steps=8))
    assert result.report["operator_calls"] / 9 < 40
    assert result.report["residual"]["value"] == pytest.approx(1, abs=0.02)


def test_deepinv_s_inpainting_is_ours():
    x, mask = sample_image("astronaut", 128)[..., :48, :48], operators.random_mask((3, 48, 48), 0.5)
    ours = operators.Inpainting((3, 48, 48), mask)
    y = simulate(ours, x, 0.02).y
    results = [restore(Problem(physics, y, 0.02), load_prior("natural"), MomentMatching(steps=5))
               for physics in (ours, deepinv.physics.Inpainting((3, 48, 48), mask=mask.float()))]
    torch.testing.assert_close(results[0].samples, results[1].samples, rtol=0, atol=1e-4)
    assert not selects_pixels(deepinv.physics.Inpainting((3, 48, 48), mask=0.5 * mask.float()))       # weights, not a selection


def test_solves_for_dense_random_sums_go_on_until_they_have_converged():
    """Ended after 20 iterations, samples of this were 500 times as bright as the image."""
    x = sample_image("astronaut", 128)[..., :32, :32]
    problem = simulate(operators.GaussianSensing((3, 32, 32), 0.5), x, 0.0)
    result = restore(problem, load_prior("natural"), MomentMatching(covariance="low-rank", rank=1, steps=6))
    assert result.report["residual"]["value"] < 0.01
    assert (result.samples[:, 0] - x).square().mean() < 0.1**2
