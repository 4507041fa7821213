"""`invdiff calibrate`: what it writes is found by the runs it is for."""

import pytest
from typer.testing import CliRunner

from invdiff.calibration.finding import find_calibration
from invdiff.calibration.record import read_calibration
from invdiff.cli.main import program
from invdiff.io.images import sample_image, save_image
from invdiff.job import run
from invdiff.priors import load_prior
from invdiff.resolving import run_config


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INVDIFF_CACHE", str(tmp_path / "cache"))


def calibrate(*arguments):
    return CliRunner().invoke(program, ["calibrate", *arguments])


def photos(path, tiny_prior):
    """A folder of four photos, and the options of a short run on them."""
    path.mkdir()
    photo = sample_image()
    for i in range(4):
        save_image(path / f"{i}.png", photo[0, :, 48 * i : 48 * i + 48, 64:112])
    return ["--set", "sampler.steps=2", "--prior", str(tiny_prior(channels=3, centre=0.5))]


def test_the_command_line_calibrates_and_restore_uses_it(tmp_path, tiny_prior):
    options = photos(tmp_path / "photos", tiny_prior)
    done = calibrate("--task", "sr", "--data", str(tmp_path / "photos"), "--size", "31", *options)
    assert done.exit_code == 0, done.output
    assert "on 2 fresh images it covers" in done.output
    (path,) = (tmp_path / "cache" / "calibrations" / "sr").iterdir()
    record = read_calibration(path)
    assert record.images == "every other of 4 central crops of 30 x 30 from photos"
    assert not list((tmp_path / "cache" / "calibrations").glob("*.partial"))
    config = run_config("sr", None, [f"truth={tmp_path / 'photos' / '0.png'}", f"prior={options[-1]}", options[1]])
    outcome = run(config)
    interval = outcome.report["interval"]
    assert interval["calibrated"] is True
    assert interval["factor"] == record.factor
    lower, upper = outcome.bounds
    assert float((upper - lower).mean()) / 2 == pytest.approx(interval["half_width"], rel=1e-4)
    inside = ((outcome.truth >= lower) & (outcome.truth <= upper)).float().mean()
    assert outcome.report["metrics"]["covered"] == pytest.approx(float(inside), abs=1e-6)


def test_a_config_has_its_calibration_beside_it(tmp_path, tiny_prior):
    options = photos(tmp_path / "photos", tiny_prior)
    config = tmp_path / "mine.yaml"
    config.write_text("task: mine\noperator: {name: uniform_blur}\nsigma_y: 0.03\nsamples: 2\n"
                      "sampler: {name: moment_matching, rank: 2}\n")
    done = calibrate("--config", str(config), "--data", str(tmp_path / "photos"), "--size", "24",
                     "--sampler", "moment_matching", *options)
    assert done.exit_code == 0, done.output
    resolved = run_config(None, config, ["sampler=moment_matching", f"prior={options[-1]}", options[1]])
    assert read_calibration(tmp_path / "mine.calibration.json").sampler == resolved.sampler         # as with restore --sampler
    assert resolved.calibration == str(tmp_path / "mine.calibration.json")
    assert find_calibration(resolved, load_prior(options[-1])).task == "mine"


@pytest.mark.parametrize("output", ["mine.yaml", "prior.pt", "faces"])
def test_nothing_that_is_read_is_replaced(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces").mkdir()
    (tmp_path / "mine.yaml").write_text("{task: mine, operator: denoising, sigma_y: 0.1}")
    done = calibrate("--config", "mine.yaml", "--data", "photos", "--prior", "edm:prior.pt?class=3",
                     "--unlike", "faces:key", "--output", output)
    assert str(done.exception) == f"{output}: would be replaced by the output, {output}; choose another one"
