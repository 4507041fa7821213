"""TorchScript and the user's own code."""

import importlib
import sys
import warnings
from pathlib import Path

import deepinv
import pytest
import torch
from foreign_files import hostile

from invdiff import InputError, load_prior
from invdiff.priors.facts import fingerprint
from invdiff.priors.foreign.adapter import ForeignDenoiser

CODE = """
import torch
from deepinv.models import Denoiser, MedianFilter

class Shrink(Denoiser):
    def forward(self, x, sigma):
        return x / (1 + torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2)

class Box:
    inside = Shrink()

def shrink(x, sigma):
    return x / (1 + sigma ** 2)

def make():
    return Shrink()

def one(x):
    return x

class Dropping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x, sigma):
        return self.drop(x)

dropping = Dropping()

def make_dropping():
    return Dropping()

constant = 3
named = Shrink()
named.card = {"licence": "mine"}
"""


class Wiener(torch.nn.Module):
    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


class Blind(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def script(path, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), path)
    return path


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the current folder that is not on the path."""
    (tmp_path / "my_priors_for_a_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield "my_priors_for_a_test"
    sys.modules.pop("my_priors_for_a_test", None)


def test_torchscript(tmp_path):
    prior = load_prior(f"torchscript:{script(tmp_path / 'net.pt', Wiener())}?channels=1&stride=4")
    x = torch.rand(2, 1, 9, 7)
    torch.testing.assert_close(prior(x, torch.tensor([0.5, 2.0])), x / torch.tensor([1.25, 5.0]).reshape(2, 1, 1, 1))
    assert prior.card["channels"] == 1


@pytest.mark.parametrize("kind", ["blind", "missing", "truncated", "text", "state dict"])
def test_a_bad_torchscript_is_an_input_error(tmp_path, kind):
    path = script(tmp_path / "net.pt", Blind() if kind == "blind" else Wiener())
    match kind:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(path.read_bytes()[:300])
        case "text":
            path.write_text("nothing " * 100)
        case "state dict":
            torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(InputError) as caught:
        load_prior(f"torchscript:{path}")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "old", "plain"])
def test_torchscript_unpickles_no_python(tmp_path, kind):
    path = hostile(tmp_path / "evil.pt", tmp_path / "victim", kind)
    with pytest.raises(InputError, match=r"evil\.pt"):
        load_prior(f"torchscript:{path}")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("attribute", ["Shrink", "Box.inside", "shrink", "make", "named"])
def test_python(module, attribute):
    prior = load_prior(f"python:{module}:{attribute}")
    assert isinstance(prior, deepinv.models.Denoiser)
    x = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(prior(x, 0.5), x / 1.25)
    torch.testing.assert_close(prior(x, torch.tensor([0.5, 2.0])), x / torch.tensor([1.25, 5.0]).reshape(2, 1, 1, 1))
    assert prior.card["name"] == f"python:{module}:{attribute}"
    assert prior.card["licence"] == ("mine" if attribute == "named" else "unknown")


@pytest.mark.parametrize("attribute", ["shrink", "Shrink"])
def test_code_is_what_a_prior_without_weights_is_made_of(module, attribute):
    """Another text of the module makes another prior, whose error spectrum is measured anew."""
    prints = []
    for text in (CODE, CODE, CODE.replace("sigma ** 2", "sigma ** 4")):
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        Path(f"{module}.py").write_text(text)
        prints.append(fingerprint(load_prior(f"python:{module}:{attribute}")))
    assert prints[0] == prints[1] != prints[2]


def test_an_installed_class_is_called():
    assert isinstance(load_prior("python:deepinv.models:MedianFilter"), deepinv.models.MedianFilter)


@pytest.mark.parametrize("name", ["no_such_module_here:x", "{}:nothing", "{}:constant", "{}:one", "{}", ":x", "{}:"])
def test_what_denoises_nothing(module, name):
    with pytest.raises(InputError, match=r"^python:") as caught:
        load_prior(f"python:{name.format(module)}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("code", "says"), [
    ("def f(:", "SyntaxError in .*broken_for_a_test.py, line 1: "),
    ("\n1 / 0", "ZeroDivisionError in .*broken_for_a_test.py, line 2: division by zero"),
    ("from torch import nothing_such", "ImportError in .*broken_for_a_test.py, line 1: cannot import"),
    ("def f():\n    raise KeyError('weights')", "KeyError in .*broken_for_a_test.py, line 2: 'weights'"),
], ids=["syntax", "import time", "name", "factory"])
def test_code_of_a_users_own_that_fails_says_where(tmp_path, monkeypatch, code, says):
    (tmp_path / "broken_for_a_test.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_for_a_test", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(InputError, match=f"^python:broken_for_a_test:f: {says}"):
        load_prior("python:broken_for_a_test:f")
    sys.modules.pop("broken_for_a_test", None)


def test_the_path_is_left_as_it_was(module, tmp_path):
    load_prior(f"python:{module}:make")
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("name", ["wat:x", "Deepinv:drunet"])
def test_an_unknown_format_lists_the_known(name):
    with pytest.raises(InputError, match="deepinv, diffusers, guided-diffusion, edm, torchscript, python"):
        load_prior(name)


def test_a_format_alone_is_no_name():
    with pytest.raises(InputError, match="write for example deepinv:drunet"):
        load_prior("deepinv:")


def test_a_name_that_is_none_says_what_would_be():
    with pytest.raises(InputError, match=r"natural.*FORMAT:WHAT.*deepinv, diffusers, guided-diffusion"):
        load_prior("nothing")
    with pytest.raises(InputError, match="unknown option 'x'"):
        load_prior("natural?x=1")
    with pytest.raises(InputError, match="unknown option 'a'; known: spectrum"):
        load_prior("python:os:path?a=1")
    assert not isinstance(load_prior("natural"), ForeignDenoiser)


@pytest.mark.parametrize("name", ["dropping", "Dropping", "make_dropping"])
def test_a_plain_module_drops_nothing_out(module, name):
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(load_prior(f"python:{module}:{name}")(x, 0.1), x)
