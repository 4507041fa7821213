"""The state of a training: which runs may go on from it, and what is said of one that is damaged, foreign or another run's."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from toy_run import patches, run, settings

from invdiff.errors import InputError
from invdiff.priors.checkpoint import read_tensors, write_tensors
from invdiff.training.identity import saved_state
from invdiff.training.loop import Trainer


@pytest.mark.parametrize(("changed", "why"), [
    ({"seed": 1}, "seed: 0, and now 1"), ({"optimiser": {"rate": 1e-3}}, "optimiser.rate: 0.002, and now 0.001"),
    ({"optimiser": {"batch": 8}}, "optimiser.batch: 4, and now 8"), ({"data": {"grey": 0.1}}, "data.grey: 0.3, and now 0.1"),
    ({"noise": {"high": 10.0}}, "noise.high: 40.0, and now 10.0"), ({"loss": {"kind": "v"}}, 'loss.kind: "edm", and now "v"'),
])
def test_a_run_with_other_settings_is_refused(tmp_path, changed, why):
    path = tmp_path / "state.safetensors"
    Trainer(settings(), patches()).save(path)
    with pytest.raises(InputError, match=re.escape(f"state.safetensors: belongs to a run with other settings ({why});")):
        Trainer(settings(**changed), patches()).resume(path)


def test_a_run_may_be_made_longer_and_its_data_moved(tmp_path):
    path = tmp_path / "state.safetensors"
    Trainer(settings(), patches()).save(path)
    Trainer(settings(steps=20, data={"path": "elsewhere", "description": "waves"}), patches()).resume(path)


def test_a_run_that_is_over_tells_of_the_decay_that_it_had(tmp_path):
    path, trainer = tmp_path / "state.safetensors", Trainer(settings(steps=2), patches())
    run(trainer)
    trainer.save(path)
    with pytest.raises(InputError, match=r"all steps are done, with optimiser\.decay=0\.3, and now 0\.9"):
        Trainer(settings(steps=2, optimiser={"decay": 0.9}), patches()).resume(path)
    Trainer(settings(steps=4, optimiser={"decay": 0.9}), patches()).resume(path)


def test_another_number_of_images_is_refused_and_another_use_is_not(tmp_path):
    path = tmp_path / "state.safetensors"
    Trainer(settings(), patches()).save(path)
    Trainer(settings(use="of none"), patches()).resume(path)
    with pytest.raises(InputError, match="belongs to a run on 4 images, and now there are 2"):
        Trainer(settings(), patches(2)).resume(path)


def test_other_images_of_the_same_number_are_refused(tmp_path):
    """A state of an earlier version knows nothing of them."""
    path = tmp_path / "state.safetensors"
    Trainer(settings(), patches()).save(path)
    with pytest.raises(InputError, match=r"state\.safetensors: belongs to a run on other images; put them back"):
        Trainer(settings(), patches(moved=0.5)).resume(path)
    values, metadata = read_tensors(path)
    state = json.loads(metadata["state"])
    del state["brightness"]
    write_tensors(path, values, {"state": json.dumps(state)})
    Trainer(settings(), patches(moved=0.5)).resume(path)


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    path, trainer = tmp_path / "state.safetensors", Trainer(settings(), patches())
    run(trainer, 3)
    trainer.save(path)
    Trainer(settings(steps=3), patches()).resume(path)
    with pytest.raises(InputError, match=r"3 steps are done, more than optimiser\.steps=2; ask for 3 or more"):
        Trainer(settings(steps=2), patches()).resume(path)


@pytest.mark.parametrize("spoil", [lambda p: p.unlink(), lambda p: p.write_text("text"),
                                   lambda p: p.write_bytes(p.read_bytes()[:-9])])
def test_a_damaged_state_is_an_input_error(tmp_path, spoil):
    path = tmp_path / "state.safetensors"
    trainer = Trainer(settings(), patches())
    trainer.save(path)
    spoil(path)
    with pytest.raises(InputError, match=r"state\.safetensors"):
        trainer.resume(path)


DAMAGES = {
    "tensors missing": lambda t, s: [t.pop(k) for k in list(t) if k.startswith("average.")],
    "other shapes": lambda t, s: t.update({k: v[:1].clone() for k, v in t.items() if v.ndim}),
    "a moment of another shape": lambda t, s: t.update({"optimiser.0.exp_avg": t["optimiser.0.exp_avg"][:1].clone()}),
    "weights of more": lambda t, s: t.update({"optimiser.999.exp_avg": torch.zeros(1)}),
    "a step that is a word": lambda t, s: s.update(step="x"),
    "no log": lambda t, s: s.pop("log"),
    "brightness in words": lambda t, s: s.update(brightness="dark"),
}


@pytest.mark.parametrize("kind", [*DAMAGES, "NaN", "no JSON", "a list", "no state"])
def test_a_damaged_or_foreign_state_is_one_sentence_that_names_it(tmp_path, kind):
    path, trainer = tmp_path / "state.safetensors", Trainer(settings(), patches())
    run(trainer, 1)
    trainer.save(path)
    values, metadata = read_tensors(path)
    state = json.loads(metadata["state"])
    if kind in DAMAGES:
        DAMAGES[kind](values, state)
        metadata["state"] = json.dumps(state)
    elif kind == "NaN":
        values["optimiser.0.exp_avg"].fill_(float("nan"))
    else:
        metadata = {"no JSON": {"state": "{nonsense"}, "a list": {"state": "[1]"}, "no state": {"format": "another"}}[kind]
    save_file(values, path, metadata)
    with pytest.raises(InputError, match=r"state\.safetensors: (not the state of a|belongs to a run with other)") as caught:
        Trainer(settings(), patches()).resume(path)
    assert "\n" not in str(caught.value)
    if metadata.get("state") != json.dumps(state):
        assert saved_state(path, settings()) in ({}, state)


def test_weights_that_are_not_finite_do_not_take_the_place_of_the_last_good_state(tmp_path):
    """The loss of a step is that of the weights before it."""
    path, trainer = tmp_path / "state.safetensors", Trainer(settings(2, optimiser={"rate": 1e30, "warmup": 1}), patches())
    trainer.save(path)
    before = path.read_bytes()
    run(trainer, 1)
    with torch.no_grad():
        trainer.parameters[0].fill_(float("inf"))
    with pytest.raises(InputError, match=r"is not written, as net\..* holds NaN or infinity: the training has diverged"):
        trainer.save(path)
    assert path.read_bytes() == before
