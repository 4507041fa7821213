"""What the command line refuses: one line, exit code 2, nothing left behind."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
import yaml
from cli_runs import QUICK, assert_refused, names

from invdiff.cli.named_files import KEYS, check_files
from invdiff.config import RunConfig
from invdiff.io.images import sample_image, save_image


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


@pytest.mark.parametrize("make", [None, truncated, text, empty, huge, not_a_number])
@pytest.mark.parametrize("option", [("--truth",), ("--set", "sigma_y=0.02", "--input")])
def test_a_bad_image_is_refused_by_its_name(make, option, work, restore):
    path = work / "bad.png"
    if make:
        make(path)
    assert_refused(restore("--task", "deblur", *option, path, *QUICK), work, str(path))


@pytest.mark.parametrize(("arguments", "said"), [
    ("--task denoise --truth trutf.png", "trutf.png: no such file; did you mean truth.png?"),
    ("--task denoise --set sigma_y=0.1 --input nowhere/y.png", "nowhere/y.png: no such file; there is no folder nowhere"),
    ("--task deblur --set operator={name:kernel_blur,kernel:k.npz:one}", "k.npz:one: no such file; give"),
    ("--config mine.yaml", "mask.png: no such file; give"),
    ("--config mine.yaml --set operator.mask=truth.png --set start=s.png", "s.png: no such file; give"),
    ("--task denoise --prior mine.safetensors", "mine.safetensors: no such file; give"),
])
def test_a_file_that_is_not_there_is_refused_before_torch_is_loaded(arguments, said, work):
    (work / "mine.yaml").write_text("{task: t, operator: {name: mask_inpainting, mask: mask.png}, sigma_y: 0.1}")
    script = ("import sys\nfrom invdiff.cli.main import main\ntry:\n    main()\nexcept SystemExit as done:\n"
              "    sys.exit('torch was loaded' if 'torch' in sys.modules else done.code)")
    arguments = [part.replace(":", ": ").replace("npz: ", "npz:") if "{" in part else part for part in arguments.split()]
    done = subprocess.run([sys.executable, "-c", script, "restore", *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith(f"error: {said}"), done.stderr.count("\n")) == (2, True, 1), done.stderr


def test_every_file_that_a_config_can_name_is_looked_at():
    names = {key: f"{key}.x" for key in KEYS}
    operator = {"name": "x"} | {key.partition(".")[2]: name for key, name in names.items() if "." in key}
    config = RunConfig(task="t", operator=operator, sampler={}, **{key: name for key, name in names.items() if "." not in key})
    assert sorted(config.files) == sorted(names.values())


def test_what_is_no_plain_file_is_for_others_to_judge(work):
    for name in ("pair.cfl", "pair.hdr", "k.npz"):
        (work / name).touch()
    os.mkfifo("pipe")
    for name in (".", "pair", "k.npz:one", "pipe"):
        check_files(None, {"input": name}, [])
    check_files(None, {"input": None, "prior": "edm:nowhere.safetensors"}, ["input=", "input", "operator=a", "operator.mask=b"])


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
    (["--task", "deblur", "--device", "meta"], ["device", "'meta'"]),
    (["--task", "deblur", "--device", "privateuseone"], ["device", "'privateuseone'"]),
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


def test_what_a_run_reads_is_not_overwritten(work, restore, invdiff):
    (work / "old").mkdir()
    for name in ("report.json", "y.png"):
        (work / "old" / name).write_bytes((work / "truth.png").read_bytes())
    arguments = ("--task", "denoise", "--set", "sigma_y=0.1", "--input", "old/y.png")
    assert_refused(restore(*arguments, *QUICK, output="old"), work, "old/y.png: would be replaced by the output")
    truth = (work / "truth.png").read_bytes()
    result = invdiff("simulate", "--task", "denoise", "--truth", "truth.png", "--output", "truth.png")
    assert_refused(result, work, "truth.png: would be replaced")
    assert (work / "truth.png").read_bytes() == truth


@pytest.mark.parametrize("prior", [["fashion"], ["fashion-latent", "--sampler", "psld"]])
def test_a_prior_of_grey_images_is_refused_for_a_photo(prior, work, invdiff):
    result = invdiff("restore", "--task", "inpaint", "--set", "sampler.steps=2", "--prior", *prior, "--output", "out")
    assert_refused(result, work, "for images of 1 channels, and the problem's have 3")


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
