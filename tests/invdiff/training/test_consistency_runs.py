"""Runs of consistency training and distillation: resumed, recorded on the card, guided, and refused."""

from pathlib import Path

import pytest
import torch
from distilled import images, run, small_teacher, stored
from pydantic import ValidationError

from invdiff import InputError, load_prior
from invdiff.priors.checkpoint import save_prior
from invdiff.training.consistency import ConsistencyLoss
from invdiff.training.export import make_card
from invdiff.training.loop import Trainer
from invdiff.training.settings import TrainSettings


def settings(steps=8, loss=None, **changes):
    return TrainSettings.model_validate({
        "name": "few", "data": {"path": "nowhere", "patch": [8], "labels": "labels"}, "precision": "fp32",
        "network": {"channels": 1, "widths": [8, 8], "depths": [1, 1], "embedding": 16, "classes": 3},
        "noise": {"sigma_data": 0.3}, "loss": loss or {"kind": "consistency_training"},
        "optimiser": {"steps": steps, "batch": 4, "rate": 2e-3, "warmup": 2}, **changes})


@pytest.fixture
def teacher(tmp_path):
    return small_teacher(tmp_path, settings(loss={"kind": "edm"}))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_resumed_distillation_is_the_unbroken_one_bit_for_bit(teacher, tmp_path, guidance):
    """And the teacher is no part of the state."""
    loss = {"kind": "consistency_distillation", "teacher": teacher, "first": 4, "last": 16, "guidance": guidance}
    straight, first, second = (Trainer(settings(loss=loss), images()) for _ in range(3))
    run(straight)
    run(first, 3)
    first.save(tmp_path / "state.safetensors")
    torch.manual_seed(99)
    second.resume(tmp_path / "state.safetensors")
    run(second)
    here, there = stored(straight, tmp_path), stored(second, tmp_path)
    assert here.keys() == there.keys()
    assert not [k for k in here if not torch.equal(here[k], there[k])]
    assert {k.partition(".")[0] for k in here} == {"net", "average", "optimiser", "losses"}


def test_the_card_says_how_to_sample_and_who_taught(teacher):
    loss = {"kind": "consistency_distillation", "teacher": teacher, "first": 4, "last": 16, "second": 0.3}
    card = make_card(Trainer(settings(loss=loss), images()))
    assert card["sampling"] == {"solver": "consistency", "steps": 2, "schedule": {"name": "karras", "rho": 7.0},
                                "sigma_min": 0.3, "sigma_max": 40.0}
    assert card["training"]["teacher"]["name"] == Path(teacher).name
    assert len(card["training"]["teacher"]["weights"]) >= 16
    assert "sampling" not in make_card(Trainer(settings(loss={"kind": "edm"}), images()))


def test_how_it_is_sampled_may_change_when_the_run_is_over(teacher, tmp_path):
    loss = {"kind": "consistency_distillation", "teacher": teacher, "first": 4, "last": 16}
    Trainer(settings(loss=loss), images()).save(tmp_path / "state.safetensors")
    again = Trainer(settings(loss=loss | {"second": 0.8, "steps": 3}), images())
    again.resume(tmp_path / "state.safetensors")
    assert make_card(again)["sampling"]["sigma_min"] == 0.8
    with pytest.raises(InputError, match="belongs to a run with other settings"):
        Trainer(settings(loss=loss | {"last": 32}), images()).resume(tmp_path / "state.safetensors")


def test_sampling_begins_where_training_did():
    noise = {"kind": "cosine", "steps": 20, "sigma_data": 0.3}
    trainer = Trainer(settings(noise=noise), images())
    low, high = trainer.settings.noise.trained_range()
    card = make_card(trainer)
    assert (card["sampling"]["sigma_max"], card["sigma_range"]) == (high, [low, high])


def test_a_distillation_begins_as_its_teacher(teacher, tmp_path):
    """And says so where it cannot, as the teacher is another network: then its weights are those of any run."""
    loss, known = {"kind": "consistency_distillation", "teacher": teacher}, load_prior(teacher).network.state_dict()
    begun = Trainer(settings(loss=loss), images())
    assert begun.note == ""
    assert all(torch.equal(value, known[name]) for name, value in begun.denoiser.network.state_dict().items())
    network = {"channels": 1, "widths": [8, 16], "depths": [1, 1], "embedding": 16, "classes": 3}
    other, plain = (Trainer(settings(loss=each, network=network), images()) for each in (loss, {"kind": "edm"}))
    assert other.note == ("it begins with random weights, not as its teacher; loss.teacher: "
                          f"{teacher} is of another architecture than `network`")
    assert all(torch.equal(a, b) for a, b in zip(other.parameters, plain.parameters, strict=True))
    assert plain.note == Trainer(settings(), images()).note == ""


def test_guidance_moves_the_target_by_the_class(teacher):
    loss = {"kind": "consistency_distillation", "teacher": teacher}
    plain, guided = (Trainer(settings(loss=loss | {"guidance": w}), images()).loss for w in (1.0, 3.0))
    x, sigma, classes = torch.rand(2, 1, 8, 8), torch.full((2, 1, 1, 1), 0.5), torch.tensor([1, -1])
    moved = (plain.teacher(x, sigma, classes) - guided.teacher(x, sigma, classes)).abs().amax((1, 2, 3))
    assert moved[0] > 1e-4
    assert moved[1] < 1e-6                   # an image without its class is not guided
    free, told = (plain.teacher(x, sigma, c) for c in (None, classes))
    torch.testing.assert_close(guided.teacher(x, sigma, classes)[0], (free + 3 * (told - free))[0], rtol=1e-4, atol=1e-5)
    limited = Trainer(settings(loss=loss | {"guidance": 3.0, "guidance_interval": (0.6, 2.0)}), images()).loss.teacher
    sigma, classes = torch.tensor([0.5, 0.7]).reshape(2, 1, 1, 1), torch.tensor([1, 1])
    torch.testing.assert_close(limited(x, sigma, classes)[0], plain.teacher(x, sigma, classes)[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(limited(x, sigma, classes)[1], guided.teacher(x, sigma, classes)[1], rtol=1e-4, atol=1e-5)


def test_a_second_level_above_the_first_is_refused_as_the_run_begins():
    loss, noise = {"kind": "consistency_training", "second": 20.0}, {"high": 10.0, "sigma_data": 0.3}
    with pytest.raises(InputError, match=r"loss\.second: expected at most 10, the highest noise level, .* begins, got 20"):
        Trainer(settings(loss=loss, noise=noise), images())
    Trainer(settings(loss=loss | {"steps": 1}, noise=noise), images())          # there is no second


def test_what_cannot_be_distilled_is_an_input_error(tiny_prior):
    with pytest.raises(ValidationError, match="teacher: expected a prior for consistency_distillation"):
        ConsistencyLoss(kind="consistency_distillation")
    with pytest.raises(ValidationError, match=r"teacher: expected a prior .* none for consistency_training"):
        ConsistencyLoss(kind="consistency_training", teacher="natural")
    with pytest.raises(ValidationError, match="expected the lowest noise level and then the highest"):
        ConsistencyLoss(kind="consistency_training", guidance_interval=(2.0, 0.3))
    with pytest.raises(ValidationError, match="last: expected at least first = 20, got 10"):
        ConsistencyLoss(kind="consistency_training", first=20, last=10)
    with pytest.raises(InputError, match="no prior is called 'nobody'"):
        Trainer(settings(loss={"kind": "consistency_distillation", "teacher": "nobody"}), images())
    unknowing = str(tiny_prior(1, 0.5))
    for card, channels, said in (({"sampling": {"solver": "ddim"}}, 1, "draws in few steps and is no denoiser"),
                                 ({}, 2, r"is of 2 channels; expected network\.channels, 1")):
        path = str(tiny_prior(channels, 0.5))
        prior = load_prior(path)
        save_prior(path, prior, prior.card | card)
        with pytest.raises(InputError, match=said):
            Trainer(settings(loss={"kind": "consistency_distillation", "teacher": path}), images())
    with pytest.raises(InputError, match=r"loss\.teacher: .* knows 0 classes; expected as many as network\.classes, 3"):
        Trainer(settings(loss={"kind": "consistency_distillation", "teacher": unknowing, "guidance": 2.0}), images())
