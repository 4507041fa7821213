"""Configs of operators: what their constructors make of a schema, and what these say."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from deepinv.physics import LinearPhysics

from invdiff.config import OPERATORS, block_side, build_operator, operator_parameters
from invdiff.errors import InputError
from invdiff.posing import pose
from invdiff.resolving import run_config


def test_an_operator_that_does_not_fit_the_image_is_refused():
    with pytest.raises(InputError, match=r"operator: sigma: expected at most .* pixels"):
        build_operator({"name": "gaussian_blur", "sigma": 100.0}, (3, 64, 64))
    with pytest.raises(InputError, match="operator: kernel: expected at most"):
        build_operator({"name": "motion_blur", "size": 65}, (3, 64, 64))


class Own(LinearPhysics):
    """An operator of a contributor's. `factor` is no size of blocks, unless `block_side` says so."""

    def __init__(self, size, file: Path | None = None, levels: tuple[float, float] = (0.0, 1.0), factor: float = 0.5, *,
                 solver=1):
        super().__init__(img_size=tuple(size))
        self.file, self.levels, self.solver = file, levels, solver


def test_an_operator_s_parameters_are_plain_in_the_config_and_of_their_types_in_the_call(monkeypatch):
    monkeypatch.setitem(OPERATORS, "own", Own)
    given = {"name": "own", "file": "a/b.npy", "levels": [1, 2]}
    full = operator_parameters(given)
    assert full == {"name": "own", "file": str(Path("a/b.npy")), "levels": [1.0, 2.0], "factor": 0.5}
    assert operator_parameters(json.loads(json.dumps(full))) == full
    physics = build_operator(full, (1, 4, 4))
    assert (physics.file, physics.levels, physics.img_size) == (Path("a/b.npy"), (1.0, 2.0), (1, 4, 4))
    with pytest.raises(InputError, match="operator own: unknown key 'solver'"):
        operator_parameters({"name": "own", "solver": 2})


def test_blocks_are_the_operator_s_to_tell(monkeypatch):
    monkeypatch.setitem(OPERATORS, "own", Own)
    assert block_side({"name": "own", "factor": 3}) == block_side({"name": "denoising"}) == block_side({"name": "mri"}) == 1
    assert block_side({"name": "super_resolution"}) == 2
    with pytest.raises(InputError, match=r"operator.factor: expected a whole number >= 1, got 0"):
        block_side({"name": "bicubic_super_resolution", "factor": 0})


def unnamed(img_size, gain=1.0):
    """Its parameter has no type."""


def tensor(img_size, mask: torch.Tensor):
    """No config can hold it."""


def named(img_size, name: str = "x"):
    """A config calls the operator so."""


@pytest.mark.parametrize(("make", "said"), [
    (unnamed, "unnamed: parameter gain: has no type; expected a number, a word"),
    (tensor, "tensor: parameter mask: has the type torch.Tensor; expected a number"),
    (named, "named: parameter name: is what a config calls the operator by"),
])
def test_a_parameter_that_no_config_can_give_is_refused(make, said, monkeypatch):
    monkeypatch.setitem(OPERATORS, "own", make)
    with pytest.raises(InputError) as caught:
        operator_parameters({"name": "own"})
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError])
def test_what_a_constructor_raises_is_told(kind, monkeypatch):
    def make(img_size, sides: int = 4):
        raise kind(f"sides: expected odd,\n  got {sides}")

    monkeypatch.setitem(OPERATORS, "own", make)
    with pytest.raises(InputError, match="operator: sides: expected odd, got 4"):
        build_operator({"name": "own"}, (3, 8, 8))


def test_too_little_memory_for_an_operator_is_no_mistake_in_its_config(monkeypatch):
    def make(img_size):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setitem(OPERATORS, "own", make)
    with pytest.raises(RuntimeError, match="can't allocate"):
        build_operator({"name": "own"}, (3, 8, 8))


MODULE = """
import operators

class Dim(operators.SuperResolution):
    def __init__(self, img_size, factor: int = 2, gain: float = 0.5, *, device="cpu"):
        super().__init__(img_size, factor)
        self.gain = gain

def sums(img_size, keep: float = 0.25):
    return operators.CompressedSensing(img_size, keep)
sums.measures_images = False

def number(img_size): return 3
def late(size, img_size): return 3
def hidden(img_size, x: "Nowhere" = 1): return 3
seven = 7
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's own in the current folder."""
    (tmp_path / "my_operators.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "my_operators"
    sys.modules.pop("my_operators", None)


@pytest.mark.parametrize("assignment", ["operator.name=python:my_operators:Dim", "operator=python:my_operators:Dim",
                                        "operator={name: python:my_operators:Dim, factor: 2}"])
def test_an_operator_of_a_user_s_own_is_taken_by_name(module, assignment, tmp_path):
    """With its defaults, and what it has in common with the task's; and config.yaml says it all."""
    assert module not in sys.modules
    config = run_config("sr", None, [assignment, "operator.gain=0.25"])
    assert config.operator == {"name": f"python:{module}:Dim", "factor": 2, "gain": 0.25}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump()))
    assert run_config(None, tmp_path / "config.yaml") == config
    assert block_side(config.operator) == 2
    physics = pose(config).problem.physics
    assert (type(physics).__name__, physics.gain) == ("Dim", 0.25)


def test_an_operator_of_a_user_s_own_may_be_a_function(module, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"{{task: mine, operator: python:{module}:sums, sigma_y: 0.1}}")
    config = run_config(None, tmp_path / "mine.yaml")
    assert config.operator == {"name": f"python:{module}:sums", "keep": 0.25}
    assert pose(config).problem.y.shape == (1, 3, 128 * 128)
    with pytest.raises(InputError, match=rf"what python:{module}:sums measures does not tell the image's size"):
        pose(run_config(None, tmp_path / "mine.yaml", ["input=y.npy"]))


@pytest.mark.parametrize(("name", "said"), [
    ("python:no_such_module:Dim", "python:no_such_module:Dim: there is no module 'no_such_module'"),
    ("python:my_operators:Dimm", "python:my_operators:Dimm: module 'my_operators' has no attribute 'Dimm'"),
    ("python:my_operators", "python:my_operators: expected python:MODULE:ATTRIBUTE"),
    ("python:my_operators:number", "operator python:my_operators:number: expected it to make a deepinv Physics, got int"),
    ("python:my_operators:late", "operator python:my_operators:late: expected a class or function that takes img_size, "
                                 "(C, H, W), first, got one that takes (size, img_size)"),
    ("python:my_operators:seven", "takes img_size, (C, H, W), first, got int"),
    ("python:my_operators:hidden", "hidden: its parameters cannot be read (name 'Nowhere' is not defined)"),
    ("python", "operator: unknown name 'python'; did you mean 'python:MODULE:NAME'?"),
])
def test_what_is_no_operator_of_a_user_s_own_is_told(module, name, said):
    with pytest.raises(InputError) as caught:
        build_operator({"name": name}, (3, 8, 8))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_an_operator_of_a_user_s_own_has_not(module):
    given = [f"operator.name=python:{module}:Dim"]
    with pytest.raises(InputError, match=f"operator python:{module}:Dim: unknown key 'gian'; did you mean 'gain'"):
        run_config("denoise", None, [*given, "operator.gian=2"])
    with pytest.raises(InputError, match=r"unknown key 'gain'; did you mean 'operator\.gain'"):
        run_config("denoise", None, [*given, "gain=2"])
