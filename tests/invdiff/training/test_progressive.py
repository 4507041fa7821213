"""Progressive distillation: the student's step is two of its teacher's, its levels are among them, and phases hand over."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from distilled import images, run, small_teacher, stored
from pydantic import ValidationError

from invdiff import InputError
from invdiff.diffusion.integrators import DDIM
from invdiff.diffusion.schedules import Cosine
from invdiff.priors import load_prior
from invdiff.priors.checkpoint import save_prior
from invdiff.training import objectives
from invdiff.training.export import make_card
from invdiff.training.loop import Trainer
from invdiff.training.noise_levels import Chain, LogNormal
from invdiff.training.progressive import ProgressiveLoss, level
from invdiff.training.run import finished
from invdiff.training.settings import TrainSettings

NOISE = LogNormal(low=0.002, high=40.0)
ANYTHING = ProgressiveLoss(kind="progressive", teacher="exact", first=32, last=1)


def levels(count):
    """Of a student of `count` steps, as its card says to sample it: (count + 1,)."""
    few = ProgressiveLoss(kind="progressive", teacher="exact", first=2 * count, last=count).sampling(NOISE, 100, 100)
    return few.schedule(few.steps, few.sigma_min, few.sigma_max)


@pytest.mark.parametrize("student", [1, 2, 8])
def test_a_step_to_the_target_ends_where_two_of_the_teacher_do(student, points, monkeypatch):
    monkeypatch.setattr(objectives, "load_prior", lambda name: points.prior)
    objective = ANYTHING.objective(points.fit(ANYTHING, 0), NOISE).double()
    objective.interval.fill_(1 / student)
    fine = levels(2 * student)
    x = torch.randn(4, 1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for i, (sigma, after) in enumerate(pairwise(levels(student).tolist())):
        at = 0.45 + sigma * x
        *_, last = DDIM()(points.prior, fine[2 * i : 2 * i + 3], at, lambda: x)
        target = objective.target(at, torch.full((4, 1, 1, 1), sigma, dtype=torch.float64), None)
        once = torch.tensor([sigma, after], dtype=torch.float64)
        (step,) = DDIM()(lambda x, sigma, target=target: target, once, at, lambda: x)
        torch.testing.assert_close(step.x, last.x, rtol=1e-6, atol=1e-6)


def test_the_error_counts_by_the_signal_to_noise_ratio_and_one(points, monkeypatch):
    """Salimans & Ho 2022, Sec. 4, of an image in units of its standard deviation."""
    monkeypatch.setattr(objectives, "load_prior", lambda name: points.prior)
    denoiser = points.fit(ANYTHING, 0)
    objective, generator = ANYTHING.objective(denoiser, NOISE), torch.Generator().manual_seed(0)
    (x0, noise), sigma = points.draw(4, generator), levels(16)[[0, 5, 10, 15]].float()
    s = sigma.reshape(-1, 1, 1, 1)
    x = x0 + s * noise
    error = (denoiser(x, sigma) - objective.target(x, s, None)) / denoiser.sigma_data
    ratio = (denoiser.sigma_data / sigma).square()
    for losses in objective(x0, noise, sigma):
        torch.testing.assert_close(losses, (ratio + 1) * error.square().mean((1, 2, 3)))


@pytest.mark.parametrize("student", [1, 2, 4, 16])
def test_a_students_levels_are_every_other_one_of_its_teachers(student):
    torch.testing.assert_close(levels(student), levels(2 * student)[::2], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(levels(student), level(torch.arange(student, -1, -1, dtype=torch.float64) / student, 40.0),
                               rtol=1e-12, atol=1e-12)


def test_each_of_the_students_levels_is_drawn_as_often():
    rng = np.random.default_rng(0)
    for step, student in ((0, 16), (99, 1)):
        sigma, weight = ANYTHING.draw(NOISE, 160, rng, step, 100, None)
        found, counts = np.unique(sigma.round(9), return_counts=True)
        np.testing.assert_allclose(found[::-1], levels(student)[:-1], rtol=1e-6)
        assert (abs(counts - 160 / student) <= 1).all()
        assert (weight == 1).all()


def test_its_range_is_that_of_its_own_levels_whatever_the_noise():
    noise = Chain(kind="cosine", steps=20)
    assert ANYTHING.trained_range(noise) == (noise.low, noise.high)
    assert ANYTHING.sampling(noise, 100, 100).sigma_max == noise.high


@pytest.mark.parametrize("high", [2.0, 3.0, 30.0, 40.0, 80.0, 100.0])
def test_a_student_of_one_step_begins_at_the_highest_level_and_no_higher(high):
    """0.5 tan(atan(high / 0.5)), of which rounding makes more."""
    own = ANYTHING.sampling(LogNormal(low=0.002, high=high), 100, 100)
    assert own.sigma_min == pytest.approx(high, rel=1e-9)
    assert own.schedule(own.steps, own.sigma_min, own.sigma_max).tolist() == pytest.approx([high, 0], rel=1e-6)


def test_phases_halve_and_share_the_run():
    assert ANYTHING.students() == [16, 8, 4, 2, 1]
    phases = ANYTHING.phases(700)
    assert [len(phase) for phase in phases] == [100, 100, 100, 200, 200]
    assert (phases[0].start, phases[-1].stop) == (0, 700)
    assert [ANYTHING.phase(step, 700) for step in (0, 99, 100, 699)] == [phases[0], phases[0], phases[1], phases[4]]
    with pytest.raises(ValidationError, match="first: expected last = 3 times 2, 4, 8 or a higher power of two, got 32"):
        ProgressiveLoss(kind="progressive", teacher="exact", first=32, last=3)


def test_a_mixture_is_sampled_in_two_steps_where_its_teacher_needs_sixteen(points, monkeypatch):
    monkeypatch.setattr(objectives, "load_prior", lambda name: points.prior)
    noise = points.noise
    loss = ProgressiveLoss(kind="progressive", teacher="exact", first=16, last=2)
    student = points.fit(loss, 800)
    few = loss.sampling(noise, 800, 800)
    sigmas = few.schedule(few.steps, few.sigma_min, few.sigma_max)
    near, shares = points.share_near(student, few.integrator, sigmas)
    assert near > 0.8
    torch.testing.assert_close(shares, points.prior.weights, atol=0.1, rtol=0)
    assert points.share_near(points.prior, DDIM(), sigmas)[0] < 0.5
    fine = Cosine()(16, float(level(torch.tensor(1 / 16), noise.high)), noise.high)
    assert points.share_near(points.prior, DDIM(), fine)[0] > 0.9


def settings(teacher, steps=8, **loss):
    return TrainSettings.model_validate({
        "name": "few", "data": {"path": "nowhere", "patch": [8], "labels": "labels"}, "precision": "fp32",
        "network": {"channels": 1, "widths": [8, 8], "depths": [1, 1], "embedding": 16, "classes": 3},
        "noise": {"sigma_data": 0.3},
        "loss": {"kind": "progressive", "teacher": teacher, "first": 8, "last": 2, **loss} if teacher else {"kind": "edm"},
        "optimiser": {"steps": steps, "batch": 4, "rate": 2e-3, "warmup": 2}})


@pytest.fixture
def teacher(tmp_path):
    return small_teacher(tmp_path, settings(None))


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(teacher, tmp_path, stop):
    """Stopped within the first phase, at the end of it, and within the second."""
    straight, first, second = (Trainer(settings(teacher, 12, guidance=2.0), images()) for _ in range(3))
    run(straight)
    run(first, stop)
    first.save(tmp_path / "state.safetensors")
    torch.manual_seed(99)
    second.resume(tmp_path / "state.safetensors")
    run(second)
    here, there = stored(straight, tmp_path), stored(second, tmp_path)
    assert here.keys() == there.keys()
    assert not [k for k in here if not torch.equal(here[k], there[k])]
    assert {k.partition(".")[0] for k in here} == {"net", "average", "teacher", "optimiser", "losses"}


def test_a_phase_begins_with_the_average_of_the_last_as_student_and_teacher(teacher):
    trainer = Trainer(settings(teacher, 12), images())
    ends = trainer.settings.loss.phases(12)[0].stop
    run(trainer, ends)
    before = [p.clone() for p in trainer.average.parameters()]
    assert not trainer.loss.turned
    seen = []
    trainer.loss.register_forward_pre_hook(lambda module, args: seen.append([p.detach().clone() for p in trainer.parameters]))
    run(trainer, 1)
    assert trainer.loss.turned
    for old, taught, begun in zip(before, trainer.loss.teacher.parameters(), seen[0], strict=True):
        assert torch.equal(old, taught)
        assert torch.equal(old, begun)
    assert int(trainer.optimiser.state[trainer.parameters[0]]["step"]) == 1
    for now, average in zip(trainer.parameters, trainer.average.parameters(), strict=True):
        torch.testing.assert_close(now.detach(), average)           # after the first step of a phase it is the weights


def test_a_run_of_phases_has_one_length(teacher, tmp_path):
    Trainer(settings(teacher), images()).save(tmp_path / "state.safetensors")
    Trainer(settings(teacher), images()).resume(tmp_path / "state.safetensors")
    with pytest.raises(InputError, match="belongs to a run with other settings"):
        Trainer(settings(teacher, 16), images()).resume(tmp_path / "state.safetensors")


def test_another_teacher_of_the_same_name_is_noticed(teacher, tmp_path):
    state, kept = tmp_path / "state.safetensors", Path(teacher).read_bytes()
    Trainer(settings(teacher), images()).save(state)
    other = load_prior(teacher)
    other.network.stem.bias += 1
    save_prior(teacher, other, other.card)
    with pytest.raises(InputError, match=r"another loss\.teacher, or its weights have changed since; put it back"):
        Trainer(settings(teacher), images()).resume(state)
    Path(teacher).write_bytes(kept)
    Trainer(settings(teacher), images()).resume(state)


def test_a_finished_run_is_none_once_its_teacher_is_another(teacher, tmp_path):
    given = settings(teacher)
    trainer = Trainer(given, images())
    run(trainer)
    trainer.save(tmp_path / "state.safetensors")
    save_prior(tmp_path / f"{given.name}.safetensors", trainer.average, make_card(trainer))
    assert finished(given, tmp_path) == given.optimiser.steps
    other = load_prior(teacher)
    other.network.stem.bias += 1
    save_prior(teacher, other, other.card)
    assert finished(given, tmp_path) is None
    Path(teacher).unlink()
    assert finished(given, tmp_path) == given.optimiser.steps      # there is nothing to compare with


def test_the_card_says_how_to_sample_and_who_taught(teacher):
    trainer = Trainer(settings(teacher), images())
    run(trainer)
    card = make_card(trainer)
    assert card["training"]["teacher"]["name"] == Path(teacher).name
    few = card["sampling"]
    assert few == {"solver": "ddim", "steps": 2, "schedule": {"name": "cosine"}, "sigma_max": 40.0,
                   "sigma_min": pytest.approx(float(level(torch.tensor(0.5), 40.0)), rel=1e-6)}
