import json
import math
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from toy_run import patches, run, settings

from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.priors.checkpoint import read_tensors, save_prior, write_tensors
from invdiff.training import loop
from invdiff.training.beginning import build_denoiser
from invdiff.training.export import make_card
from invdiff.training.loop import Trainer, learning_rate_factor


def tensors(trainer, folder):
    trainer.save(folder / "compare.safetensors")
    return read_tensors(folder / "compare.safetensors")[0]


def assert_bitwise(a, b):
    assert a.keys() == b.keys()
    assert any(k.startswith("optimiser.") for k in a)
    different = [k for k in a if not torch.equal(a[k], b[k])]
    assert not different


def test_a_resumed_run_is_the_unbroken_run_bit_for_bit(tmp_path):
    straight = Trainer(settings(), patches())
    run(straight)
    first = Trainer(settings(), patches())
    run(first, 3)
    assert first.step == 3
    first.save(tmp_path / "state.safetensors")
    torch.manual_seed(99)                                     # whatever the process did meanwhile
    second = Trainer(settings(), patches())
    second.resume(tmp_path / "state.safetensors")
    assert second.step == 3
    last = run(second)
    assert last.step == second.step == straight.step == 6
    assert_bitwise(tensors(straight, tmp_path), tensors(second, tmp_path))


def test_saving_changes_nothing_and_the_state_is_whole(tmp_path):
    saving, other = Trainer(settings(), patches()), Trainer(settings(), patches())
    saving.log.append({"step": 1})
    for _ in saving.steps():
        saving.save(tmp_path / "state.safetensors")
    run(other)
    assert_bitwise(tensors(saving, tmp_path), tensors(other, tmp_path))
    again = Trainer(settings(), patches())
    again.resume(tmp_path / "state.safetensors")
    assert (again.step, again.log, again.seconds) == (6, [{"step": 1}], saving.seconds)
    assert list(again.steps()) == []


def test_a_step_that_does_not_fit_names_the_settings(monkeypatch):
    trainer = Trainer(settings(), patches())

    def full(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.loss, "forward", full)
    with pytest.raises(InputError, match=r"memory: a step does not fit; take a smaller optimiser\.batch, data\.patch or"):
        run(trainer)


def test_the_loss_goes_down():
    """The untrained loss is near 1 at every level; 80 steps on smooth images leave less than 0.8 of it."""
    trainer = Trainer(settings(steps=80, optimiser={"rate": 5e-3, "warmup": 5, "batch": 8}, data={"patch": (16,)}), patches())
    losses = [p.loss for p in trainer.steps()]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:10])


def test_the_average_follows_a_power_law_of_the_run():
    """Weights 1, 2, ..., N: an average over a profile t^gamma tends to (gamma + 1) / (gamma + 2) of N."""
    trainer = Trainer(settings(optimiser={"ema_gamma": 3.0}), patches())
    run(trainer, 1)
    for a, b in zip(trainer.average.parameters(), trainer.parameters, strict=True):
        torch.testing.assert_close(a, b.detach())             # after one step it is the weights
    averaged = 0.0
    for step in range(1, 5001):
        averaged += (1 - (1 - 1 / step) ** (3.0 + 1)) * (step - averaged)
    assert averaged / 5000 == pytest.approx(4 / 5, rel=1e-3)
    before, old = [p.detach().clone() for p in trainer.average.parameters()], trainer.step
    run(trainer, 1)
    beta = (1 - 1 / (old + 1)) ** 4
    for a, b, p in zip(trainer.average.parameters(), before, trainer.parameters, strict=True):
        torch.testing.assert_close(a, beta * b + (1 - beta) * p.detach())


def test_a_batch_is_as_many_pixels_at_each_size_and_grey_noise_is_grey():
    batches = Trainer(settings(optimiser={"batch": 8}, data={"patch": (16, 32)}), patches()).batches
    for step, (count, size) in enumerate([(8, 16), (2, 32), (8, 16)]):
        batch = batches.make(step)
        assert batch.x0.shape == batch.noise.shape == (count, 3, size, size)
        assert batch.count == count
        equal = [(t[:, :1] == t).flatten(1).all(1) for t in (batch.x0, batch.noise)]
        assert torch.equal(*equal)
    assert not torch.equal(batches.make(0).noise, batches.make(2).noise)
    assert torch.equal(batches.make(2).noise, batches.make(2).noise)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (4, 0.5), (9, 1.0), (50, 1.0), (79, 1.0), (80, 1.0), (90, 0.5),
                                                (99, 0.05), (100, 0.0)])
def test_learning_rate_rises_stays_and_falls_to_zero(step, expected):
    assert learning_rate_factor(step, steps=100, warmup=10, decay=0.2) == pytest.approx(expected)


def test_settings_are_frozen_and_known():
    with pytest.raises(ValidationError):
        settings(epochs=3)
    with pytest.raises(ValidationError):
        settings(optimiser={"lr": 3})
    for wrong in (-1, 2**63):
        with pytest.raises(ValidationError):
            settings(seed=wrong)
    with pytest.raises(ValidationError):
        settings().seed = 3


def test_a_resumed_run_drops_out_what_the_unbroken_one_does(tmp_path, monkeypatch):
    """A network that draws random numbers in training: they are a function of (seed, step), too."""
    def dropping(settings):
        denoiser = build_denoiser(settings)
        denoiser.network.head = torch.nn.Sequential(denoiser.network.head, torch.nn.Dropout(0.5))
        return denoiser

    monkeypatch.setattr(loop, "build_denoiser", dropping)
    straight, first = (Trainer(settings(), patches()) for _ in range(2))
    run(straight)
    run(first, 3)
    first.save(tmp_path / "state.safetensors")
    second = Trainer(settings(), patches())
    second.resume(tmp_path / "state.safetensors")
    torch.manual_seed(99)
    run(second)
    assert_bitwise(tensors(straight, tmp_path), tensors(second, tmp_path))
    assert not any(average.training for average in second.averages.copies)


@pytest.mark.parametrize("changes", [
    {"noise": {"high": math.inf}}, {"noise": {"centre": math.nan}}, {"noise": {"sigma_data": math.inf}},
    {"noise": {"log_mean": math.nan}}, {"loss": {"kind": "v", "unit": math.inf}}, {"optimiser": {"rate": math.inf}},
    {"optimiser": {"clip": math.nan}}])
def test_settings_are_finite(changes):
    with pytest.raises(ValidationError, match="finite"):
        settings(**changes)


LOSSES = ("edm", "x0", "eps", "v", "min_snr", "flow", "uncertainty")
LEVELS = ("log_uniform", "linear", "cosine", "curriculum", "adaptive")


@pytest.mark.parametrize("changes", [{"loss": {"kind": k}} for k in LOSSES] + [{"noise": {"kind": k}} for k in LEVELS])
def test_every_kind_trains(changes, tmp_path):
    if changes.get("noise") == {"kind": "curriculum"}:
        changes = {"noise": {"kind": "curriculum", "ramp": 30}}
    trainer = Trainer(settings(steps=60, optimiser={"rate": 5e-3, "warmup": 5, "batch": 16}, data={"patch": (16,)}, **changes),
                      patches())
    before = torch.cat([p.detach().flatten() for p in trainer.parameters])
    losses = torch.tensor([float(p.losses.median()) for p in trainer.steps()])
    assert losses.isfinite().all()
    assert not torch.equal(before, torch.cat([p.detach().flatten() for p in trainer.parameters]))
    trainer.save(tmp_path / "state.safetensors")
    Trainer(trainer.settings, patches()).resume(tmp_path / "state.safetensors")


def test_a_loss_that_is_no_number_stops_the_run_within_the_step():
    trainer = Trainer(settings(), patches())
    run(trainer, 1)
    with torch.no_grad():
        trainer.parameters[-1].fill_(float("nan"))
    with pytest.raises(InputError, match=r"step 2: the loss is nan; start anew with a lower optimiser\.rate"):
        run(trainer)
    assert (trainer.step, trainer.whole) == (1, False)


def test_without_accelerate_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match=r'training needs accelerate: pip install "invdiff\[train\]"'):
        Trainer(settings(), patches())


def test_noise_that_falls_beyond_the_end_of_the_run_is_refused():
    with pytest.raises(ValueError, match=r"steps: expected at least noise\.ramp = 5000, .*, got 60"):
        settings(steps=60, noise={"kind": "curriculum"})


def test_ema_settings_old_and_new():
    assert settings(optimiser={"ema_gamma": 3}).optimiser == settings(optimiser={"ema_gammas": [3.0]}).optimiser
    assert settings(optimiser={"ema_gammas": [3.0, 8.0], "ema_gamma": 5}).optimiser.ema_gammas == (5.0,)      # assigned later
    assert settings(optimiser={"ema_gamma": 5, "ema_gammas": [3.0, 8.0]}).optimiser.ema_gammas == (3.0, 8.0)
    with pytest.raises(ValidationError, match="expected one of ema_gammas"):
        settings(optimiser={"ema_gammas": [3.0, 8.0], "ema_export": 16.0})
    assert settings(optimiser={"ema_gammas": [3.0, 8.0], "ema_export": 8.0}).optimiser.ema_export == 8.0


def test_an_error_before_the_weights_change_leaves_the_state_whole(tmp_path):
    """A damaged image, or too little memory: the state can be saved as it was, and the run goes on from it."""
    class Damaged:
        made = 0

        def __len__(self):
            return 4

        def batch(self, *arguments):
            self.made += 1
            if self.made == 4:          # of the third step: some are looked at before the first
                raise InputError("3.png: not a readable image")
            return patches().batch(*arguments)

    trainer, straight = Trainer(settings(), Damaged()), Trainer(settings(), patches())
    with pytest.raises(InputError, match=r"3\.png"):
        run(trainer)
    assert (trainer.step, trainer.whole) == (2, True)
    trainer.save(tmp_path / "state.safetensors")
    again = Trainer(settings(), patches())
    again.resume(tmp_path / "state.safetensors")
    run(again)
    run(straight)
    assert_bitwise(tensors(straight, tmp_path), tensors(again, tmp_path))


@pytest.mark.parametrize("network", [
    {"kind": "dit", "patch": 4, "width": 16, "depth": 1, "heads": 2},
    {"kind": "ncsnpp", "img_resolution": 16, "model_channels": 32, "channel_mult": [1, 1], "num_blocks": 1,
     "attn_resolutions": [8]},
], ids=["dit", "ncsnpp"])
def test_other_networks_train_resume_and_become_priors(network, tmp_path):
    straight, first = (Trainer(settings(2, network=network), patches()) for _ in range(2))
    run(straight)
    run(first, 1)
    first.save(tmp_path / "state.safetensors")
    second = Trainer(settings(2, network=network), patches())
    second.resume(tmp_path / "state.safetensors")
    run(second)
    assert_bitwise(tensors(straight, tmp_path), tensors(second, tmp_path))
    save_prior(tmp_path / "x.safetensors", second.average, make_card(second))
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(load_prior(tmp_path / "x.safetensors")(x, 0.2), second.average(x, 0.2), rtol=0, atol=2e-3)


def test_a_state_of_the_first_version_goes_on(tmp_path):
    """It had one average, no running loss, and none of the settings that came later."""
    trainer = Trainer(settings(), patches())
    run(trainer, 2)
    trainer.save(tmp_path / "new.safetensors")
    values, metadata = read_tensors(tmp_path / "new.safetensors")
    del values["losses.squares"], values["losses.seen"]
    state = json.loads(metadata["state"])
    for key in ("loss", "compile"):
        del state["settings"][key]
    del state["settings"]["noise"]["kind"]
    state["settings"]["optimiser"]["ema_gamma"] = state["settings"]["optimiser"].pop("ema_gammas")[0]
    write_tensors(tmp_path / "old.safetensors", values, {"state": json.dumps(state)})
    again = Trainer(settings(), patches())
    again.resume(tmp_path / "old.safetensors")
    run(trainer)
    run(again)
    here, there = tensors(trainer, tmp_path), tensors(again, tmp_path)
    assert_bitwise(*({k: v for k, v in state.items() if not k.startswith("losses.")} for state in (here, there)))
