"""`invdiff.training.run.train`, killed for real."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.datasets.crops import centre_crops
from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.priors.checkpoint import read_tensors
from invdiff.priors.spectrum import measure_spectrum
from invdiff.priors.spectrum_records import LEVELS
from invdiff.training.loop import Trainer
from invdiff.training.run import load_data, train
from invdiff.training.settings import TrainSettings

# One process forks the runs, so that Python and torch start once. It does no sums itself, and has one thread to fork.
FORKS = """
import os, random, signal, sys, time
import accelerate, torch
from pathlib import Path
from invdiff.training.run import train
from invdiff.training.settings import TrainSettings
torch.set_num_threads(1)
settings, output = TrainSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2])

def fork(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
TEN_KILLS = FORKS + """
state, chance = output / "state.safetensors", random.Random(5)

def written():
    return state.stat().st_mtime_ns if state.exists() else 0

for number in range(10):
    before = written()
    pid = fork(lambda: train(settings, output, save_seconds=0.0, on_step=lambda progress, trainer: time.sleep(0.02)))
    while number not in (3, 6) and written() == before:         # those two are killed wherever they are in starting
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.15))
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL, "a run ended before it was killed"
assert not (output / "toy.safetensors").exists()
assert ended(fork(lambda: train(settings, output))) == 0
"""
TWO_PROCESSES = FORKS + """
def work(rank):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=sys.argv[3], OMP_NUM_THREADS="1")
    seen = []
    train(settings, output, on_step=lambda progress, trainer: seen.append(len(progress.losses)))
    assert seen == ([] if rank else [5, 2] * 4), seen
    torch.distributed.destroy_process_group()

assert [ended(pid) for pid in [fork(lambda: work(0)), fork(lambda: work(1))]] == [0, 0]
"""


def fork_server(script, settings, output, *arguments):
    command = [sys.executable, "-c", script, settings.model_dump_json(), str(output), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=120,
                          check=False)


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


def changed(settings, **changes):
    """Settings with other values in some of their parts."""
    data = settings.model_dump()
    for part, values in changes.items():
        data[part] = values if "kind" in values else data[part] | values
    return TrainSettings.model_validate(data)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(folder):
    return read_tensors(folder / "state.safetensors")[0], read_tensors(folder / "toy.safetensors")[0]


def test_a_run_killed_ten_times_ends_as_the_unbroken_one(settings, tmp_path, one_thread):
    """SIGKILL at any moment, within a step or in the midst of a checkpoint; then the same call again. Bit for bit, with
    every part of the state in use: a learned loss, levels that follow the loss, two averages, threads that work ahead."""
    settings = changed(settings, noise={"kind": "adaptive"}, loss={"kind": "uncertainty"}, data={"workers": 2},
                       optimiser={"steps": 150, "ema_gammas": [16.0, 3.0]}, monitor={"every": 50})
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    done = fork_server(TEN_KILLS, settings, broken)
    assert done.returncode == 0, done.stderr
    train(settings, whole)
    for a, b in zip(weights(broken), weights(whole), strict=True):
        assert a.keys() == b.keys()
        assert not [k for k in a if not torch.equal(a[k], b[k])]
    assert {k.split(".")[0] for k in weights(whole)[0]} == {"net", "average", "average1", "head", "optimiser", "losses"}


def test_the_products_of_a_run(settings, tmp_path):
    check_the_products(train(settings, tmp_path / "out"), tmp_path / "out")


def test_two_processes_train_what_one_does(settings, tmp_path, one_thread):
    """Two halves of a batch, even of an odd number of patches, make the gradient of the whole, but for rounding: 8 steps of
    Adam at a rate of 5e-4, and weights that differ by less than 1e-5."""
    settings = changed(settings, optimiser={"steps": 8, "batch": 3}, data={"patch": [16, 24]}, loss={"kind": "uncertainty"},
                       noise={"kind": "adaptive"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = fork_server(TWO_PROCESSES, settings, tmp_path / "two", port)
    assert "expected at least a patch for each of 2 processes" in done.stderr
    settings = changed(settings, optimiser={"batch": 5})
    done = fork_server(TWO_PROCESSES, settings, tmp_path / "two", port)
    assert done.returncode == 0, done.stderr
    train(settings, tmp_path / "one")
    two, one = weights(tmp_path / "two")[0], weights(tmp_path / "one")[0]
    assert two.keys() == one.keys()
    start = Trainer(settings, load_data(settings)[0])
    start.save(tmp_path / "start.safetensors")
    for name, value in read_tensors(tmp_path / "start.safetensors")[0].items():
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=name)
        if name.startswith("net.") and "head.bias" in name:
            assert (one[name] - value).abs().max() > 1e-3
    assert load_prior(tmp_path / "two" / "toy.safetensors").card["training"]["processes"] == 2


def check_the_products(path, folder):
    """The log has a line at each validation, and the prior says what it is and what it errs."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert all(np.isfinite(list(line["psnr"].values())).all() for line in lines)
    prior = load_prior(path)
    assert prior.card["training"]["steps"] == 12
    assert prior.card["data"] == "waves"
    assert "path" not in prior.card["training"]["settings"]["data"]
    assert prior.card["training"]["settings"]["loss"] == {"kind": "edm"}
    assert prior.card["training"]["average"] == {"gamma": 16.0, "relative_width": 0.0526}
    assert prior.card["samples"] == "toy.png"
    assert Image.open(folder / "toy.png").size == (38, 38)              # 2 x 2 samples of 16 pixels
    assert [p.name for p in (folder / "samples").iterdir()] == ["0000012.png"]
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


def test_a_run_that_fails_in_its_first_step_leaves_no_state(settings, tmp_path, monkeypatch):
    """Which would refuse the settings that mend it."""
    def full(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("invdiff.training.loop.Batches.get", full)
        with pytest.raises(InputError, match=r"memory: a step does not fit; take a smaller optimiser\.batch"):
            train(settings, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    train(changed(settings, optimiser={"batch": 1}), tmp_path / "out")


def test_a_folder_where_nothing_can_be_put_is_found_before_the_first_step(settings):
    with pytest.raises(InputError, match=r"/proc: cannot be written"):
        train(settings, "/proc", on_step=lambda *_: pytest.fail("a step was done"))


def test_a_run_whose_last_step_diverges_makes_no_prior(settings, tmp_path):
    wild = changed(settings, optimiser={"steps": 1, "warmup": 1, "rate": 1e30})
    with pytest.raises(InputError, match=r"toy\.safetensors: is not written, as .* holds NaN or infinity"):
        train(wild, tmp_path / "out")
    assert not (tmp_path / "out" / "toy.safetensors").exists()


def test_a_card_claims_the_levels_that_were_trained_and_what_it_measured_is_what_is_loaded(settings, tmp_path):
    chain = changed(settings, noise={"kind": "cosine", "steps": 20}, optimiser={"steps": 2})
    calls = []
    prior = load_prior(train(chain, tmp_path / "out", on_call=lambda *call: calls.append(call)))
    assert prior.card["sigma_range"] == list(chain.noise.trained_range())
    assert calls == [(i, len(calls) - 1) for i in range(len(calls))]
    (image,) = load_data(chain)[1]
    again = measure_spectrum(prior, list(centre_crops([image], 64)), LEVELS, "again")
    torch.testing.assert_close(prior.error_spectrum(3).power, again.power, rtol=0.01, atol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_and_saves(settings, tmp_path, number):
    """The signal falls into a step; the state is that of the step's end. The handlers are those of before."""
    class Signalling(Trainer):
        def _levels(self, batch):
            if self.step == 2:
                os.kill(os.getpid(), number)
            return super()._levels(batch)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("invdiff.training.run.Trainer", Signalling)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path / "out")
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    steps = []
    train(settings, tmp_path / "out", on_step=lambda progress, _: steps.append(progress.step))
    assert steps[0] == 4
