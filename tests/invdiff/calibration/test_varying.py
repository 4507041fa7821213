"""Records of which settings varied: what is drawn, which runs they speak of, and what they cover."""

import json
import math

import numpy as np
import pytest
import torch

import invdiff.calibration.cases
import invdiff.calibration.measuring
from invdiff.benchmark.exact import draw_gaussian, gaussian_prior
from invdiff.calibration.finding import find_calibration, place
from invdiff.calibration.known import Known
from invdiff.calibration.measuring import calibrate
from invdiff.calibration.record import read_calibration, write_calibration
from invdiff.calibration.varying import Choice, Range, drawn, read_law, told, with_settings
from invdiff.errors import InputError
from invdiff.resolving import run_config

SIZE = (1, 12, 12)
LAW = ["sigma_y=0.02:0.2", "operator.sigma=0.6:1.0", "operator.boundary=circular,valid"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INVDIFF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gaussian(monkeypatch):
    """A prior that is known, under the name natural, and images of its own law."""
    prior = gaussian_prior("stationary", SIZE)
    monkeypatch.setattr(invdiff.calibration.measuring, "load_prior", lambda name: prior)
    images = draw_gaussian(prior.mean, prior.cov, 24, torch.Generator().manual_seed(0)).float().reshape(-1, *SIZE)
    return Known(list(images), None, "draws of the prior")


def config_of(*assignments):
    return run_config("deblur", None, ["sampler.steps=12", "samples=4", "sigma_y=0.05", "operator.sigma=0.8", *assignments])


def test_settings_are_drawn_evenly_by_their_logarithm():
    config = config_of()
    law = read_law(config, LAW)
    settings = [drawn(config, law, i) for i in range(2000)]
    levels = np.log([s["sigma_y"] for s in settings])
    assert math.log(0.02) <= levels.min() <= levels.max() <= math.log(0.2)
    assert levels.mean() == pytest.approx(math.log(0.02 * 0.2) / 2, abs=4 * math.log(10) / 12**0.5 / 2000**0.5)
    assert sum(s["operator.boundary"] == "valid" for s in settings) == pytest.approx(1000, abs=4 * 500**0.5)
    assert drawn(config, law, 7) == settings[7]
    steps = with_settings(config, {"sampler.steps": 10, "operator.sigma": 2.0})
    assert (steps.sampler["steps"], steps.operator["sigma"], config.sampler["steps"]) == (10, 2.0, 12)
    made = with_settings(config, settings[7])
    assert (made.sigma_y, made.operator["boundary"]) == (settings[7]["sigma_y"], settings[7]["operator.boundary"])
    assert (config.sigma_y, config.operator["boundary"]) == (0.05, "circular")


def test_a_record_speaks_of_all_that_varied_and_of_nothing_else(gaussian, tmp_path):
    config = config_of()
    law = read_law(config, LAW)
    record = calibrate(config, gaussian, law=law)
    assert record.check["covered"] == pytest.approx(0.9, abs=4 * record.check["standard_error"] + 1 / 13)
    counts = {key: sum(part["images"] for part in parts.values()) for key, parts in record.check["by"].items()}
    assert counts == dict.fromkeys(law, 12)
    write_calibration(tmp_path / "r.json", record)
    record = read_calibration(tmp_path / "r.json")
    assert record.varied == law
    quiet, loud = (record.interval(config, 4, sigma_y)["factor"] for sigma_y in (0.02, 0.2))
    assert math.log(loud / quiet) == pytest.approx(2 * record.trend["sigma_y"][0])
    for changes in ([], ["operator.boundary=valid", "operator.sigma=1.0"], ["operator.sigma=0.6"]):
        told_of = record.interval(config_of(*changes), 4, 0.15)
        assert told_of["calibrated"]
        assert "with sigma_y from 0.02 to 0.2, operator.sigma from 0.6 to 1 and operator.boundary circular or valid" in (
            told_of["source"])
    for changes, sigma_y, said in ((["operator.boundary=zero"], 0.05, "operator.boundary circular or valid: here it may"),
                                   (["operator.sigma=[0.8,0.9]"], 0.05, "operator.sigma from 0.6 to 1: here"),
                                   ([], 0.3, "sigma_y from 0.02 to 0.2: here"),
                                   (["sampler.steps=13"], 0.05, "sampler.steps=12: here")):
        told_of = record.interval(config_of(*changes), 4, sigma_y)
        assert not told_of["calibrated"]
        assert said in told_of["source"]


@pytest.mark.parametrize("trend", [{"operator.keep": [0.1]}, {"sigma_y": [0.1, 0.2]}, {"sigma_y": [math.inf]}])
def test_a_trend_of_something_else_is_damage(trend, gaussian, tmp_path):
    config = config_of()
    record = calibrate(config, Known(gaussian.crops[:6], None, "six"), law=read_law(config, LAW[:1]))
    assert record.trend == {}                                   # of six images
    (tmp_path / "r.json").write_text(json.dumps(record.model_dump(mode="json") | {"trend": trend}))
    with pytest.raises(InputError, match="trend: expected finite slopes of what varied, got"):
        read_calibration(tmp_path / "r.json")


def test_a_guarantee_is_for_one_factor(gaussian):
    config = config_of()
    assert calibrate(config, gaussian, law=read_law(config, LAW[:1]), level=0.6, delta=0.3).trend == {}


def test_one_of_these_settings_alone_goes_before_one_of_many(gaussian):
    config = config_of()
    law = read_law(config, LAW[:1])
    for varied in (law, None):
        write_calibration(place(config, varied), calibrate(config, gaussian, law=varied))
    prior = invdiff.calibration.measuring.load_prior("natural")
    assert not find_calibration(config, prior, 0.05).varied
    assert find_calibration(config, prior, 0.1).varied == law


def test_the_sampler_may_vary_too(gaussian, monkeypatch):
    config = config_of()
    law = read_law(config, ["sampler.steps=4,8"])
    samplers, restore = [], invdiff.calibration.cases.restore

    def seen(problem, prior, sampler, **options):
        samplers.append(sampler)
        return restore(problem, prior, sampler, **options)

    monkeypatch.setattr(invdiff.calibration.cases, "restore", seen)
    record = calibrate(config, Known(gaussian.crops[:6], None, "six"), law=law)
    assert record.interval(config_of("sampler.steps=8"), 4, 0.05)["calibrated"]
    assert {sampler.num_steps for sampler in samplers} == {4, 8}
    assert "with sampler.steps 4 or 8: here" in record.interval(config_of("sampler.steps=9"), 4, 0.05)["source"]


@pytest.mark.parametrize(("text", "said"), [
    ("sigma_y", "expected KEY=LOW:HIGH"), ("operator.width=1:2", "expected KEY=LOW:HIGH"), ("sigma_y=0.2:0.1", "in order"),
    ("sigma_y=0.1:nan", "in order"), ("sigma_y=-1:1", "at least 0"), ("operator.boundary=valid", "or values A,B"),
    ("samples=2,4", "expected KEY"), ("sigma_y=true,false", "at least 0"), ("sampler.steps=20:10", "in order"),
    ("sigma_y=a:b", "expected two numbers")])
def test_bad_laws_get_a_sentence(text, said):
    with pytest.raises(InputError, match=said):
        read_law(config_of(), [text])


def test_settings_that_no_operator_takes_are_refused_before_any_image_is_restored(gaussian):
    config = config_of()
    for law in ({"operator.boundary": Choice(values=["circular", "round"])}, {"operator.sigma": Range(low=-1.0, high=1.0)}):
        with pytest.raises(InputError, match="--vary"):
            calibrate(config, gaussian, law=law, on_image=lambda done, of: pytest.fail("began"))
    with pytest.raises(InputError, match=r"--vary|steps"):
        calibrate(config, gaussian, law={"sampler.steps": Choice(values=[4, 0])}, on_image=lambda *_: pytest.fail("began"))
    scans = run_config("mri", None, ["sigma_y=0.01"])
    with pytest.raises(InputError, match="scans bring their own"):
        calibrate(scans, gaussian, law=read_law(scans, ["sigma_y=0.01:0.1"]))
    with pytest.raises(InputError, match="said twice"):
        read_law(config, ["sigma_y=0.01:0.1", "sigma_y=0.1:0.2"])


def test_whole_numbers_stay_whole_and_ends_are_held():
    config = config_of()
    steps = read_law(config, ["sampler.steps=10:30"])["sampler.steps"]
    assert steps.ends == [10, 30]
    assert {type(steps.draw(np.random.default_rng(i))) for i in range(20)} == {int}
    assert (steps.holds(30), steps.holds(31)) == (True, False)
    angle = read_law(config, ["operator.angle=-45:45"])["operator.angle"]
    assert (angle.holds(-45), angle.holds(45), angle.holds(-50)) == (True, True, False)


def test_choices_are_yaml():
    config = config_of()
    assert read_law(config, ["operator.sigma=1, 8e-1, [0.8, 2]"])["operator.sigma"].values == [1, 0.8, [0.8, 2]]
    with pytest.raises(InputError, match="expected two numbers"):
        read_law(config, ["operator.sigma=[1,"])


def test_words():
    law = {"a": Range(low=0.002, high=0.1), "b": Choice(values=[2, 3, 4])}
    assert told(law) == "a from 0.002 to 0.1 and b 2, 3 or 4"
    assert law["a"].parts == ["from 0.002 to 0.01414", "from 0.01414 to 0.1"]
    assert law["a"].part(0.02) == law["a"].parts[1]
