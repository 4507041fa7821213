"""The appraisal of a restoration agrees with what is known of it, and leaves out what cannot be said."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import operators
from invdiff.benchmark.exact import draw_gaussian, gaussian_prior
from invdiff.calibration.finding import reference_of
from invdiff.calibration.record import read_calibration
from invdiff.evaluation.novelty import Reference, features
from invdiff.io.images import load_image, sample_image, save_image, to_uint8
from invdiff.mri.scan_prior import ScanPrior
from invdiff.noise_level import FLOOR, jpeg_thins, noise_level
from invdiff.paths import bundled
from invdiff.posterior import DPS, MomentMatching
from invdiff.priors.facts import own_sampling
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate
from invdiff.trust import appraise, as_far_as_explained, assumed_of, finest_noise

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
    noise = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    for y, told in ((0.1 * noise, False), (0.1 * smooth, True)):
        found = noise_level(0.5 + y, inverts=False)
        assert found.report()["words"].startswith(f"Noise level estimated from the image: {found.sigma:.2g}.")
        assert ("as white noise is not" in found.report()["words"]) == (found.whiteness < 0.5) == found.guess == told


def as_jpeg(y, quality):
    """y (1, 3, H, W) as JPEG leaves it."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(y)).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer), np.float32) / 255).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def blurred():
    """A photograph, a blur, and what it makes with noise of 0.02."""
    x, physics = sample_image(size=128), operators.GaussianBlur((3, 128, 128), sigma=2.0)
    return x, physics, simulate(physics, x, 0.02).y


def test_less_noise_than_was_said_is_told_from_noise_that_jpeg_has_thinned(blurred):
    x, physics, y = blurred
    plain, thinned = (appraise(Problem(physics, each, 0.04), PRIOR, x[None]).report["consistency"]
                      for each in (y, as_jpeg(y, 60)))
    assert plain["verdict"] == thinned["verdict"] == "overfitted"
    assert plain["finest"] > 0.8
    assert "may be smaller than 0.04" in plain["words"]
    assert thinned["finest"] < 0.5
    assert "as is to be expected: JPEG" in thinned["words"]
    right = appraise(Problem(physics, y, 0.02), PRIOR, x[None]).report["consistency"]
    assert (right["verdict"], right["finest"]) == ("explained", None)              # nobody asked


def test_only_of_images_without_missing_pixels_is_the_noise_judged(blurred):
    x, _, y = blurred
    mask = operators.Inpainting((3, 128, 128), operators.random_mask((3, 128, 128), 0.5))
    problems = [Problem(mask, mask.A(x), 0.05),
                Problem(operators.MRI((2, 8, 8), torch.ones(8, 8)), torch.zeros(1, 2, 8, 8), 0.1),
                Problem(operators.CompressedSensing((1, 8, 8), rate=0.5), torch.zeros(1, 1, 32), 0.1),
                Problem(operators.Denoising((1, 9, 9)), torch.zeros(1, 1, 9, 9), 0.1)]
    assert [finest_noise(problem) for problem in problems] == [None] * 4
    sums = operators.Denoising((3, 128, 128))
    assert finest_noise(Problem(sums, y, 0.05)) > 0.8
    sums.measures_images = False
    assert finest_noise(Problem(sums, y, 0.05)) is None


def test_the_noise_level_of_a_jpeg_has_a_floor_where_a_blur_is_to_be_undone(blurred):
    """Of which the estimate, of what JPEG leaves in flat areas, makes garbage."""
    _, _, y = blurred
    thinned = as_jpeg(y, 60)
    assert noise_level(y).sigma == pytest.approx(0.02, rel=0.1)
    found = noise_level(thinned)
    assert found.sigma == FLOOR == 0.015
    assert noise_level(thinned, inverts=False).sigma == float(operators.estimate_sigma(thinned)) < 0.005
    assert found.report()["words"].startswith(
        "Noise level estimated from the image: 0.015, the least that is taken of such an image. In flat areas")


def ramp(channels):
    return torch.linspace(0.3, 0.7, 128).expand(1, channels, 128, 128)


def saved(x, path, quality):
    Image.fromarray(to_uint8(x)).save(path, quality=quality, subsampling=0)
    return load_image(path)


@pytest.mark.parametrize(("channels", "quality"), [(1, 40), (3, 60)])
def test_of_a_jpeg_the_noise_before_compression_is_found(channels, quality, tmp_path):
    y = ramp(channels) + 0.06 * torch.randn(1, channels, 128, 128, generator=torch.Generator().manual_seed(0))
    path = str(tmp_path / "y.jpg")
    read = saved(y, path, quality)
    found = noise_level(read, inverts=False, path=path)
    assert found.sigma == pytest.approx(0.06, rel=0.2)          # a third of the file's coefficients tell, of 32 blocks
    assert found.before_jpeg
    assert not found.guess
    assert abs(noise_level(read, inverts=False).sigma - 0.06) > 2 * abs(found.sigma - 0.06)
    assert found.report()["words"] == (f"Noise level estimated from the image: {found.sigma:.2g}, of white noise before JPEG "
                                       "took a part of it.")
    clean = noise_level(saved(ramp(channels), path, 75), path=path)
    assert clean.sigma == FLOOR                                 # of any JPEG, where an operator is to be inverted


def test_of_a_jpeg_of_a_jpeg_the_last_steps_tell_nothing(tmp_path):
    path = str(tmp_path / "y.jpg")
    y = ramp(3) + 0.04 * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    again = saved(saved(y, path, 60)[..., 3:, 5:], path, 95)
    found = noise_level(again, inverts=False, path=path)
    assert found.guess
    assert "as white noise is not" in found.report()["words"]
    assert found.sigma >= float(operators.estimate_sigma(again))


def test_jpeg_takes_a_part_of_noise_that_is_smaller_than_its_steps(tmp_path):
    path = str(tmp_path / "y.jpg")
    for quality, sigma, thins in ((75, 0.02, True), (75, 0.3, False), (100, 0.02, False)):
        saved(ramp(1), path, quality)
        assert jpeg_thins(path, sigma) == thins
    save_image(tmp_path / "y.png", ramp(1))
    assert not jpeg_thins(str(tmp_path / "y.png"), 0.02)
    assert not jpeg_thins(None, 0.02)


def test_less_noise_is_to_be_expected_where_jpeg_is_known_to_have_taken_a_part():
    y = ramp(1) + 0.04 * torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    problem = Problem(operators.Denoising((1, 128, 128)), y, 0.06)
    for compressed, advice in ((True, "as is to be expected: JPEG"), (False, "may be smaller than 0.06")):
        judged = appraise(problem, PRIOR, ramp(1)[None], probes=0, compressed=compressed).report["consistency"]
        assert judged["verdict"] == "overfitted"
        assert advice in judged["words"]


def test_the_noise_of_a_small_image_is_a_guess():
    for side, told in ((96, True), (128, False)):
        words = noise_level(torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))).report()["words"]
        assert ("Of so small an image that is a guess" in words) == told


def test_grey_images_are_not_judged_by_colour_ones():
    reference = Reference.fit(features(PRIOR, draws(40)), channels=3)
    problem, samples = restored(operators.Denoising(SIZE))
    assert "novelty" not in appraise(problem, PRIOR, samples, reference).report
    assert "novelty" in appraise(problem, PRIOR, samples, replace(reference, channels=1)).report
    for path in bundled("configs").glob("*.calibration.json"):
        known = reference_of(read_calibration(path))
        assert known.channels == (2 if path.name.startswith("mri") else 3)


def test_nothing_is_promised_where_the_restoration_does_not_explain_the_measurement():
    """Not that an image is as usual, either, which is judged by the restoration."""
    problem, samples = restored(operators.Denoising(SIZE))
    reference = replace(Reference.fit(features(PRIOR, draws(40))), scores=torch.tensor([100.0] * 20))       # all is usual
    promised = {"level": 0.9, "factor": 2.0, "calibrated": True, "source": "covers 90% on average"}
    for sigma_y, verdict, kept in ((0.05, "explained", True), (0.2, "overfitted", True), (0.03, "unexplained", False)):
        report = appraise(Problem(problem.physics, problem.y, sigma_y), PRIOR, samples, reference).report
        assert report["consistency"]["verdict"] == verdict
        assert (as_far_as_explained(promised, report) == promised) == kept
        assert report["novelty"]["words"].startswith("The image is like those") == kept
    assert "not to be relied on" in as_far_as_explained(promised, report)["source"]


def test_the_noise_alone_is_assumed_where_there_is_no_operator():
    assert assumed_of(Problem(operators.Denoising(SIZE), torch.zeros(1, *SIZE), 0.1)) == "the noise is"
    blur = operators.GaussianBlur(SIZE, sigma=0.5)
    assert assumed_of(Problem(blur, torch.zeros(1, *SIZE), 0.1)) == "the operator and the noise are"
