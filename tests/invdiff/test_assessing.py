"""What is said of a restoration from a script is what the command line says of the same run."""

import pytest
import torch

import invdiff
import operators
from invdiff.config import build_sampler
from invdiff.errors import InputError
from invdiff.io.images import sample_image
from invdiff.job import run
from invdiff.paths import bundled
from invdiff.posing import pose
from invdiff.posterior import MomentMatching
from invdiff.priors.analytic import GaussianPrior
from invdiff.resolving import run_config

RECORD = bundled("configs") / "deblur.calibration.json"


@pytest.fixture(scope="module")
def prior():
    return invdiff.load_prior("natural")


def test_it_says_what_the_command_line_says(prior, tmp_path):
    config = run_config("deblur", None, ["samples=2", "sampler.steps=3"])
    outcome = run(config)
    problem = pose(config).problem
    settings = {"operator.sigma": 1.6, "operator.boundary": "circular", "sampler.steps": 3}
    found = invdiff.assess(outcome.result, problem, prior, calibration=RECORD, settings=settings)
    for part in ("consistency", "provenance"):
        assert found.report[part] == outcome.report[part]
    assert "novelty" not in found.report | outcome.report           # in fewer steps than what is usual was measured in
    assert found.report["interval"]["factor"] == outcome.report["interval"]["factor"]
    for mine, theirs in zip((found.lower, found.upper), outcome.bounds, strict=True):
        assert torch.equal(mine, theirs[0])
    said = found.words().split("\n")
    assert "with sampler.steps from 8 to 50: here" in said[2]
    drawn = invdiff.restore(problem, prior, build_sampler(config.sampler), samples=2, antithetic=True)
    assert drawn.report["sampler"]["steps"] == 3
    own = {name: settings[name] for name in ("operator.sigma", "operator.boundary")}        # the sampler is known
    for result in (outcome.result, drawn):
        told = invdiff.assess(result, problem, prior, calibration=RECORD, settings=own).report["interval"]
        assert told["factor"] == found.report["interval"]["factor"]
        assert not told["calibrated"]
    with pytest.raises(InputError, match="settings: are of what varied while a calibration was measured"):
        invdiff.assess(drawn, problem, prior, settings=own)
    with pytest.raises(InputError, match=r"settings: expected some of what varied, sigma_y, .*; got operator.width"):
        invdiff.assess(outcome.result, problem, prior, calibration=RECORD, settings={"operator.width": 2})
    assert len(said) == 3
    assert said[0] == outcome.report["consistency"]["words"]
    assert said[2].startswith("The 90% interval is the mean ±")


def test_each_of_several_measurements_and_without_a_calibration(prior):
    x = torch.cat([sample_image("astronaut", 128)[..., i : i + 32, i : i + 32] for i in (0, 40)])
    problem = invdiff.simulate(operators.Inpainting((3, 32, 32), operators.random_mask((3, 32, 32), 0.5)), x, 0.05)
    result = invdiff.restore(problem, prior, MomentMatching(steps=3), samples=2)
    both = [invdiff.assess(result, problem, prior, item=i) for i in (0, -1)]
    assert both[0].report["consistency"] != both[1].report["consistency"]
    assert "novelty" not in both[0].report
    assert "Student's t, not calibrated; too wide for so few samples" in both[0].words()
    single = invdiff.assess(invdiff.restore(problem, prior, MomentMatching(steps=2)), problem, prior)
    assert (single.lower, single.upper) == (None, None)
    assert "interval" not in single.words()


def test_pairs_are_not_what_a_record_of_independent_samples_is_for(prior):
    problem = pose(run_config("deblur", None, [])).problem.rows(torch.tensor([0]))
    for paired in (True, False):
        result = invdiff.restore(problem, prior, MomentMatching(steps=8), samples=2, antithetic=paired)
        report = invdiff.assess(result, problem, prior, calibration=RECORD).report
        interval = report["interval"]
        assert report["novelty"]["words"].startswith("The image is like those")
        assert interval["calibrated"] == paired
        assert ("antithetic=True: here" in interval["source"]) != paired


def test_bad_requests_get_a_sentence(prior, tmp_path):
    physics = operators.Inpainting((1, 8, 8), torch.rand(2, 1, 8, 8) < 0.5)
    own = GaussianPrior(torch.zeros(1, 8, 8), torch.eye(64))
    problem = invdiff.simulate(physics, torch.rand(2, 1, 8, 8), 0.1)
    result = invdiff.restore(problem, own, MomentMatching(steps=2), samples=2)
    with pytest.raises(InputError, match="parameters of its own for each of 2"):
        invdiff.assess(result, problem, own)
    one = invdiff.simulate(operators.Denoising((1, 8, 8)), torch.rand(1, 1, 8, 8), 0.1)
    with pytest.raises(InputError, match="result: expected samples of 1 images"):
        invdiff.assess(result, one, own)
    result = invdiff.restore(one, own, MomentMatching(steps=2), samples=2)
    with pytest.raises(InputError, match="item: expected one of 1 measurements, got 1"):
        invdiff.assess(result, one, own, item=1)
    with pytest.raises(InputError, match="measured with another prior, called natural"):
        invdiff.assess(result, one, own, calibration=RECORD)


def test_the_interval_of_an_exact_sampler_covers():
    """Eight independent samples of a white Gaussian posterior: Student's t of a pooled spread covers 90 % or somewhat more."""
    own = GaussianPrior(torch.full((1, 24, 24), 0.5), 0.04 * torch.eye(576))
    x = 0.5 + 0.2 * torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    problem = invdiff.simulate(operators.Denoising((1, 24, 24)), x, 0.1, seed=10)
    result = invdiff.restore(problem, own, MomentMatching(steps=20), samples=8)
    found = invdiff.assess(result, problem, own)
    covered = float(((x[0] >= found.lower) & (x[0] <= found.upper)).double().mean())
    assert 0.9 - 3 * 0.3 / 24 < covered < 0.94 + 3 * 0.24 / 24


@pytest.mark.parametrize("width", [3.0, 0.8])
def test_a_wrong_blur_is_no_calibrated_one_where_it_shows_and_a_condition_where_it_does_not(prior, width):
    """One that is too wide leaves structure; one that is too narrow leaves nothing but noise."""
    y = invdiff.simulate(operators.GaussianBlur((3, 96, 96), sigma=1.5), sample_image(size=96), 0.02).y
    problem = invdiff.Problem(operators.GaussianBlur((3, 96, 96), sigma=width), y, 0.02)
    result = invdiff.restore(problem, prior, MomentMatching(steps=8), samples=2, antithetic=True)
    found = invdiff.assess(result, problem, prior, calibration=RECORD, settings={"operator.sigma": width})
    shows = found.report["consistency"]["verdict"] != "explained"
    assert shows == (width > 1.5)
    assert found.report["interval"]["calibrated"] == (not shows)
    assert ("covers 90% on average if the operator and the noise are as assumed; measured on 34" in found.words()) != shows
    assert ("not to be relied on" in found.words()) == shows
    assert found.lower is not None
