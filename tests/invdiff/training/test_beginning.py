"""What a run begins with: the weights of a prior, of the same network or of a part of it."""

import json

import pytest
import torch
from toy_run import patches, run, settings

from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.priors.checkpoint import save_prior
from invdiff.training.export import make_card
from invdiff.training.loop import Trainer
from invdiff.training.run import finished
from invdiff.training.settings import TrainSettings


def test_a_run_begins_with_the_weights_of_a_prior(tmp_path):
    """Those of its file, in half precision; also the average starts there."""
    first = Trainer(settings(), patches())
    run(first, 3)
    path = tmp_path / "first.safetensors"
    save_prior(path, first.average, make_card(first))
    second = Trainer(settings(initial=str(path)), patches())
    for module in (second.denoiser, second.average):
        for name, value in module.network.state_dict().items():
            assert torch.equal(value, first.average.network.state_dict()[name].half().float())
    before = make_card(second)["training"]["initial"]
    assert str(tmp_path) not in json.dumps(make_card(second))             # a card travels, paths do not
    assert before == {"name": "toy", "steps": 3, "hours": make_card(first)["training"]["hours"], "hardware": before["hardware"]}
    with pytest.raises(InputError, match=r"initial: .*first.safetensors is of another architecture than `network`"):
        Trainer(settings(initial=str(path), network={"widths": (8, 16), "depths": (1, 1), "embedding": 16}), patches())
    with pytest.raises(InputError, match=r"initial: .* has noise.sigma_data 0.25 and noise.centre 0.5, not 0.25 and 0.4"):
        Trainer(settings(initial=str(path), noise={"centre": 0.4}), patches())
    with pytest.raises(InputError, match="no prior is called 'none'"):
        Trainer(settings(initial="none"), patches())


def test_a_run_goes_on_with_what_it_began_with(tmp_path):
    """Or with nothing to compare, where that is not there any more."""
    state = tmp_path / "state.safetensors"
    first = Trainer(settings(), patches())
    run(first, 2)
    path, other = tmp_path / "first.safetensors", tmp_path / "other.safetensors"
    save_prior(path, first.average, make_card(first))
    run(first, 1)
    save_prior(other, first.average, make_card(first))
    first.save(state)
    with pytest.raises(InputError, match=r"state\.safetensors: belongs to a run with another initial, or its weights"):
        Trainer(settings(initial=str(path)), patches(), begun=True).resume(state)
    second = Trainer(settings(initial=str(path)), patches())
    second.save(state)
    for wrong in (None, str(other)):
        with pytest.raises(InputError, match="belongs to a run with another initial"):
            Trainer(settings(initial=wrong), patches(), begun=True).resume(state)
    path.unlink()
    third = Trainer(settings(initial=str(path)), patches(), begun=True)
    third.resume(state)
    assert third.others == second.others
    for a, b in zip(third.parameters, second.parameters, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(InputError, match="no such file"):
        Trainer(settings(initial=str(path)), patches())


def test_a_finished_run_of_another_beginning_is_none(tmp_path):
    given = settings(steps=2)
    trainer = Trainer(given, patches())
    run(trainer)
    trainer.save(tmp_path / "state.safetensors")
    path = tmp_path / f"{given.name}.safetensors"
    save_prior(path, trainer.average, make_card(trainer))
    assert finished(given, tmp_path) == 2
    assert finished(settings(steps=2, initial=str(path)), tmp_path) is None


@pytest.mark.parametrize(("network", "message"), [
    ({"widths": (8, 12), "depths": (1, 1), "attention": True}, "network.attention: expected a last width"),
    ({"widths": (8, 12), "depths": (1,)}, "network.depths: expected 2 numbers"),
    ({"kind": "dit", "width": 20, "heads": 3}, "network.width: expected a multiple of 12")])
def test_a_network_whose_parts_do_not_fit_is_an_error_of_the_config(network, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        Trainer(settings(network=network), patches())


def test_a_name_does_not_leave_the_folder():
    with pytest.raises(ValueError, match="name"):
        TrainSettings(**(settings().model_dump() | {"name": "../../evil"}))


@pytest.mark.parametrize("more", [{"depths": (1, 3)}, {"depths": (2, 1)}, {"attention": True}])
def test_a_larger_network_begins_as_the_prior_that_it_contains(tmp_path, more):
    small = {"widths": (8, 32), "depths": (1, 1), "embedding": 16}
    first = Trainer(settings(network=small), patches())
    run(first, 3)
    path = tmp_path / "first.safetensors"
    save_prior(path, first.average, make_card(first))
    larger = Trainer(settings(initial=str(path), network=small | more), patches())
    x = torch.randn(2, 3, 16, 24)
    assert len(larger.denoiser.network.state_dict()) > len(first.denoiser.network.state_dict())
    torch.testing.assert_close(larger.average(x, 0.5), load_prior(str(path))(x, 0.5))


def test_a_network_that_holds_a_prior_s_weights_in_another_place_is_refused(tmp_path):
    """All names and shapes of the prior are there, but what it knows comes out elsewhere."""
    flat = {"widths": (8, 8), "depths": (1, 1), "embedding": 16}
    first = Trainer(settings(network=flat), patches())
    run(first, 3)
    save_prior(tmp_path / "first.safetensors", first.average, make_card(first))
    deeper = flat | {"widths": (8, 8, 8), "depths": (1, 1, 1)}
    with pytest.raises(InputError, match="is of another architecture than `network`"):
        Trainer(settings(initial=str(tmp_path / "first.safetensors"), network=deeper), patches())
