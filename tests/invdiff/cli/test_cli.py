"""The command line, from arguments to files: what it writes."""

import errno
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from cli_runs import FILES, QUICK, assert_refused, names
from PIL import Image

from invdiff.cli.main import SPINS
from invdiff.cli.options import progress_bar
from invdiff.io.images import sample_image, save_image
from invdiff.io.results import load_arrays
from invdiff.resolving import run_config, tasks

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


def test_a_noise_level_that_was_estimated_is_told_and_whether_its_noise_is_white(work, restore):
    y = (sample_image(size=64) + 0.05 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    save_image("png.png", y)
    save_image("enlarged.png", torch.nn.functional.interpolate(y, scale_factor=2, mode="bicubic").clamp(0, 1))
    for name in ("png", "enlarged"):
        code, out, err = restore("--task", "denoise", "--input", f"{name}.png", "--set", "sigma_y=auto", *QUICK, output=name)
        assert code == 0, err
        level = json.loads((work / name / "report.json").read_text())["sigma_y"]
        assert f"Noise level estimated from the image: {level:.2g}." in out
        assert ("give a number" in out) == (name == "enlarged")
    code, out, _ = restore("--task", "denoise", "--input", "enlarged.png", "--set", "sigma_y=0.05", *QUICK)
    assert code == 0
    assert "Noise level estimated" not in out
    assert "give a number" not in out


def test_without_input_or_truth_a_bundled_photo_is_restored(work, restore):
    assert restore("--task", "inpaint", "--steps", "1", "--samples", "1")[0] == 0
    assert Image.open(work / "out" / "restored.png").size == (256, 256)


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


def test_simulate_makes_the_folder_and_says_how_a_scan_is_simulated(work, invdiff):
    assert invdiff("simulate", "--task", "deblur", "--truth", "truth.png", "--output", "new/folder/y.png")[0] == 0
    assert names(work / "new" / "folder") == {"y.png"}
    assert_refused(invdiff("simulate", "--task", "mri"), work, "simulate: ", "invdiff restore --task mri --truth FILE")


def test_a_bar_is_on_a_terminal_s_stderr_and_nowhere_else(work, restore, monkeypatch):
    code, out, err = restore("--task", "denoise", "--truth", "truth.png", *QUICK)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].strip() == "denoise: 1 sample by"
    assert progress_bar("steps").console.stderr
    monkeypatch.setenv("FORCE_COLOR", "1")                      # taken for a terminal
    code, out, err = restore("--task", "denoise", "--truth", "truth.png", *QUICK)
    assert "2/2" in err
    assert "2/2" not in out


def test_a_reader_that_goes_away_loses_nothing(work, restore, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        code, _, err = restore("--task", "denoise", "--truth", "truth.png", *QUICK)
        monkeypatch.undo()
    assert (code, err) == (141, "")
    assert (work / "out" / "report.json").is_file()
    assert names(work) == {"truth.png", "out"}


class Full(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_where_there_is_no_room_for_what_it_says_one_line_says_so(work, restore, invdiff, monkeypatch):
    monkeypatch.setattr("sys.stdout", Full())
    code, _, err = invdiff("tasks")
    assert (code, err.startswith("error: no space is left"), err.count("\n")) == (2, True, 1)
    code, _, err = restore("--task", "denoise", "--truth", "truth.png", *QUICK)
    assert (code, "No space left on device); the results are complete, in out" in err, err.count("\n")) == (2, True, 1)
    assert (work / "out" / "report.json").is_file()


def test_without_an_output_results_are_written_as_ever(work, restore, monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert restore("--task", "denoise", "--truth", "truth.png", *QUICK)[::2] == (0, "")
    assert (work / "out" / "report.json").is_file()


def test_brackets_and_colons_in_names_are_shown_as_they_are(work, invdiff, prior):
    (work / "z[").mkdir()
    (work / "z[" / "old]").mkdir()
    name = "z[/old]/:smile:.safetensors"
    (work / name).write_bytes(prior.read_bytes())
    arguments = ("--task", "denoise", "--truth", "truth.png", *QUICK, "--set", "task=a[b]")
    code, out, _ = invdiff("restore", *arguments, "--prior", name)
    assert code == 0
    assert "a[b]: 1 sample by" in out
    assert name in out
    assert name in invdiff("priors", "show", name)[1]


def test_a_version_and_a_short_help(invdiff):
    import invdiff as package

    assert invdiff("--version")[:2] == (0, f"invdiff {package.__version__}\n")
    assert invdiff("-h")[1] == invdiff("--help")[1] == invdiff()[1]
    assert "--truth" in invdiff("restore", "-h")[1]
    done = subprocess.run([sys.executable, "-m", "invdiff", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"invdiff {package.__version__}\n"


def test_tasks_fit_a_narrow_terminal(invdiff, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = invdiff("tasks")
    assert "compres" in out
    assert "0.02" in out


def test_tasks_and_priors_are_listed(invdiff):
    code, out, _ = invdiff("tasks")
    assert code == 0
    assert all(name in out for name in [*tasks(), "moment_matching", "pigdm", "diffpir", "dps", "ddrm"])
    assert "rank=1, steps=10" in out            # what the tasks' own sampler is set to
    assert f"configs in {tasks()['deblur'].parent}" in out.splitlines()
    assert invdiff("priors")[0] == 0


@pytest.mark.parametrize("given", [None, "77"])
def test_waiting_threads_leave_the_cores_to_others_soon_unless_told_otherwise(given, monkeypatch, invdiff):
    monkeypatch.setenv("GOMP_SPINCOUNT", given or "")
    if given is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    assert invdiff("tasks")[0] == 0
    assert os.environ["GOMP_SPINCOUNT"] == (given or SPINS)


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

