"""The appraisal of a restoration agrees with what is known of it, and leaves out what cannot be said."""

import pytest
import torch

import operators
from invdiff.benchmark.exact import draw_gaussian, gaussian_prior
from invdiff.evaluation.novelty import Reference, features
from invdiff.mri.scan_prior import ScanPrior
from invdiff.posterior import DPS, MomentMatching
from invdiff.priors.facts import own_sampling
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate
from invdiff.trust import appraise, estimated_noise

SIZE = (1, 12, 12)
PRIOR = gaussian_prior("stationary", SIZE)


def draws(count, seed=0):
    return draw_gaussian(PRIOR.mean, PRIOR.cov, count, torch.Generator().manual_seed(seed)).float().reshape(-1, *SIZE)


def restored(physics, sampler=None, x=None):
    problem = simulate(physics, draws(1) if x is None else x, 0.05, seed=1)
    sampler = sampler or MomentMatching(steps=60, sigma_min=1e-3, cg_tolerance=1e-4)
    return problem, restore(problem, PRIOR, sampler, samples=20, seed=0).samples


def test_a_prior_that_is_no_denoiser_is_said_to_be_none():
    few = gaussian_prior("stationary", SIZE)
    few.card = {"sampling": {"solver": "consistency", "steps": 2}}
    problem, samples = restored(operators.Denoising(SIZE))
    assert "no denoiser" in appraise(problem, few, samples).report["few_steps"]["words"]
    assert "few_steps" not in appraise(problem, PRIOR, samples).report
    pair = gaussian_prior("stationary", (2, 4, 4))
    pair.card = few.card
    assert own_sampling(ScanPrior(pair, torch.ones(1, 2, 4, 4))) == few.card["sampling"]     # of scans


def test_exact_samples_explain_the_measurement_and_missing_pixels_are_the_priors():
    mask = operators.random_mask(SIZE, 0.5, 0)
    problem, samples = restored(operators.Inpainting(SIZE, mask))
    found = appraise(problem, PRIOR, samples)
    assert found.report["consistency"]["verdict"] == "explained"
    assert found.report["consistency"]["p_value"] > 0.001
    share = (mask.float() * 0.25**2 / (0.25**2 + 0.05**2)).expand(1, *SIZE)
    assert torch.allclose(found.provenance.measured, share, atol=1e-5)
    assert found.report["provenance"]["measured"] == pytest.approx(float(share.mean()), abs=1e-5)
    assert found.features is None
    assert "novelty" not in found.report


def test_a_prior_out_of_its_depth_is_said_to_be():
    reference = Reference.fit(features(PRIOR, draws(40)))
    physics = operators.Denoising(SIZE)
    problem, samples = restored(physics)
    assert not appraise(problem, PRIOR, samples, reference).report["novelty"]["unusual"]
    problem, samples = restored(physics, x=torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)) * 3)
    found = appraise(problem, PRIOR, samples, reference)
    assert found.report["novelty"]["unusual"]
    assert found.report["novelty"]["words"].startswith("The image is unlike")


def test_nonlinear_operators_have_no_provenance():
    problem, samples = restored(operators.PhaseRetrieval(SIZE), DPS(steps=3))
    found = appraise(problem, PRIOR, samples, look=True)
    assert found.provenance is None
    assert set(found.report) == {"consistency"}
    assert found.features.shape == (8,)


def test_a_finished_run_short_of_memory_goes_without_novelty(monkeypatch):
    def out_of_memory(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    reference = Reference.fit(features(PRIOR, draws(40)))
    problem, samples = restored(operators.Denoising(SIZE), DPS(steps=3))
    monkeypatch.setattr("invdiff.trust.features", out_of_memory)
    found = appraise(problem, PRIOR, samples, reference)
    assert "novelty" not in found.report
    assert "the memory that is left" in found.report["unjudged"]["words"]
    assert found.features is None
    with pytest.raises(RuntimeError, match="allocate"):         # what is asked for is not left out
        appraise(problem, PRIOR, samples, reference, look=True)


def test_noise_that_is_not_white_is_told():
    size = (1, 64, 64)
    noise = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    for y, told in ((0.1 * noise, False), (0.1 * smooth, True)):
        said = estimated_noise(Problem(operators.Denoising(size), 0.5 + y, 0.05))
        assert said["words"].startswith("Noise level estimated from the image: 0.05.")
        assert ("as white noise is not" in said["words"]) == (said["whiteness"] < 0.5) == told
