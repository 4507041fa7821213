"""What the terminal, or a log file, shows of a training run."""

import io

import numpy as np
import pytest
import rich.console
from PIL import Image
from typer.testing import CliRunner

from invdiff.cli import app
from invdiff.errors import InputError
from invdiff.priors.checkpoint import read_card
from invdiff.training.monitor import band_names


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for k in range(3):
        image = np.random.default_rng(k).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{k}.png")
    (tmp_path / "toy.yaml").write_text(
        "{name: toy, precision: fp32, data: {path: photos, patch: [16], holdout: 1}, "
        "network: {widths: [4, 4], depths: [1, 1], embedding: 16}, "
        "optimiser: {steps: 4, batch: 2, warmup: 2}, monitor: {every: 2, sheet: 1, sheet_size: 16, sheet_steps: 2}}")
    return "toy.yaml"


def train(*arguments):
    result = CliRunner().invoke(app, ["train", *arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_log_file_gets_a_line_for_each_validation(config):
    lines = train(config).splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["step 2", "step 4"]
    assert "dB at 0.5" in lines[0]
    assert lines[2].startswith("runs/toy/toy.safetensors: the prior")
    longer = train(config, "--set", "optimiser.steps=6").splitlines()
    assert longer[0] == "going on from step 4"
    assert longer[1].startswith("step 6")
    assert train(config, "--set", "optimiser.steps=6").startswith("runs/toy/toy.safetensors: the prior")


def test_a_terminal_shows_the_loss_of_each_band_and_the_last_validation(config, monkeypatch):
    screen, plain = io.StringIO(), rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda: plain(file=screen, force_terminal=True, width=120))
    train(config)
    shown = screen.getvalue()
    assert all(name in shown for name in band_names())
    assert "4/4" in shown
    assert "held back, step 4" in shown


def test_stages_follow_each_other_and_a_finished_one_is_not_run_again(config):
    with open(config, encoding="utf-8") as file:
        text = file.read().rstrip("}")
    with open("two.yaml", "w", encoding="utf-8") as file:
        file.write(text + "}, stages: [{data.patch: [32], optimiser.steps: 2}, {network.depths: [1, 2], seed: 1}]}")
    lines = train("two.yaml").splitlines()
    assert [line.split(",")[0] for line in lines[:-1]] == ["stage 1 of 2", "step 2", "stage 2 of 2", "step 2", "step 4"]
    assert lines[-1].startswith("runs/toy/toy.safetensors")
    first, last = (read_card(f"runs/toy/{name}toy.safetensors")["training"] for name in ("stage-1/", ""))
    assert (first["settings"]["data"]["patch"], first["steps"], last["settings"]["data"]["patch"]) == ([32], 2, [16])
    assert last["initial"]["steps"] == 2
    assert train("two.yaml").splitlines()[0] == "stage 2 of 2"
    for changed in ("optimiser.steps=6", "noise.low=0.01"):       # of the first stage too, which the second began with
        result = CliRunner().invoke(app, ["train", "two.yaml", "--set", changed])
        assert isinstance(result.exception, InputError)
        assert "runs/toy: holds a run that did not begin with what stage 1 of 2 is yet to make" in str(result.exception)
    assert train("two.yaml", "--set", "stages=[]", "--output", "one").startswith("step 2")


def test_stages_that_are_none_are_refused(config):
    for stages, said in (("3", "expected a list of mappings"), ("[{name.x: 1}]", "stages: name.x: name is a value"),
                         ("[{seed: 1}, {initial: natural}]", "no initial of its own")):
        with open(config, encoding="utf-8") as file:
            text = file.read().rstrip("}")
        with open("bad.yaml", "w", encoding="utf-8") as file:
            file.write(text + "}, stages: " + stages + "}")
        result = CliRunner().invoke(app, ["train", "bad.yaml"])
        assert isinstance(result.exception, InputError)
        assert said in str(result.exception)
