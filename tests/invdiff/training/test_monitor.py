"""Sheets of samples, and what is chosen and drawn at the end of a run."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.errors import InputError
from invdiff.evaluation.denoising import denoising_table
from invdiff.figures import sheet
from invdiff.priors import load_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.training.loop import Progress
from invdiff.training.monitor import BANDS, band_names, log_line, loss_by_band
from invdiff.training.run import train
from invdiff.training.samples import draw_samples
from invdiff.training.settings import TrainSettings


class Gaussian(EDMDenoiser):
    """The exact denoiser of independent pixels N(centre, sigma_data^2): what EDM's preconditioning makes of no network."""

    def __init__(self, channels=3):
        super().__init__(torch.nn.Conv2d(channels, channels, 1), channels, sigma_data=0.25, centre=0.5)

    def precondition(self, x, sigma, classes=None):
        shrink = self.sigma_data**2 / (self.sigma_data**2 + torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2)
        return self.centre + shrink * (x - self.centre)


def test_samples_have_the_prior_s_distribution():
    """20,000 pixels: the standard deviation is known to 0.5 per cent, and the integrator is that good in 24 steps."""
    x = draw_samples(Gaussian(), count=8, size=29, steps=24, sigma_min=0.002, sigma_max=40.0)
    assert x.shape == (8, 3, 29, 29)
    assert float(x.mean()) == pytest.approx(0.5, abs=4 * 0.25 / x.numel() ** 0.5)
    assert float(x.std()) == pytest.approx(0.25, rel=0.03)


def test_a_sample_does_not_depend_on_those_beside_it():
    many, few = (draw_samples(Gaussian(2), count, 8, 3, 0.01, 10.0) for count in (5, 2))
    torch.testing.assert_close(many[:2], few)
    assert not torch.equal(many[0], many[1])


@pytest.mark.parametrize(("shape", "size"), [((1, 3, 8, 8), (12, 12)), ((5, 3, 8, 6), (26, 22)), ((4, 1, 8, 8), (22, 22)),
                                             ((4, 2, 8, 8), (22, 22))])
def test_a_sheet_is_about_as_high_as_wide(shape, size):
    picture = sheet(torch.full(shape, 0.6))
    assert picture.size == size
    level = round(255 * (0.6 * 2**0.5 if shape[1] == 2 else 0.6))
    assert np.asarray(picture)[4, 4].tolist() == [level] * 3


def test_the_log_and_the_card_tell_one_psnr(settings, monkeypatch):
    """Of complex images beyond [-1, 1] too."""
    crops = 3 * torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    trainer = SimpleNamespace(settings=SimpleNamespace(latent=False), average=Gaussian(2), step=1, seconds=0.0)
    line = log_line(trainer, [Progress(1, 1.0, torch.ones(1), torch.ones(1))], crops)
    assert line["psnr"]["0.0588"] == denoising_table(trainer.average, list(crops))["15"]


def test_the_loss_by_band():
    got = loss_by_band(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0.01, 0.02, 7.0]))
    assert got == [2.0, None, None, None, 5.0]
    assert len(band_names()) == len(BANDS) + 1


@pytest.fixture
def settings(tmp_path):
    """A folder whose images are smaller than the validation's and the spectrum's usual crops."""
    (tmp_path / "images").mkdir()
    for k in range(3):
        image = np.random.default_rng(k).integers(0, 256, (40, 44 + k, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{k}.png")

    def make(**changes):
        data = {"name": "toy", "precision": "fp32", "network": {"widths": [4, 4], "depths": [1, 1], "embedding": 16},
                "data": {"path": str(tmp_path / "images"), "patch": [16], "holdout": 1},
                "monitor": {"every": 2, "sheet_every": 2, "sheet": 2, "sheet_size": 16, "sheet_steps": 2},
                "optimiser": {"steps": 4, "batch": 2, "warmup": 2, "rate": 0.01}}
        return TrainSettings.model_validate({k: v | changes.pop(k, {}) if isinstance(v, dict) else v for k, v in data.items()}
                                            | changes)
    return make


def test_the_average_to_export_may_be_chosen_when_the_run_is_over(settings, tmp_path):
    lengths = {"ema_gammas": [16.0, 0.5]}
    first, chosen = ([p.clone() for p in load_prior(train(settings(optimiser=lengths | export), tmp_path / "out")).parameters()]
                     for export in ({}, {"ema_export": 0.5}))
    assert any(not torch.equal(a, b) for a, b in zip(first, chosen, strict=True))
    best = load_prior(train(settings(optimiser=lengths | {"ema_export": "best"}), tmp_path / "out"))
    gamma = best.card["training"]["average"]["gamma"]
    assert gamma in (16.0, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), first if gamma == 16.0 else chosen, strict=True))
    assert {p.name for p in (tmp_path / "out" / "samples").iterdir()} == {"0000002.png", "0000004.png"}


def test_tensorboard_that_is_not_there_is_named(settings, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="TensorBoard is not installed; pip install tensorboard"):
        train(settings(monitor={"tensorboard": True}), tmp_path / "out")


def test_tensorboard_gets_scalars_and_sheets(settings, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(settings(monitor={"tensorboard": True}), tmp_path / "out")
    log = events.EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    log.Reload()
    assert [e.step for e in log.Scalars("loss")] == [2, 4]
    assert {"psnr/0.5", "rate"} <= set(log.Tags()["scalars"])
    assert [e.step for e in log.Images("samples")] == [2, 4]


@pytest.mark.parametrize(("changes", "said"), [
    ({"data": {"patch": [64]}}, r"data\.patch: no training image is at least 64 pixels"),
    ({"data": {"holdout": 3}}, r"data\.holdout: expected fewer than the 3 images there are, got 3"),
    ({"data": {"path": "/nowhere"}}, "/nowhere: expected a folder of images or an HDF5 file"),
    ({"data": {"test": "test"}}, r"data\.test: names a dataset of an HDF5 file"),
    ({"network": {"channels": 4}}, r"network\.channels: expected 3, for colour, 1, for grey, or 2, for complex images, got 4"),
])
def test_unusable_input_is_named_before_anything_is_written(settings, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        train(settings(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(settings, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out: cannot be written"):
        train(settings(), tmp_path / "out")


@pytest.mark.parametrize("file", ["log.jsonl", "samples", "toy.png"])
def test_what_cannot_be_written_is_named_and_the_steps_are_kept(settings, tmp_path, file):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).write_text("") if file == "samples" else (tmp_path / "out" / file).mkdir()
    with pytest.raises(InputError, match=f"out/{file}.*: cannot be written"):
        train(settings(), tmp_path / "out")
    assert (tmp_path / "out" / "state.safetensors").exists()


def test_a_sheet_is_drawn_over_the_levels_that_were_trained(settings, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("invdiff.training.monitor.draw_samples",
                        lambda *arguments, **_: drawn.append(arguments[-2:]) or torch.zeros(2, 3, 16, 16))
    chain = settings(noise={"kind": "cosine", "steps": 20})
    train(chain, tmp_path / "out")
    assert set(drawn) == {chain.noise.trained_range()}


def test_images_that_do_not_fit_in_memory_train_the_same_prior(settings, tmp_path):
    small, large = (train(settings(data={"cache_mb": mb, "workers": 2}), tmp_path / str(mb)) for mb in (0, 1000))
    a, b = (load_prior(path) for path in (small, large))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
