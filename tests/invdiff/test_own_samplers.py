"""Samplers of a user's own: what they give, and how a config names them."""

import json
import os
import sys

import pytest
import torch
import yaml
from test_restore import SIZE, problem
from test_restore import prior as gaussian

from invdiff.config import SAMPLERS, build_sampler, describe
from invdiff.diffusion.integrators import DDIM, Step
from invdiff.errors import InputError, NoSample
from invdiff.io.images import sample_image, save_image
from invdiff.io.results import load_arrays
from invdiff.own_code import own_code
from invdiff.posterior import MomentMatching, Sampler
from invdiff.resolving import run_config
from invdiff.restoration import restore as draw

CHANGES = {"flat": lambda x: x[:, 0], "nothing": lambda x: None, "waves": torch.fft.fft2}


class Gives(Sampler):
    """In one step what CHANGES makes of the back-projection."""

    num_steps: int = 1
    change: str = "flat"

    def steps(self, prior, problem, seeds):
        x = problem.A_adjoint(problem.y).expand(len(seeds), *problem.image_shape)
        yield Step(0.0, x, CHANGES[self.change](x))


@pytest.mark.parametrize(("change", "got"), [("flat", r"\(2, 8, 8\)"), ("nothing", "None"),
                                             ("waves", r"\(2, 1, 8, 8\) of torch.complex64")])
def test_a_sampler_s_last_estimate_is_an_image_of_real_numbers(change, got):
    assert SIZE == (1, 8, 8)
    with pytest.raises(NoSample, match=rf"expected a sample \(2, 1, 8, 8\) of Gives, got {got}; the last step's x0 is to be"):
        draw(problem(), gaussian(), Gives(change=change), samples=2, batch_size=2)


MODULE = """
from typing import Callable
from invdiff.diffusion.integrators import DDIM
from invdiff.posterior import MomentMatching, Sampler
from pydantic import Field

class Mine(Sampler):
    gamma: float = Field(1.0, gt=0, lt=2)
    levels: tuple[int, ...] = (1, 2)

    def posterior_denoiser(self, prior, problem):
        def denoise(x, sigma):
            x0 = prior(x, sigma)
            return x0 + self.gamma * problem.A_adjoint(problem.y - problem.A(x0))
        return denoise

class Own(DDIM):
    pass

class Hidden(Sampler):
    rule: Callable = print

def fast():
    return MomentMatching(steps=3, integrator=DDIM())

def odd():
    return Mine(steps=3, integrator=Own())

def broken(): return 1 / 0
def number(): return 3
def factory(denoiser, sigma_y): return 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's own in the current folder."""
    (tmp_path / "mysamp.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "mysamp.py"
    sys.modules.pop("mysamp", None)


@pytest.mark.parametrize("given", [["sampler=python:mysamp:Mine"], ["sampler.name=python:mysamp:Mine"],
                                   ["sampler={name: python:mysamp:Mine}"]])
def test_a_sampler_of_a_user_s_own_is_taken_by_name_with_its_fields_for_keys(module, given, tmp_path):
    """And config.yaml says it all."""
    config = run_config("deblur", None, [*given, "sampler.gamma=0.5", "sampler.steps=4", "sampler.integrator=ddim"])
    assert (config.sampler["name"], config.sampler["gamma"], config.sampler["levels"]) == ("python:mysamp:Mine", 0.5, [1, 2])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump()))
    assert run_config(None, tmp_path / "config.yaml") == config
    sampler = build_sampler(config.sampler)
    assert (type(sampler).__name__, sampler.gamma, sampler.num_steps, sampler.integrator) == ("Mine", 0.5, 4, DDIM())
    assert str(module) in config.files


def test_a_function_that_makes_one_chooses_its_fields(module):
    plain = build_sampler({"name": "python:mysamp:fast"})
    assert plain == MomentMatching(steps=3, integrator=DDIM())
    assert build_sampler({"name": "python:mysamp:fast", "steps": 7, "sigma_max": 2.0}) == MomentMatching(
        steps=7, sigma_max=2.0, integrator=DDIM())
    for name in ("python:mysamp:fast", "python:mysamp:odd"):        # an integrator of its own has no name in a config
        sampler = build_sampler({"name": name})
        assert build_sampler(json.loads(json.dumps(describe(sampler, name)))) == sampler


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_of_ours_are_described_as_before(name):
    sampler = SAMPLERS[name]()
    assert build_sampler(describe(sampler)) == build_sampler(describe(sampler, name)) == sampler


@pytest.mark.parametrize(("sampler", "said"), [
    ("{name: python:mysamp:Mine, gama: 1}", "sampler: unknown key 'gama'; did you mean 'gamma'?"),
    ("{name: python:mysamp:Mine, gamma: 3}", "sampler: gamma: input should be less than 2, got 3"),
    ("python:mysamp:Mien", "python:mysamp:Mien: module 'mysamp' has no attribute 'Mien'"),
    ("python:mysamp:broken", "python:mysamp:broken: ZeroDivisionError in "),
    ("python:mysamp:number", "python:mysamp:number: expected a class derived from invdiff.posterior.Sampler, or a function "
                             "without parameters that makes such a sampler, got a int"),
    ("python:mysamp:factory", "python:mysamp:factory: expected a class derived from invdiff.posterior.Sampler"),
    ("python:mysamp:Own", "python:mysamp:Own: expected a class derived from invdiff.posterior.Sampler, or a function without "
                          "parameters that makes such a sampler, got the class Own"),
    ("python:mysamp:Hidden", "Hidden: a config holds numbers, words, and lists"),
    ("momentmatching", "sampler: unknown name 'momentmatching'; did you mean 'moment_matching'?"),
])
def test_what_is_no_sampler_is_refused_in_a_sentence(module, sampler, said):
    with pytest.raises(InputError) as caught:
        run_config("deblur", None, [f"sampler={sampler}"])
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_restore_draws_by_it_and_repeats_it_and_a_changed_module_is_another_run(module, restore, prior, tmp_path):
    """Also of what is kept of a folder of pictures."""
    (tmp_path / "photos").mkdir()
    save_image("photos/one.png", sample_image(size=32))
    mine = ("--sampler", "python:mysamp:Mine", "--set", "sampler.gamma=0.5", "--steps", "2", "--samples", "2")
    folder = ("--task", "deblur", "--truth", "photos", *mine)
    assert restore(*folder)[::2] == (0, "")
    report = json.loads((tmp_path / "out" / "one" / "report.json").read_text(encoding="utf-8"))
    assert report["sampler"] == report["config"]["sampler"]["name"] == "python:mysamp:Mine"
    assert report["config"]["sampler"]["gamma"] == 0.5
    assert restore("--config", "out/one/config.yaml", output="again")[::2] == (0, "")
    first, second = (torch.as_tensor(load_arrays(tmp_path / name / "result.h5")["samples"]) for name in ("out/one", "again"))
    assert torch.equal(first, second)
    assert "1 kept" in restore(*folder)[1]
    made = (tmp_path / "out" / "one" / "report.json").stat().st_mtime
    os.utime(module, (made + 5, made + 5))
    assert "1 restored" in restore(*folder)[1]


def test_a_run_does_not_go_on_from_what_another_module_s_sampler_has_drawn(module, tmp_path):
    def run():
        draw(problem(), gaussian(), build_sampler({"name": "python:mysamp:Mine", "steps": 2}), checkpoint=tmp_path / "run")

    run()
    run()
    module.write_text(MODULE + "# of no consequence, for all one knows\n")
    with pytest.raises(InputError, match=r"finished parts of another run \(code was "):
        run()


def test_what_is_kept_knows_the_code_that_a_config_names(module):
    build_sampler({"name": "python:mysamp:Mine"})                       # imports it
    before = own_code({"name": "denoising"}, {"name": "python:mysamp:Mine"})
    assert list(before) == ["code"]
    assert before == own_code({"name": "python:mysamp:Mine"})
    module.write_text(module.read_text() + "\n# another\n")
    assert own_code({"name": "python:mysamp:Mine"}) != before
    assert own_code({"name": "denoising"}, {"name": "dps"}) == {}
