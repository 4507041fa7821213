"""`invdiff priors`, and foreign priors on the command line."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from invdiff.io.images import sample_image, save_image
from invdiff.priors import FORMATS, load_prior, shipped_priors
from invdiff.priors.checkpoint import read_card

COMPLEX = """
import torch
from deepinv.models import Denoiser

class Shrink(Denoiser):
    channels = 2

    def forward(self, x, sigma):
        return x * {variance} / ({variance} + torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2)
"""
CODE = "def shrink(x, sigma):\n    return 0.5 + (x - 0.5) / (1 + 4 * sigma ** 2)\n"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with photos, with my_shrinking_prior.py, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "my_shrinking_prior.py").write_text(CODE)
    (tmp_path / "photos").mkdir()
    save_image("photos/a.png", sample_image(size=64))
    save_image("photos/b.png", sample_image(size=48))
    yield tmp_path
    sys.modules.pop("my_shrinking_prior", None)


MINE = "python:my_shrinking_prior:shrink"
CALIBRATE = ("priors", "calibrate", MINE, "--data", "photos", "--images", "2", "--size", "32")


def test_the_list_has_shipped_priors_and_formats(invdiff):
    code, out, _ = invdiff("priors")
    assert code == 0
    words = ("natural", "deepinv:drunet", "diffusers:", "guided-diffusion:", "edm:", "torchscript:", "python:", "swinir-15")
    assert not [word for word in words if word not in out]


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_list_is_read_at_the_width_of_a_terminal(invdiff, monkeypatch, columns):
    """A line for each name, with size and range beside it, and no word of a licence cut."""
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = invdiff("priors")
    assert max(map(len, out.splitlines())) <= int(columns)
    for name, path in shipped_priors().items():
        (line,) = (line for line in out.splitlines() if line.startswith(f"│ {name} "))
        assert f"{path.stat().st_size / 1e6:.1f}" in line
        assert "0.002 to " in line
        assert not [word for word in read_card(path)["licence"].split() if word not in out]


def test_every_format_and_its_options_are_documented():
    page = (Path(__file__).parents[3] / "docs" / "priors.md").read_text(encoding="utf-8")
    for name, kind in FORMATS.items():
        assert f"`{kind.example}`" in page
        assert f"### {name}" in page
        assert not [option for option in kind.options if f"{option}`" not in page and f"?{option}=" not in page]


def test_show(invdiff, work):
    code, out, _ = invdiff("priors", "show", "natural")
    assert code == 0
    assert "BSDS500" in out
    assert "17 noise levels" in out
    assert "natural.png" in out.replace("\n", "")
    code, out, _ = invdiff("priors", "show", MINE)
    assert code == 0
    assert "not measured" in out


def test_a_calibrated_prior_is_used_by_the_default_sampler(invdiff, work):
    code, out, err = invdiff(*CALIBRATE)
    assert code == 0, err
    assert "noise level" in out
    assert "now finds it" in out
    code, out, err = invdiff("restore", "--task", "denoise", "--truth", "photos/b.png", "--prior", MINE, "--steps", "2",
                             "--samples", "1", "--output", "out")
    assert code == 0, err
    assert "measured on 2 images of 32 x 32 from photos" in out
    assert "measured on 2" in invdiff("priors", "show", MINE)[1]


def test_a_spectrum_in_a_file_of_one_s_own(invdiff, work):
    code, out, err = invdiff(*CALIBRATE, "--output", "mine.json")
    assert code == 0, err
    assert f"--prior '{MINE}?spectrum=mine.json'" in out.replace("\n", "")
    assert json.loads((work / "mine.json").read_text())["prior"] == MINE
    assert not (work / "cache").exists()
    assert "not measured" in invdiff("priors", "show", MINE)[1]
    code, out, err = invdiff("restore", "--task", "denoise", "--truth", "photos/b.png", "--steps", "2", "--samples", "1",
                             "--set", f"prior={MINE}?spectrum=mine.json", "--output", "out")
    assert code == 0, err
    assert "measured on 2 images" in out
    assert yaml.safe_load((work / "out" / "config.yaml").read_text())["prior"] == f"{MINE}?spectrum=mine.json"
    code, _, err = invdiff("restore", "--config", "out/config.yaml", "--output", "again")
    assert code == 0, err
    assert (work / "out" / "restored.png").read_bytes() == (work / "again" / "restored.png").read_bytes()


@pytest.mark.parametrize("kind", ["complex", "magnitudes"])
def test_a_complex_prior_is_measured_on_slices(invdiff, work, kind):
    """Of white images of variance v the best denoiser's error has v sigma^2 / (v + sigma^2) at every frequency."""
    name, variance = "python:my_complex_prior:Shrink", 0.04
    (work / "my_complex_prior.py").write_text(COMPLEX.format(variance=variance))
    rng = np.random.default_rng(0)
    data = {"complex": rng.normal(0, variance**0.5, (8, 2, 32, 32)).astype(np.float32),
            "magnitudes": rng.integers(0, 255, (8, 32, 32), dtype=np.uint8)}[kind]
    with h5py.File("slices.h5", "w") as file:
        file["test"] = data
    code, out, err = invdiff("priors", "calibrate", name, "--data", "slices.h5", "--size", "32")
    assert code == 0, err
    assert "8 images of 32 x 32 from slices.h5" in " ".join(out.split())
    spectrum = load_prior(name).error_spectrum(2)
    assert spectrum.power.shape[1] == 2
    if kind == "complex":
        expected = variance / (variance + spectrum.sigmas**2) * spectrum.sigmas**2
        mean = torch.stack([spectrum.at(float(sigma), (32, 32)).mean() for sigma in spectrum.sigmas])
        assert ((mean / expected - 1).abs() < 5 * (2 / (8 * 2 * 32 * 32)) ** 0.5).all()
    code, _, err = invdiff("priors", "calibrate", "natural", "--data", "slices.h5", "--key", "test")
    assert code == 2
    assert err.count("\n") == 1
    sys.modules.pop("my_complex_prior", None)


@pytest.mark.parametrize(("arguments", "message"), [
    (("priors", "calibrate", "brain", "--data", "photos", "--size", "128"), "at least 128 x 128"),
    (("priors", "show", "nothing"), "no prior is called 'nothing'"),
    (("priors", "show", "wat:x"), "known are deepinv"),
    (("priors", "calibrate", "natural", "--data", "nowhere"), "expected a folder of images"),
    (("priors", "calibrate", "natural", "--data", "photos", "--size", "128"), "at least 128 x 128"),
    (("priors", "calibrate", "natural", "--data", "photos", "--images", "0"), "--images: expected at least 1"),
    (("priors", "calibrate", "natural", "--data", "photos", "--size", "4"), "--size: expected at least 16"),
    (("priors", "calibrate", "natural?spectrum=a.json", "--data", "photos"), "leave ?spectrum=... out"),
    (("priors", "calibrate", "natural", "--data", "photos", "--device", "abacus"), "not available"),
    (("priors", "calibrate", "natural"), "--data"),
    (("priors", "calibrate", MINE, "--data", "photos", "--images", "1", "--size", "16", "-o", "photos/a.png/x.json"),
     "cannot be written"),
    (("priors", "calibrate", "mine.safetensors?class=3", "--data", "photos", "-o", "mine.safetensors"), "would be replaced"),
    (("priors", "guess"), "guess"),
    (("restore", "--task", "denoise", "--prior", "deepinv:drunett"), "did you mean 'drunet'"),
    (("restore", "--task", "denoise", "--set", "prior=edm:net.pkl"), "docs/priors.md shows"),
])
def test_what_is_at_fault_is_said_in_one_line(invdiff, work, arguments, message):
    code, _, err = invdiff(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_an_interrupted_calibration_leaves_nothing(invdiff, work, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("invdiff.priors.spectrum_records.measure_spectrum", interrupt)
    assert invdiff(*CALIBRATE)[0] == 130
    assert not (work / "cache").exists()


def test_damaged_photos_are_named(invdiff, work):
    Image.new("RGB", (40, 40)).save(work / "photos" / "c.png")
    data = (work / "photos" / "c.png").read_bytes()
    (work / "photos" / "c.png").write_bytes(data[: len(data) - 40])
    code, _, err = invdiff("priors", "calibrate", MINE, "--data", "photos", "--images", "3", "--size", "16")
    assert code == 2
    assert "c.png" in err
