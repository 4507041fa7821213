"""`invdiff.training.run.train`, killed for real."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.priors import load_prior
from invdiff.priors.checkpoint import read_tensors
from invdiff.training.run import train
from invdiff.training.settings import TrainSettings

RUN = """
import sys, time
import torch
from invdiff.training.run import train
from invdiff.training.settings import TrainSettings
torch.set_num_threads(1)
train(TrainSettings.model_validate_json(sys.argv[1]), sys.argv[2], save_seconds=0.0,
      on_step=lambda progress, trainer: time.sleep(0.3))
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "images").mkdir()
    y, x = np.mgrid[:128, :128] / 20
    for k in range(3):
        picture = np.stack([np.sin(x + k), np.cos(y), np.sin(x - k * y)], -1)
        Image.fromarray((127 * (1 + picture)).astype(np.uint8)).save(tmp_path / "images" / f"{k}.png")
    return TrainSettings(name="toy", precision="fp32", seed=1,
                         data={"path": str(tmp_path / "images"), "patch": [16], "holdout": 1, "description": "waves"},
                         network={"widths": [4, 4], "depths": [1, 1], "embedding": 16},
                         monitor={"every": 5, "sheet": 4, "sheet_size": 16, "sheet_steps": 3},
                         optimiser={"steps": 12, "batch": 2, "warmup": 2})


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wait_for(path, process, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def weights(folder):
    return read_tensors(folder / "state.safetensors")[0], read_tensors(folder / "toy.safetensors")[0]


def test_a_killed_run_ends_as_the_unbroken_one(settings, tmp_path, one_thread):
    """SIGKILL between checkpoints or in the midst of one; then the same call again. Bit for bit."""
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    process = subprocess.Popen([sys.executable, "-c", RUN, settings.model_dump_json(), str(broken)], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    try:
        wait_for(broken / "state.safetensors", process)
        time.sleep(0.7)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (broken / "toy.safetensors").exists()
    steps = []
    prior = train(settings, broken, on_step=lambda progress, _: steps.append(progress.step))
    assert 1 < steps[0] < steps[-1] == 12
    train(settings, whole)
    for a, b in zip(weights(broken), weights(whole), strict=True):
        assert a.keys() == b.keys()
        assert not [k for k in a if not torch.equal(a[k], b[k])]
    check_the_products(prior, broken)


def check_the_products(path, folder):
    """The log has a line at each validation, and the prior says what it is and what it errs."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert all(np.isfinite(list(line["psnr"].values())).all() for line in lines)
    prior = load_prior(path)
    assert prior.card["training"]["steps"] == 12
    assert prior.card["data"] == "waves"
    assert "path" not in prior.card["training"]["settings"]["data"]
    assert prior.error_spectrum(3).at(0.1, (8, 8)).shape == (3, 8, 5)
    assert prior.error_spectrum(1).at(0.1, (8, 8)).shape == (1, 8, 5)


def test_an_exception_in_the_caller_still_saves(settings, tmp_path):
    def stop(progress, trainer):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "out", on_step=stop)
    steps = []
    train(settings, tmp_path / "out", on_step=lambda progress, _: steps.append(progress.step))
    assert steps[0] == 4
