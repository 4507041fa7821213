"""The examples of docs/operators.md, docs/mri.md and docs/uncertainty.md run as they stand, and the tables of the first are
what the code says."""

import re
import shlex
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import operators
from invdiff.cli.main import program
from invdiff.config import OPERATORS
from invdiff.io.images import sample_image, save_image
from invdiff.io.results import load_arrays
from invdiff.validation import model_of

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"
_EXAMPLE = re.compile(r"^## ([^\n]+)\n(?:(?!## )[^\n]*\n)*?```python\n(.*?)^```$", re.M | re.S)
EXAMPLES = _EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """A fully sampled scan of a disc by six coils, with noise; and where the disc is."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[-32:32, -32:32]
    disc = torch.from_numpy((np.hypot(y, x) < 24).astype(np.complex64))
    images = disc * operators.mri.birdcage_maps((64, 64), 6)
    noise = torch.randn(images.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    with h5py.File("scan.h5", "w") as file:
        file["kspace"] = (operators.mri.fft(images, (-2, -1)) + 1e-3 * noise).numpy()
    return disc.bool()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", [pytest.param(code, id=title) for title, code in EXAMPLES])
def test_an_example_runs(code, scan):
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    if "magnitude" in names:
        full = operators.mri.rss(operators.mri.ifft(names["kspace"], (-2, -1)))
        assert (names["magnitude"] - full)[:, scan].norm() < 0.1 * full[:, scan].norm()
    if "sigma" in names:
        torch.testing.assert_close(names["sigma"], torch.ones(1), rtol=0.05, atol=0)


def test_every_public_operator_is_in_the_table():
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in operators.__all__ if name[0].isupper() and f"`{name}`" not in text
               and name not in {"IterativePhysics", "Solution", "PaddedBlur", "ReflectBlur", "SeparableBlur"}]
    assert not missing
    assert len(EXAMPLES) == 5


def test_the_names_of_configs_are_in_the_table_with_their_keys():
    rows = re.findall(r"^\| `([a-z_]+)` \| [^|]* \| ([^|]*) ?\|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert [name for name, _ in rows] == list(OPERATORS)
    for name, keys in rows:
        fields = model_of(OPERATORS[name]).model_fields
        told = {key: yaml.safe_load(value) if equals else ... for key, equals, value in
                (text.partition("=") for text in re.findall(r"`([^`]*)`", keys))}
        assert told == {key: ... if field.is_required() else list(field.default) if isinstance(field.default, tuple)
                        else field.default for key, field in fields.items()}, name


def test_an_operator_of_one_s_own_is_restored_from_and_again_from_its_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rolling.py").write_text(dict(EXAMPLES)["An operator of your own"].partition("\nphysics =")[0])
    save_image("truth.png", sample_image(size=32))
    (command,) = re.findall(r"^invdiff (restore .*python:rolling:.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    first = [*shlex.split(command), "--truth", "truth.png", "--steps", "1", "--samples", "1", "--output", "out"]
    for arguments in (first, ["restore", "--config", "out/config.yaml", "--output", "again"]):
        done = CliRunner().invoke(program, arguments)
        assert done.exit_code == 0, done.output
    sys.modules.pop("rolling")
    assert yaml.safe_load(Path("out/config.yaml").read_text())["operator"] == {"name": "python:rolling:RollingShutter",
                                                                              "slope": 0.3}
    samples = [load_arrays(Path(folder) / "result.h5")["samples"] for folder in ("out", "again")]
    assert torch.equal(*map(torch.as_tensor, samples))


@pytest.mark.parametrize("name", ["mri.md", "uncertainty.md"])
def test_the_python_of_a_page_runs(name):
    page = PAGE.with_name(name)
    (code,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    names: dict = {}
    exec(compile(code, str(page), "exec"), names)
    assert names["result"].mean.shape == (1, 2, 256, 256) if name == "mri.md" else "explains" in names["found"].words()


def test_a_sampler_of_one_s_own_is_restored_with_calibrated_and_compared(tmp_path, monkeypatch):
    """The one of docs/samplers.md, and the one of CONTRIBUTING.md, which needs no change of the source either."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVDIFF_CACHE", str(tmp_path / "cache"))
    page, more = (PAGE.parents[name == "CONTRIBUTING.md"].joinpath(name).read_text(encoding="utf-8")
                  for name in ("samplers.md", "CONTRIBUTING.md"))
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    Path("mysamp.py").write_text(code)
    (code,) = re.findall(r"^```python\n((?:(?!```).)*class Landweber.*?)^```$", more, re.M | re.S)
    Path("landweber.py").write_text(code)
    Path("photos").mkdir()
    for i in range(4):
        save_image(f"photos/{i}.png", sample_image(size=40 + 8 * i))
    (command,) = re.findall(r"^invdiff (restore .*python:mysamp:.*)$", page, re.M)
    both = "methods=[{name: python:mysamp:Mine, steps: 1}, {name: python:landweber:Landweber, steps: 1}]"
    for arguments in (
            [*shlex.split(command), "--truth", "photos/0.png", "--steps", "1", "--samples", "1", "-o", "out"],
            ["calibrate", "--task", "inpaint", "--sampler", "python:mysamp:Mine", "--data", "photos", "--size", "32",
             "--set", "sampler.steps=1"],
            ["benchmark", "quick", "--set", "count=1", "--set", "size=32", "--set", "tasks=[inpaint]", "--set", both,
             "-o", "compared"]):
        done = CliRunner().invoke(program, arguments)
        assert done.exit_code == 0, done.output
    for name in ("mysamp", "landweber"):
        sys.modules.pop(name)
    assert yaml.safe_load(Path("out/config.yaml").read_text())["sampler"]["gamma"] == 0.5
    rows = Path("compared/results.csv").read_text().splitlines()[1:]
    assert [row.split(",")[2:5:2] for row in rows] == [["python:mysamp:Mine", "done"], ["python:landweber:Landweber", "done"]]
