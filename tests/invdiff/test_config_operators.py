"""Configs of operators: what their constructors make of a schema, and what these say."""

import json
from pathlib import Path

import pytest
import torch
from deepinv.physics import LinearPhysics

from invdiff.config import OPERATORS, block_side, build_operator, operator_parameters
from invdiff.errors import InputError


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
