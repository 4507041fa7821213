"""What `invdiff train` says of the images as it begins."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from invdiff.cli.main import program
from invdiff.training.complex_patches import ComplexPatches
from invdiff.training.latents import Latents
from invdiff.training.remarks import remark

DARK = "data: the brightest value is 0.0625, and white is 1: "
SMALL = "steps: 2, batch: 4, data: {path: images.h5, key: x, holdout: 4"


@pytest.fixture
def dark(tmp_path, monkeypatch):
    """images.h5 in the working folder, of a camera's 12 bits in 16."""
    monkeypatch.chdir(tmp_path)
    with h5py.File("images.h5", "w") as file:
        file["x"] = np.random.default_rng(0).integers(0, 4096, (20, 8, 8)).astype(np.uint16)
        file["x"][0] = 4095
        file["y"] = np.arange(20) % 2


def train(*arguments):
    result = CliRunner().invoke(program, ["train", "toy.yaml", *arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def told(lines):
    return [line for line in lines if line.startswith(DARK)]


@pytest.mark.parametrize("channels", [1, 3])
def test_of_nearly_black_images_it_is_said_once_as_training_begins(channels, dark):
    Path("toy.yaml").write_text(
        f"{{name: toy, precision: fp32, data: {{path: images.h5, key: x, patch: [8], holdout: 4}}, monitor: {{sheet: 0}}, "
        f"network: {{channels: {channels}, widths: [4, 4], depths: [1, 1], embedding: 16}}, "
        "optimiser: {steps: 1, batch: 2}, stages: [{seed: 1}, {seed: 2}]}")
    lines = train()
    assert lines[0] == "stage 1 of 2"
    assert told(lines) == [lines[1]]
    assert "by a factor of 16, " in lines[1]
    alone = "--set", "stages=[]", "--output", "alone"
    assert told(train(*alone))
    longer = train(*alone, "--set", "optimiser.steps=2")
    assert longer[0] == "going on from step 1"
    assert not told(longer)


@pytest.mark.parametrize("kind", ["autoencoder", "classifier"])
def test_of_nearly_black_images_short_trainings_say_it_too(kind, dark):
    labels = ", labels: y, class_names: [a, b]" if kind == "classifier" else ""
    Path("toy.yaml").write_text(f"{{kind: {kind}, name: toy, {SMALL}{labels}}}, network: {{widths: [4], depths: [1]}}}}")
    first = train()
    assert told(first) == first[:1]
    assert not told(train())


def test_complex_images_are_looked_at_too_and_latents_are_not_images():
    image = np.full((9, 9), 0.03 + 0.04j, np.complex64)
    assert "is 0.05, and white is 1" in remark(ComplexPatches([image], [], 8))
    assert remark(ComplexPatches([image, 20 * image], [], 8)) == ""
    assert remark(Latents(torch.full((2, 1, 3, 3), 0.05))) == ""
