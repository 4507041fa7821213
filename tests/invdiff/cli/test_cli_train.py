"""What the terminal, or a log file, shows of a training run."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import rich.console
from PIL import Image
from typer.testing import CliRunner

from invdiff.cli.main import program
from invdiff.cli.train import View
from invdiff.errors import InputError
from invdiff.paths import bundled
from invdiff.priors.checkpoint import read_card
from invdiff.training.monitor import band_names
from invdiff.training.short import run_short
from invdiff.training.stages import RUNS, train_stages


class Full:
    """A training of minutes whose log cannot be written."""

    settings, seconds = SimpleNamespace(steps=1), 0.0

    def step(self, number):
        return {"loss": 1.0}


def test_the_log_of_a_short_training_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(InputError, match=r"log\.jsonl: cannot be written"):
        run_short(Full(), tmp_path, None)


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
    result = CliRunner().invoke(program, ["train", *arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_log_file_gets_a_line_for_each_validation(config):
    lines = train(config).splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["step 2", "step 4"]
    assert "dB at 0.5" in lines[0]
    assert lines[2] == "measuring the prior's errors, in 36 network calls"        # 17 in colour, 17 in grey, 2 of the sheet
    assert lines[3].startswith("runs/toy/toy.safetensors: the prior")
    longer = train(config, "--set", "optimiser.steps=6").splitlines()
    assert longer[0] == "going on from step 4"
    assert longer[1].startswith("step 6")


def test_a_validation_of_the_first_step_is_shown(config):
    """Also of the first step of a run that goes on."""
    lines = train(config, "--set", "monitor.every=1", "--set", "optimiser.steps=2", "--set", "optimiser.decay=0.1").splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == ["step 1", "step 2", "measuring the prior's errors"]
    longer = train(config, "--set", "monitor.every=1", "--set", "optimiser.decay=0.1").splitlines()
    assert [line.split(",")[0] for line in longer[:3]] == ["going on from step 2", "step 3", "step 4"]


def test_a_finished_run_says_that_there_is_nothing_to_do_and_refuses_fewer_steps(config):
    train(config)
    written = Path("runs/toy/toy.safetensors").stat().st_mtime_ns
    assert train(config) == "runs/toy/toy.safetensors: already finished at step 4; nothing to do\n"
    result = CliRunner().invoke(program, ["train", config, "--set", "optimiser.steps=3", "--device", "cpu"])
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == ("runs/toy/state.safetensors: 4 steps are done, more than optimiser.steps=3; ask for 4 or "
                                     "more, or use another --output")
    assert Path("runs/toy/toy.safetensors").stat().st_mtime_ns == written
    said = train(config, "--set", "data.licence=CC0").splitlines()
    assert said[0] == "already trained to step 4; only the prior is written anew"
    assert read_card("runs/toy/toy.safetensors")["licence"] == "CC0"


def test_an_interrupted_run_says_where_it_goes_on(config, invdiff, monkeypatch):
    show = View.show

    def interrupt(view, progress, trainer):
        show(view, progress, trainer)
        if progress.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(View, "show", interrupt)
        code, _, err = invdiff("train", config, "--device", "cpu")
    assert code == 130
    assert err == ("runs/toy/state.safetensors: the state after step 3; the same command goes on from there\n"
                   "interrupted\n")
    assert train(config).splitlines()[0] == "going on from step 3"


def test_interrupted_before_the_first_step_nothing_is_claimed(config, invdiff, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("invdiff.training.run.load_data", interrupt)
    code, _, err = invdiff("train", config, "--device", "cpu")
    assert (code, err) == (130, "interrupted\n")


@pytest.mark.parametrize("kind", ["autoencoder", "classifier"])
def test_what_cannot_go_on_from_the_middle_says_so(kind, invdiff, tmp_path, monkeypatch):
    def interrupt(*_arguments, **_keywords):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    model, _ = RUNS[kind]
    monkeypatch.setitem(RUNS, kind, (model, interrupt))
    code, _, err = invdiff("train", bundled("configs", "train", f"fashion-{kind}.yaml"), "--device", "cpu")
    assert code == 130
    assert err.startswith(f"nothing is kept: the training of this {kind} cannot go on from the middle; the same command begins")


def test_a_finished_autoencoder_is_not_trained_again(invdiff, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["train"], file["test"] = image, image[:4]
    config = tmp_path / "toy.yaml"
    config.write_text("kind: autoencoder\nname: toy\nsteps: 2\nbatch: 4\ndata: {path: images.h5, key: train, test: test}\n"
                      "network: {widths: [4], depths: [1], latent_channels: 1}\n")
    for said in ("the autoencoder; log.jsonl beside it", "already finished; nothing to do"):
        code, out, err = invdiff("train", config, "--data", tmp_path / "images.h5", "-o", tmp_path / "run", "--device", "cpu")
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == f"{tmp_path}/run/toy.safetensors: {said}"


OWN = ("BSDS500", "Berkeley")
UNSTATED = ("photos; what it holds is not stated", "not stated")


@pytest.mark.parametrize(("given", "description", "licence"), [
    ([], *OWN),
    (["data.path=/elsewhere/natural.h5"], *OWN),
    (["data.path=photos/"], *UNSTATED),
    (["data.path=/home/me/photos"], *UNSTATED),
    (["data.path=photos", "data.description=mine"], "mine", "not stated"),
    (["data.path=photos", "data.description=mine", "data.licence=CC0"], "mine", "CC0"),
    (["data={path: photos, licence: CC0}"], "", "CC0"),
])
def test_a_config_speaks_of_its_own_data_only(given, description, licence):
    (settings,) = train_stages(bundled("configs", "train", "natural.yaml"), given)
    for said, wanted in ((settings.data.description, description), (settings.data.licence, licence)):
        assert (wanted in said) if wanted in OWN else said == wanted


@pytest.mark.parametrize("path", sorted(bundled("configs", "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_bundled_config_claims_other_data(path):
    for settings in train_stages(path, ["data.path=/home/me/photos"]):
        assert (settings.data.description, settings.data.licence) == UNSTATED


@pytest.mark.parametrize("name", ["fashion", "fashion-autoencoder", "fashion-classifier"])
def test_a_name_is_that_of_a_file_in_the_output_folder(name):
    for wrong in ("../../x", "/x", "a/b", ""):
        with pytest.raises(InputError, match="name: "):
            train_stages(bundled("configs", "train", f"{name}.yaml"), [f"name={wrong!r}"])


def test_the_card_of_other_data_and_the_line_that_says_so(config, tmp_path):
    text = Path(config).read_text(encoding="utf-8").replace("path: photos,", "path: a.h5, description: old, licence: MIT,")
    Path("own.yaml").write_text(text, encoding="utf-8")
    said = train("own.yaml", "--data", str(tmp_path / "photos")).splitlines()
    assert said[0] == ('the card says "not stated" of these data, as own.yaml describes others; state it with '
                       "--set data.description=... --set data.licence=...")
    card = read_card("runs/toy/toy.safetensors")
    assert (card["data"], card["licence"]) == UNSTATED
    assert str(tmp_path) not in str(card)
    stated = train("own.yaml", "--data", "photos", "--set", "data.description=mine", "--set", "data.licence=CC0").splitlines()
    assert stated[0].startswith("already trained to step 4")
    assert read_card("runs/toy/toy.safetensors")["data"] == "mine"
    Path("photos").rename("2024")
    (settings,) = train_stages("own.yaml", ["data.path='2024'"])
    assert settings.data.path == "2024"
    assert "already trained" in train("own.yaml", "--data", "2024")         # a number, and the data may be moved


def test_a_terminal_shows_the_loss_of_each_band_and_the_last_validation(config, monkeypatch):
    screen, plain = io.StringIO(), rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda **options: plain(file=screen, force_terminal=True, width=120))
    train(config)
    shown = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())          # without colours
    assert all(name in shown for name in band_names())
    assert "4/4" in shown
    assert "held back, step 4" in shown
    assert "36/36 network calls" in shown


def test_stages_follow_each_other_and_a_finished_one_is_not_run_again(config):
    with open(config, encoding="utf-8") as file:
        text = file.read().rstrip("}")
    with open("two.yaml", "w", encoding="utf-8") as file:
        file.write(text + "}, stages: [{data.patch: [32], optimiser.steps: 2}, {network.depths: [1, 2], seed: 1}]}")
    lines, measuring = train("two.yaml").splitlines(), "measuring the prior's errors"
    assert [line.split(",")[0] for line in lines[:-1]] == ["stage 1 of 2", "step 2", measuring, "stage 2 of 2", "step 2",
                                                            "step 4", measuring]
    assert lines[-1].startswith("runs/toy/toy.safetensors")
    first, last = (read_card(f"runs/toy/{name}toy.safetensors")["training"] for name in ("stage-1/", ""))
    assert (first["settings"]["data"]["patch"], first["steps"], last["settings"]["data"]["patch"]) == ([32], 2, [16])
    assert last["initial"]["steps"] == 2
    assert train("two.yaml").splitlines()[0] == "stage 2 of 2"
    for changed in ("optimiser.steps=6", "noise.low=0.01"):       # of the first stage too, which the second began with
        result = CliRunner().invoke(program, ["train", "two.yaml", "--set", changed])
        assert isinstance(result.exception, InputError)
        assert "runs/toy: holds a run that did not begin with what stage 1 of 2 is yet to make (" in str(result.exception)
        key, value = changed.split("=")
        assert f"{key}: " in str(result.exception)
        assert f"and now {value})" in str(result.exception)
    result = CliRunner().invoke(program, ["train", "two.yaml", "--set", "optimiser.steps=1"])
    assert "runs/toy/stage-1/toy.safetensors: 2 steps are done, more than optimiser.steps=1" in str(result.exception)
    assert train("two.yaml", "--set", "stages=[]", "--output", "one").startswith("step 2")


def test_stages_that_are_none_are_refused(config):
    for stages, said in (("3", "expected a list of mappings"), ("[{name.x: 1}]", "stages: name.x: name is a value"),
                         ("[{seed: 1}, {initial: natural}]", "no initial of its own")):
        with open(config, encoding="utf-8") as file:
            text = file.read().rstrip("}")
        with open("bad.yaml", "w", encoding="utf-8") as file:
            file.write(text + "}, stages: " + stages + "}")
        result = CliRunner().invoke(program, ["train", "bad.yaml"])
        assert isinstance(result.exception, InputError)
        assert said in str(result.exception)
