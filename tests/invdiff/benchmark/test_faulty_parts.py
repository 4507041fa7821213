"""Operators and methods of a user's own that are at fault: what they cost, and what is said."""

import csv
import json
import re
import sys

import pytest

from invdiff.benchmark.run import run
from invdiff.benchmark.settings import benchmark_config
from invdiff.errors import InputError

MODULE = '''
import torch
from deepinv.models import Reconstructor
from deepinv.physics import LinearPhysics
from invdiff.interop import AsReconstructor
from invdiff.posterior import MomentMatching

class Identity(LinearPhysics):
    def __init__(self, img_size, pieces: int = 1):
        super().__init__(img_size=tuple(img_size))
        self.scale = 1 / pieces
    def A(self, x, **kwargs):
        return x
    def A_adjoint(self, y, **kwargs):
        return y

class Raises(Identity):
    def A(self, x, **kwargs):
        raise RuntimeError("no such <kernel>")

class NotANumber(Identity):
    def A(self, x, **kwargs):
        return x * float("nan")

class Rolls(Identity):
    def A(self, x, **kwargs):
        return x.roll(3, -1)
    def A_adjoint(self, y, **kwargs):
        return y.roll(3, -1)

class Scaled(Identity):
    def A_adjoint(self, y, **kwargs):
        return 1.08 * y

class Gives(Reconstructor):
    def __init__(self, change):
        super().__init__()
        self.change = change
    def forward(self, y, physics, **kwargs):
        return self.change(physics.A_adjoint(y))

def nan(denoiser, sigma_y):
    return Gives(lambda x: x / 0)

def flat(denoiser, sigma_y):
    return Gives(lambda x: x[0])

def nothing(denoiser, sigma_y):
    return Gives(lambda x: None)

def waves(denoiser, sigma_y):
    return Gives(torch.fft.fft2)

def ours(denoiser, sigma_y, **seed):
    return AsReconstructor(denoiser, MomentMatching(steps=1), sigma_y=sigma_y, **seed)

def ready(denoiser, sigma_y):
    return MomentMatching(steps=1)

def none(denoiser, sigma_y):
    return None
'''


@pytest.fixture
def out(config, tmp_path, monkeypatch):
    """Runs a small benchmark with assignments into `out`; gives its rows."""
    (tmp_path / "faulty.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "faulty", raising=False)

    def go(*assignments):
        run(benchmark_config("mine.yaml", ["count=1", "metrics=[psnr]", *assignments]), tmp_path / "out")
        with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return go


def own_task(name, **parameters):
    given = "".join(f", {key}: {value}" for key, value in parameters.items())
    return f"{{name: {name}, operator: {{name: 'python:faulty:{name}'{given}}}, sigma_y: 0.05}}"


def test_an_operator_that_fails_costs_its_own_task_only(out, tmp_path):
    rows = out(f"tasks=[{own_task('Raises')}, {own_task('NotANumber')}, denoise]", "methods=[{name: tv, iterations: 2}]")
    assert [row["status"] for row in rows] == ["failed", "failed", "done"]
    assert rows[0]["reason"] == "no measurement: RuntimeError: no such <kernel>"
    assert "values are NaN or infinite" in rows[1]["reason"]
    assert "no such &lt;kernel&gt;" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "pictures" / "task3-measurement-1.png").is_file()


@pytest.mark.parametrize(("assignment", "said"), [
    (f"tasks=[denoise, {own_task('Identity', pieces=0)}]", "tasks: Identity: operator: division by zero"),
    (f"tasks=[{own_task('Identity', piece=2)}]", "tasks: Identity: operator python:faulty:Identity: unknown key 'piece'"),
    ("methods=[tv, {name: dps, step: 5}]", "methods: dps: unknown key 'step'; did you mean 'steps'?"),
    ("methods=[{name: dps, steps: 0, label: mine}]", "methods: mine: steps: "),
    ("methods=[{name: dps, integrator: dimm}]", "methods: dps.integrator: unknown name 'dimm'; did you mean 'ddim'?"),
])
def test_a_fault_of_a_config_names_the_task_or_the_method(out, assignment, said):
    with pytest.raises(InputError) as caught:
        out(assignment)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(("name", "said"), [
    ("nan", "restore: Gives came to values that are not finite, 3072 of 3072"),
    ("flat", "restore: expected a sample (1, 3, 32, 32) of Gives, got (3, 32, 32); its forward(y, physics) is to return such a "
             "tensor of real numbers"),
    ("nothing", "restore: expected a sample (1, 3, 32, 32) of Gives, got None; its forward(y, physics) is"),
    ("waves", "restore: expected a sample (1, 3, 32, 32) of Gives, got (1, 3, 32, 32) of torch.complex64; its forward"),
    ("ready", "python:faulty:ready: expected it to make a deepinv Reconstructor, got a MomentMatching; name a Sampler's class"),
    ("none", "python:faulty:none: expected it to make a deepinv Reconstructor, got a NoneType"),
])
def test_a_method_whose_output_is_no_image_failed_and_is_tried_again(out, name, said, recwarn):
    """It is no method that cannot do the task: mended in what its module imports, it may."""
    method = f"methods=['python:faulty:{name}']"
    (row,) = out("tasks=[denoise]", method)
    assert row["status"] == "failed"
    assert row["reason"].startswith(said)
    assert not [w for w in recwarn if "imaginary" in str(w.message)]
    seen = []
    run(benchmark_config("mine.yaml", ["count=1", "metrics=[psnr]", "tasks=[denoise]", method]), "out",
        on_cell=lambda *cell: seen.append(cell))
    assert len(seen) == 1


def test_samples_that_are_all_equal_are_told(out, tmp_path):
    ours = "'python:faulty:ours', {name: 'python:faulty:ours', seed: null, label: drawn}"
    rows = out("tasks=[denoise]", "count=2", "samples=3", f"methods=[{ours}, {{name: tv, iterations: 2}}]")
    assert [row["distinct"] for row in rows] == ["1", "1", "3", "3", "1", "1"]
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    (said,) = re.findall("All samples of .* are equal, so that .*", page)
    assert said.startswith("All samples of python:faulty:ours are equal")
    assert said.strip("*") in json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["notes"]


def test_an_adjoint_that_is_none_is_told_for_methods_that_do_not_ask(out, tmp_path):
    """Once for each task, and not of one that has a right one; and again where there is nothing left to run."""
    tasks = f"tasks=[denoise, {own_task('Rolls')}, {own_task('Scaled')}]"
    for _ in range(2):
        assert {row["status"] for row in out(tasks, "methods=[{name: deepinv_dps, steps: 2, samples: 1}]")} == {"done"}
        notes = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["notes"]
        assert [note.partition("transpose of its A")[0] for note in notes] == [
            "Task Rolls: Rolls: its A_adjoint is not the ", "Task Scaled: Scaled: its A_adjoint is 8.0% off the "]
        assert "Task Rolls: Rolls: its A_adjoint is not" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
