"""`invdiff sample`: what it writes and refuses, and what cards, solvers and a prior's name say of how it draws."""

import numpy as np
import pytest
import torch
from PIL import Image
from toy_priors import TwoGaussians

from invdiff import InputError
from invdiff.diffusion.integrators import Consistency, Heun
from invdiff.sample_config import draw, sample_config
from invdiff.sampling import sample


def test_the_command_writes_a_sheet_the_numbers_and_a_report(invdiff, tiny_prior, tmp_path):
    prior, out = tiny_prior(1, 0.5), tmp_path / "out"
    arguments = ["sample", "--prior", prior, "-n", 5, "--steps", 2, "--size", "16x20", "-o", out]
    code, said, _ = invdiff(*arguments)
    assert code == 0
    assert "5 images of 16 x 20" in said
    with np.load(out / "samples.npz", allow_pickle=False) as file:
        images = file["images"]
        assert sorted(file) == ["images"]
    assert images.shape == (5, 1, 16, 20)
    assert Image.open(out / "samples.png").size == (3 * 22 + 2, 2 * 18 + 2)
    assert invdiff(*arguments, "--solver", "dpmpp_2m", "--set", "schedule=cosine")[0] == 0        # replaces its own result
    with np.load(out / "samples.npz", allow_pickle=False) as file:
        assert not np.allclose(file["images"], images)


@pytest.mark.parametrize(("options", "words"), [
    (["--solver", "heum"], "did you mean 'heun'"), (["--solver", "dpmpp_2m_sd"], "did you mean 'dpmpp_2m_sde'"),
    (["--size", "16"], "expected HEIGHTxWIDTH"), (["--size", "100000000x100000000"], "memory: this does not fit"),
    (["--class", "3"], "no classes"), (["--guidance", "2"], "needs classes"), (["--guidance", "nan"], "finite number"),
    (["-n", "0"], "count"), (["--set", "schedule=karas"], "did you mean 'karras'"),
    (["--set", "solver.etta=1"], "did you mean 'eta'"), (["--prior", "nobody"], "no prior is called 'nobody'")])
def test_the_command_refuses_in_one_sentence(invdiff, tiny_prior, tmp_path, options, words):
    given = [] if "--prior" in options else ["--prior", tiny_prior(1, 0.5)]
    code, _, complaint = invdiff("sample", *given, *options, "-o", tmp_path / "out")
    assert code == 2
    assert words in complaint
    assert not (tmp_path / "out").exists()


def test_a_card_may_say_how_its_prior_is_sampled(monkeypatch):
    prior = TwoGaussians()
    prior.card["sampling"] = {"solver": "ddim", "steps": 2, "sigma_max": 3.0}
    monkeypatch.setattr("invdiff.sample_config.load_prior", lambda name: prior)
    config, loaded = sample_config({"prior": "few", "count": 4})
    drawn = draw(config, loaded)
    assert drawn.report["network_calls"] == 2
    assert drawn.report["sigma_max"] == pytest.approx(3.0)
    assert drawn.classes.tolist() == [0, 1, 0, 1]
    assert drawn.report["classes"] == ["dark", "bright"]
    named, _ = sample_config({"prior": "few", "solver": {"name": "ddim"}, "class": "Bright"}, ["solver.eta=0.5"])
    assert (named.steps, named.sigma_max) == (2, 3.0)               # its own solver by name: its own levels
    assert named.solver == {"name": "ddim", "eta": 0.5}
    assert draw(named, loaded).classes.unique().tolist() == [1]
    with pytest.raises(InputError, match="guidance: a prior of few steps is no denoiser"):
        draw(config.model_copy(update={"guidance": 2.0}), loaded)
    with pytest.raises(InputError, match="few is drawn from by ddim, and heun would make no images of it"):
        sample_config({"prior": "few", "solver": "heun"})
    with pytest.raises(InputError, match="this prior is drawn from by ddim, and heun would make no images of it"):
        sample(prior, 2, Heun(), steps=2)
    assert sample_config({"prior": "few", "solver": "euler"})[0].steps == 2         # DDIM by another name


def test_a_solver_takes_the_steps_it_wants_unless_told(monkeypatch):
    monkeypatch.setattr("invdiff.sample_config.load_prior", lambda name: TwoGaussians())
    assert [sample_config({"prior": "x", "solver": name})[0].steps for name in ("heun", "euler_maruyama", "langevin")] == [
        20, 250, 200]
    assert sample_config({"prior": "x", "solver": "langevin", "steps": 7})[0].steps == 7


def test_the_solver_of_consistency_models_is_for_no_denoiser(monkeypatch):
    monkeypatch.setattr("invdiff.sample_config.load_prior", lambda name: TwoGaussians())
    with pytest.raises(InputError, match="consistency would make no images of it, for it is a denoiser"):
        sample_config({"prior": "many", "solver": "consistency"})
    unknown = TwoGaussians()
    unknown.card = {}                               # of which nothing is said: it may be one
    assert sample(unknown, 2, Consistency(), steps=2, size=(2, 3), device="cpu").images.isfinite().all()
    assert sample_config({"prior": "many"}, ["solver.eta=0.5"])[0].solver == {"name": "dpmpp_2m_sde", "eta": 0.5}


def test_a_class_may_be_a_number():
    config, prior = sample_config({"prior": "fashion", "count": 2, "steps": 2}, ["class=3"])
    assert draw(config, prior).classes.tolist() == [3, 3]


def test_a_prior_whose_name_has_a_class_draws_it():
    config, prior = sample_config({"prior": "fashion?class=bag&guidance=2", "count": 2, "steps": 2})
    drawn = draw(config, prior)
    assert drawn.classes is None
    assert drawn.report["network_calls"] == 4
    again, free = sample_config({"prior": "fashion", "class": "bag", "guidance": 2, "count": 2, "steps": 2})
    torch.testing.assert_close(drawn.images, draw(again, free).images)
    with pytest.raises(InputError, match="name gives it one already"):
        draw(sample_config({"prior": "fashion?class=bag", "class": "dress"})[0], prior)
