"""The command line, from arguments to files: what it writes, and what it says when the input is at fault."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from invdiff.config import run_config, tasks
from invdiff.io.images import sample_image, save_image
from invdiff.io.results import load_arrays
from invdiff.priors import EDMDenoiser

FILES = {"restored.png", "measurement.png", "prior.png", "std.png", "comparison.png", "result.h5", "report.json", "config.yaml"}
QUICK = ("--steps", "2", "--samples", "1")


@pytest.fixture(scope="session")
def prior(tiny_prior):
    """A tiny untrained prior of photographs."""
    return tiny_prior(channels=3, centre=0.5)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with a 64 x 64 photo, truth.png."""
    monkeypatch.chdir(tmp_path)
    save_image("truth.png", sample_image(size=64))
    return tmp_path


@pytest.fixture
def restore(invdiff, prior):
    def run(*arguments, output="out"):
        return invdiff("restore", *arguments, "--prior", prior, "--output", output)
    return run


def names(folder):
    return {path.name for path in folder.iterdir()}


# what comes out

@pytest.mark.parametrize("task", [name for name in tasks() if not run_config(name).is_scan])
def test_every_task_runs_end_to_end(task, work, restore):
    code, out, err = restore("--task", task, "--truth", "truth.png", "--steps", "2", "--samples", "2")
    assert code == 0, err
    assert "residual" in out
    assert names(work) == {"truth.png", "out"}
    assert names(work / "out") == FILES
    report = json.loads((work / "out" / "report.json").read_text())
    assert (report["task"], report["sampler"], report["samples"], report["seed"]) == (task, "moment_matching", 2, 0)
    assert {"measurement", "restored", "baselines"} <= set(report["metrics"])
    assert {"seconds", "network_calls", "operator_calls", "residual", "config", "versions", "prior"} <= set(report)
    arrays = load_arrays(work / "out" / "result.h5")
    assert set(arrays) == {"samples", "mean", "std", "measurement", "lower", "upper", "prior_part", "measured"}
    assert arrays["samples"].shape == (1, 2, 3, 64, 64)
    assert Image.open(work / "out" / "restored.png").size == (64, 64)


@pytest.mark.parametrize("sampler", ["pigdm", "diffpir", "dps", "ddrm"])
def test_every_sampler_runs_by_its_name(sampler, work, restore):
    code, _, err = restore("--task", "deblur", "--truth", "truth.png", "--sampler", sampler, *QUICK)
    assert code == 0, err
    assert json.loads((work / "out" / "report.json").read_text())["sampler"] == sampler


def test_without_input_or_truth_a_bundled_photo_is_restored(work, restore):
    assert restore("--task", "inpaint", "--steps", "1", "--samples", "1")[0] == 0
    assert Image.open(work / "out" / "restored.png").size == (256, 256)


def test_results_go_to_restored_task_by_default(work, invdiff, prior):
    assert invdiff("restore", "--task", "denoise", "--truth", "truth.png", "--prior", prior, *QUICK)[0] == 0
    assert names(work / "restored" / "denoise") == FILES


def test_config_yaml_repeats_the_run_bit_for_bit(work, restore, invdiff):
    code, _, err = restore("--task", "sr", "--truth", "truth.png", "--steps", "3", "--samples", "2", "--seed", "5",
                           "--set", "operator.factor=4", "--set", "sigma_y=0.03", "--set", "sampler.integrator=heun")
    assert code == 0, err
    assert invdiff("restore", "--config", "out/config.yaml", "--output", "again")[0] == 0
    first, again = (load_arrays(work / folder / "result.h5") for folder in ("out", "again"))
    assert torch.equal(first["samples"], again["samples"])
    for name in FILES - {"report.json"}:                              # report.json has the seconds
        assert (work / "out" / name).read_bytes() == (work / "again" / name).read_bytes(), name


def test_the_seed_decides_the_result(work, restore):
    for seed, output in ((0, "a"), (0, "b"), (1, "c")):
        assert restore("--task", "inpaint", "--truth", "truth.png", *QUICK, "--seed", seed, output=output)[0] == 0
    a, b, c = ((work / output / "result.h5").read_bytes() for output in "abc")
    assert a == b
    assert a != c


def test_a_sample_is_the_same_alone_and_beside_others(work, restore):
    for count, output in ((1, "one"), (3, "three")):
        assert restore("--task", "deblur", "--truth", "truth.png", "--steps", "2", "--samples", count, output=output)[0] == 0
    one, three = (load_arrays(work / output / "result.h5")["samples"] for output in ("one", "three"))
    assert torch.equal(one[:, 0], three[:, 0])


def test_an_earlier_result_is_replaced_whole(work, restore):
    assert restore("--task", "sr", "--truth", "truth.png", *QUICK)[0] == 0
    assert restore("--task", "deblur", "--truth", "truth.png", *QUICK)[0] == 0
    assert yaml.safe_load((work / "out" / "config.yaml").read_text())["task"] == "deblur"
    assert names(work) == {"truth.png", "out"}


def test_simulate_writes_a_measurement_that_restore_takes(work, restore, invdiff):
    code, out, err = invdiff("simulate", "--task", "sr", "--truth", "truth.png", "--output", "low.npy")
    assert code == 0, err
    assert "32 x 32" in out
    assert "sigma_y = 0.02" in out
    assert np.load("low.npy").shape == (3, 32, 32)
    code, out, err = restore("--task", "sr", "--input", "low.npy", "--set", "sigma_y=0.02", *QUICK)
    assert code == 0, err
    assert "PSNR" not in out
    assert json.loads((work / "out" / "report.json").read_text())["metrics"] == {}
    assert np.array_equal(load_arrays(work / "out" / "result.h5")["measurement"][0].numpy(), np.load("low.npy"))


def test_simulate_writes_a_png_too_and_nothing_else(work, invdiff):
    assert invdiff("simulate", "--task", "deblur", "--truth", "truth.png")[0] == 0
    assert Image.open("measurement.png").size == (64, 64)
    code, _, err = invdiff("simulate", "--task", "deblur", "--truth", "truth.png", "--output", "y.gif")
    assert (code, err.startswith("error: y.gif: expected a name that ends in .png or .npy")) == (2, True)


def test_tasks_and_priors_are_listed(invdiff):
    code, out, _ = invdiff("tasks")
    assert code == 0
    assert all(name in out for name in [*tasks(), "moment_matching", "pigdm", "diffpir", "dps", "ddrm"])
    assert invdiff("priors")[0] == 0


# unusual images that work

def rgba(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)).save(path)


def sixteen_bit(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (64, 64), dtype=np.uint16)).save(path)


def grey(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)


def odd_size(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 31, 3), dtype=np.uint8)).save(path)


@pytest.mark.parametrize("make", [rgba, sixteen_bit, grey, odd_size])
@pytest.mark.parametrize("option", [("--truth",), ("--set", "sigma_y=0.02", "--input")])
def test_unusual_images_are_restored(make, option, work, restore):
    make("image.png")
    code, _, err = restore("--task", "deblur", *option, "image.png", *QUICK)
    assert code == 0, err
    channels = 1 if make in (grey, sixteen_bit) else 3
    assert load_arrays(work / "out" / "result.h5")["samples"].shape[2] == channels


# bad input: one line, exit code 2, nothing left behind

def truncated(path):
    save_image(path, sample_image(size=64))
    path.write_bytes(path.read_bytes()[:2000])


def text(path):
    path.write_text("this is no image\n")


def empty(path):
    path.write_bytes(b"")


def huge(path):
    """The header of a 30,000 x 30,000 PNG, and no pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk)))


def not_a_number(path):
    array = np.full((64, 64), 0.5, dtype=np.float32)
    array[3, 4] = np.nan
    with path.open("wb") as file:
        np.save(file, array)


def assert_refused(result, work, *said):
    code, _, err = result
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(part in err for part in said), err
    assert not (work / "out").exists()
    assert not [name for name in names(work) if name.startswith(".")]


@pytest.mark.parametrize("make", [None, truncated, text, empty, huge, not_a_number])
@pytest.mark.parametrize("option", [("--truth",), ("--set", "sigma_y=0.02", "--input")])
def test_a_bad_image_is_refused_by_its_name(make, option, work, restore):
    path = work / "bad.png"
    if make:
        make(path)
    assert_refused(restore("--task", "deblur", *option, path, *QUICK), work, str(path))


@pytest.mark.parametrize(("arguments", "said"), [
    (["--task", "deblurr"], ["'deblurr'", "did you mean 'deblur'"]),
    ([], ["task", "config"]),
    (["--task", "deblur", "--set", "operator.sigmaa=2"], ["'sigmaa'", "did you mean 'sigma'"]),
    (["--task", "deblur", "--set", "sampels=2"], ["'sampels'", "did you mean 'samples'"]),
    (["--task", "deblur", "--set", "seed"], ["KEY=VALUE"]),
    (["--task", "deblur", "--sampler", "moment_maching"], ["did you mean 'moment_matching'"]),
    (["--task", "deblur", "--samples", "0"], ["samples", "got 0"]),
    (["--task", "deblur", "--samples", "many"], ["--samples", "integer"]),
    (["--task", "deblur", "--steps", "0"], ["steps", "got 0"]),
    (["--task", "deblur", "--seed", "-1"], ["seed", "got -1"]),
    (["--task", "deblur", "--precision", "fp8"], ["precision", "fp8"]),
    (["--task", "deblur", "--set", "sigma_y=-1"], ["sigma_y", "got -1"]),
    (["--task", "deblur", "--set", "operator.sigma=30"], ["sigma", "at most", "64"]),
    (["--task", "motion-deblur", "--set", "operator.size=65"], ["kernel", "(64, 64)", "(65, 65)"]),
    (["--task", "deblur", "--device", "nonsense"], ["device", "'nonsense'"]),
    (["--task", "deblur", "--no-such-option"], ["--no-such-option"]),
    (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
])
def test_a_bad_argument_is_refused(arguments, said, work, restore):
    quick = [] if {"--samples", "--steps"} & set(arguments) else QUICK
    assert_refused(restore(*arguments, "--truth", "truth.png", *quick), work, *said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(work, restore):
    assert_refused(restore("--task", "deblur", "--truth", "truth.png", *QUICK, "--device", "cuda"), work, "'cuda'", "cpu")


def test_a_kernel_wider_than_the_image_is_refused(work, restore):
    with (work / "kernel.npy").open("wb") as file:
        np.save(file, np.ones((65, 3), dtype=np.float32) / 195)
    mine = {"task": "mine", "operator": {"name": "kernel_blur", "kernel": "kernel.npy"}, "sigma_y": 0.02,
            "sampler": "moment_matching"}
    (work / "mine.yaml").write_text(yaml.safe_dump(mine))
    assert_refused(restore("--config", "mine.yaml", "--truth", "truth.png", *QUICK), work, "kernel", "(65, 3)", "(64, 64)")


def test_a_measurement_needs_its_noise_level(work, restore):
    assert_refused(restore("--task", "deblur", "--input", "truth.png", *QUICK), work, "sigma_y", "--set sigma_y=")


def test_input_and_truth_never_mix(work, restore):
    arguments = ("--task", "deblur", "--input", "truth.png", "--truth", "truth.png", "--set", "sigma_y=0.02")
    assert_refused(restore(*arguments, *QUICK), work, "not both")


def test_an_output_that_is_no_folder_is_refused_and_kept(work, restore):
    (work / "notes").write_text("keep me")
    for output in ("notes", "notes/out"):
        assert_refused(restore("--task", "deblur", "--truth", "truth.png", *QUICK, output=output), work, output)
    assert (work / "notes").read_text() == "keep me"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_refused(work, restore):
    locked = work / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    assert_refused(restore("--task", "deblur", "--truth", "truth.png", *QUICK, output="locked/out"), work, "locked/out")


def test_somebody_s_folder_is_refused_and_kept(work, restore):
    (work / "photos").mkdir()
    (work / "photos" / "holiday.png").write_bytes(b"x")
    assert_refused(restore("--task", "deblur", "--truth", "truth.png", *QUICK, output="photos"), work, "photos")
    assert names(work / "photos") == {"holiday.png"}


@pytest.mark.parametrize("make", [None, text, truncated])
def test_a_bad_prior_is_refused_by_its_name(make, work, invdiff):
    path = work / "bad.safetensors"
    if make:
        make(path)
    result = invdiff("restore", "--task", "deblur", "--truth", "truth.png", *QUICK, "--prior", path, "--output", "out")
    assert_refused(result, work, str(path))
    result = invdiff("restore", "--task", "deblur", "--truth", "truth.png", *QUICK, "--prior", "naturl", "--output", "out")
    assert_refused(result, work, "'naturl'")


def test_bad_training_input_is_refused(work, invdiff):
    (work / "train.yaml").write_text("{name: x, data: {path: nowhere.h5}, optimiser: {steps: 1}}")
    assert_refused(invdiff("train", "train.yaml", "--output", "out"), work, "nowhere.h5")
    assert_refused(invdiff("train", "missing.yaml", "--output", "out"), work, "missing.yaml")


# Ctrl-C

def interrupt(*_arguments, **_keywords):
    raise KeyboardInterrupt


def interrupt_after(calls, monkeypatch):
    """Ctrl-C in the network, after so many calls."""

    forward, seen = EDMDenoiser.forward, []

    def count(*arguments, **keywords):
        seen.append(1)
        if len(seen) > calls:
            raise KeyboardInterrupt
        return forward(*arguments, **keywords)

    monkeypatch.setattr("invdiff.priors.denoiser.EDMDenoiser.forward", count)


def test_ctrl_c_before_the_first_sample_leaves_nothing(work, restore, monkeypatch):
    interrupt_after(3, monkeypatch)                                   # one tells the priors apart, 3 make a sample
    code, _, err = restore("--task", "deblur", "--truth", "truth.png", *QUICK)
    assert (code, err) == (130, "interrupted\n")
    assert names(work) == {"truth.png"}


def test_ctrl_c_keeps_the_finished_samples_and_the_same_command_goes_on(work, restore, monkeypatch):
    command = ("--task", "deblur", "--truth", "truth.png", "--steps", "2", "--samples", "3")
    with monkeypatch.context() as patch:
        interrupt_after(8, patch)                                     # in the third sample
        code, _, err = restore(*command, output="out/")
    assert code == 130
    assert "out.partial: the samples finished so far; the same command goes on from there" in err
    assert err.endswith("interrupted\n")
    assert names(work) == {"truth.png", "out.partial"}
    with monkeypatch.context() as patch:
        interrupt_after(4, patch)                                     # of which it needs 1 + 3
        assert restore(*command)[0] == 0
    assert names(work) == {"truth.png", "out"}
    assert restore(*command, output="unbroken")[0] == 0
    for name in FILES - {"report.json"}:
        assert (work / "out" / name).read_bytes() == (work / "unbroken" / name).read_bytes(), name
    reports = [json.loads((work / folder / "report.json").read_text()) for folder in ("out", "unbroken")]
    assert reports[0] | {"seconds": 0} == reports[1] | {"seconds": 0}


def test_the_finished_samples_of_another_run_are_refused_and_kept(work, restore, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(4, patch)
        assert restore("--task", "deblur", "--truth", "truth.png", "--steps", "2", "--samples", "2")[0] == 130
    assert_refused(restore("--task", "deblur", "--truth", "truth.png", "--steps", "3", "--samples", "2"), work,
                   "out.partial: holds 1 finished parts of another run (sampler.steps was 2, now 3)")
    assert names(work) == {"truth.png", "out.partial"}


@pytest.mark.parametrize("target", ["invdiff.restoration.write_json", "invdiff.job.save_image"])
def test_ctrl_c_while_results_are_written_keeps_the_samples(target, work, restore, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(target, interrupt)
        code, _, err = restore("--task", "deblur", "--truth", "truth.png", *QUICK)
    assert code == 130
    assert "Traceback" not in err
    assert names(work) == {"truth.png", "out.partial"}
    assert restore("--task", "deblur", "--truth", "truth.png", *QUICK)[0] == 0
    assert names(work) == {"truth.png", "out"}


def test_ctrl_c_keeps_an_earlier_result(work, restore, monkeypatch):
    assert restore("--task", "deblur", "--truth", "truth.png", *QUICK)[0] == 0
    before = {path.name: path.read_bytes() for path in (work / "out").iterdir()}
    monkeypatch.setattr("invdiff.job.save_image", interrupt)
    assert restore("--task", "sr", "--truth", "truth.png", *QUICK)[0] == 130
    assert {path.name: path.read_bytes() for path in (work / "out").iterdir()} == before
    assert names(work) == {"truth.png", "out", "out.partial"}


# where the chains begin

def test_an_estimate_to_begin_from_is_read_from_a_file(work, restore):
    lower = ("--task", "deblur", "--truth", "truth.png", *QUICK, "--set", "sampler.start_sigma=0.2")
    assert restore(*lower, output="a")[0] == 0
    assert restore(*lower, "--set", "start=truth.png", output="b")[0] == 0
    calls = [json.loads((work / folder / "report.json").read_text())["network_calls"] for folder in "ab"]
    assert calls == [3, 2]                                            # the estimate spares the call that would make one
    save_image("small.png", sample_image(size=32))
    assert_refused(restore(*lower, "--set", "start=small.png"), work, "start: expected an image of (3, 64, 64)", "small.png")
    assert_refused(restore("--task", "deblur", "--truth", "truth.png", *QUICK, "--sampler", "dps", "--set",
                           "sampler.start_sigma=0.2"), work, "cannot begin from an estimate", "moment_matching")
