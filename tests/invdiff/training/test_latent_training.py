"""Training of an autoencoder, and of a prior of its latents, from images to a file that draws."""

import copy
import json

import h5py
import numpy as np
import pytest
import torch

from invdiff import InputError, load_prior
from invdiff.diffusion.integrators import DDIM
from invdiff.priors.autoencoder import load_autoencoder, save_autoencoder
from invdiff.priors.checkpoint import read_tensors, write_tensors
from invdiff.sampling import sample
from invdiff.training.autoencoder import (
    AutoencoderSettings,
    AutoencoderTrainer,
    divergence,
    encode_all,
    latent_statistics,
    train_autoencoder,
)
from invdiff.training.export import settings_told
from invdiff.training.identity import difference
from invdiff.training.loop import Trainer
from invdiff.training.run import load_data, train
from invdiff.training.settings import LatentSettings
from invdiff.training.stages import train_stages


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Grey 8 x 8 images: a bright left or right half, of a random brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=96)
    x = np.zeros((96, 8, 8), np.uint8)
    for image, label in zip(x, labels, strict=True):
        image[:, 4 * label : 4 * label + 4] = rng.integers(100, 255)
    path = tmp_path_factory.mktemp("data") / "halves.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = x, labels
    return path


def settings(path, **changes):
    return AutoencoderSettings.model_validate({
        "kind": "autoencoder", "name": "tiny", "data": {"path": str(path), "key": "x", "test": "x", "description": "halves"},
        "network": {"latent_channels": 2, "widths": [8, 8], "depths": [1, 1]}, "steps": 150, "batch": 16, "rate": 5e-3,
        "warmup": 5, "precision": "fp32", **changes})


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """The file of an autoencoder, trained for seconds."""
    return train_autoencoder(settings(images), tmp_path_factory.mktemp("run"))


def latent_settings(images, trained, **changes):
    text = {"name": "tiny-latent", "latent": {"autoencoder": str(trained)},
            "data": {"path": str(images), "key": "x", "labels": "y", "class_names": ["left", "right"], "holdout": 16,
                     "patch": [8], "flips": False, "licence": "none"},
            "network": {"kind": "dit", "channels": 2, "patch": 1, "width": 16, "depth": 1, "heads": 1, "classes": 2},
            "noise": {"low": 0.002, "high": 80.0, "sigma_data": 1.0, "centre": 0.0},
            "optimiser": {"steps": 4, "batch": 8}, "monitor": {"every": 2, "sheet": 4, "sheet_size": 8, "sheet_steps": 2},
            "precision": "fp32", **changes}
    path = trained.parent / "latent.yaml"
    path.write_text(json.dumps(text))       # JSON is YAML
    return train_stages(path)[0]


def test_the_divergence_is_that_of_gaussians():
    mean, log_variance = torch.randn(2, 3, 4, 2, 2)
    ours = divergence(mean, log_variance)
    law, standard = torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(ours, torch.distributions.kl_divergence(law, standard).sum((1, 2, 3)).mean())


def test_a_step_goes_down_the_evidence_bound(images):
    """|x - decode(z)|^2 + 2 noise^2 KL by pixel, z drawn with the standard deviation that the encoder says."""
    trainer = AutoencoderTrainer(settings(images, noise=0.4, clip=1e9))
    for parameter in trainer.network.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=torch.Generator().manual_seed(parameter.numel()))
    network = copy.deepcopy(trainer.network)
    x, noise = trainer.batch(3)
    mean, log_variance = network.moments(x)
    law, standard = torch.distributions.Normal(mean, log_variance.exp().sqrt()), torch.distributions.Normal(0.0, 1.0)
    error = (network.decode(mean + law.stddev * noise) - x).square().mean()
    kl = torch.distributions.kl_divergence(law, standard).sum((1, 2, 3)).mean() / 64
    (error + 2 * 0.4**2 * kl).backward()
    assert trainer.step(3) == pytest.approx({"error": error.item(), "kl": kl.item()}, rel=1e-4)
    for got, expected in zip(trainer.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-3, atol=1e-6)


def test_images_come_back_and_latents_have_unit_variance(images, trained):
    """The mean image would have 10 dB."""
    coder = load_autoencoder(trained)
    assert coder.card["psnr"]["mean"] > 18
    with h5py.File(images) as file:
        z = encode_all(coder, file["x"][()][:, None])
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=0.02)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(2), rtol=0.02, atol=0)
    assert {"architecture", "licence", "training", "data"} <= set(coder.card)


def test_a_latent_that_never_varies_stays_near_zero(trained):
    coder, images = load_autoencoder(trained), np.zeros((2, 1, 8, 8), np.uint8)
    coder.encoder[-1].weight.zero_()
    coder.standardise([0.0, 0.0], [1.0, 1.0])
    coder.standardise(*latent_statistics(coder, images))
    assert encode_all(coder, images).abs().max() < 0.2


def test_less_is_kept_where_the_noise_is_said_to_be_larger(images, tmp_path):
    """The KL term weighs 2 noise^2: at 0.5, the standard deviation of the images or more, nothing is worth saying."""
    def divergences(noise):
        train_autoencoder(settings(images, noise=noise, steps=100), tmp_path)
        return json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["kl"]

    assert divergences(1.0) < 0.1 * divergences(0.03)


def test_a_prior_of_latents_from_end_to_end(images, trained, tmp_path):
    prior = load_prior(train(latent_settings(images, trained), tmp_path))
    assert prior.card["image_size"] == [8, 8]
    assert prior.card["classes"] == ["left", "right"]
    assert prior.card["autoencoder"]["name"] == "tiny"
    assert (tmp_path / "tiny-latent.png").is_file()
    drawn = sample(prior, 3, DDIM(), steps=3, classes=[0, 1, -1], device="cpu")
    assert drawn.images.shape == (3, 1, 8, 8)
    assert drawn.images.isfinite().all()
    assert prior.error_spectrum(2).power.shape[1] == 2


def test_a_run_keeps_the_autoencoder_that_it_began_with(images, trained, tmp_path):
    """A file that another one replaces in its midst does nothing to it; going on with the other one is refused, unless the
    state is of a version that did not keep note of it."""
    file, out = tmp_path / "a.safetensors", tmp_path / "out"
    file.write_bytes(trained.read_bytes())
    run, coder = latent_settings(images, trained, latent={"autoencoder": str(file)}), load_autoencoder(trained)

    def replace(progress, trainer):
        other = load_autoencoder(trained)
        other.encoder[1].bias += 0.5
        save_autoencoder(file, other, other.card)

    prior, x = load_prior(train(run, out, on_step=replace)), torch.rand(2, 1, 8, 8)
    assert torch.equal(prior.encode(x), coder.encode(x))
    longer = latent_settings(images, trained, latent={"autoencoder": str(file)}, optimiser={"steps": 6, "batch": 8})
    with pytest.raises(InputError, match=r"state\.safetensors: belongs to a run with another latent\.autoencoder, or its"):
        train(longer, out)
    tensors, metadata = read_tensors(out / "state.safetensors")
    state = json.loads(metadata["state"])
    del state["others"], state["brightness"]
    write_tensors(out / "state.safetensors", tensors, {"state": json.dumps(state)})
    trainer = Trainer(longer, load_data(longer)[0])
    trainer.resume(out / "state.safetensors")
    assert trainer.step == 4


def test_a_run_on_latents_begins_with_a_prior_of_the_same_ones(images, trained, tmp_path):
    first = train(latent_settings(images, trained), tmp_path / "first")
    again = latent_settings(images, trained, initial=str(first))
    trainer = Trainer(again, load_data(again)[0])
    kept = load_prior(first).denoiser.network.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in trainer.denoiser.network.state_dict().items())
    distilled = latent_settings(images, trained, loss={"kind": "progressive", "teacher": str(first), "first": 2, "last": 1})
    assert Trainer(distilled, load_data(distilled)[0]).loss.first.classes == 2
    for run in (again, distilled):              # of a stage, whose card tells no more than names
        assert difference(settings_told(run), run) is None
    other = load_autoencoder(trained)
    other.encoder[1].bias += 0.5
    save_autoencoder(tmp_path / "other.safetensors", other, other.card)
    for settings, key in ((again, "initial"), (distilled, "loss.teacher")):
        moved = settings.model_copy(update={"latent": LatentSettings(autoencoder=str(tmp_path / "other.safetensors"))})
        with pytest.raises(InputError, match=f"{key}: .* is a prior of the latents of another autoencoder"):
            Trainer(moved, load_data(moved)[0])


def test_batches_are_latents_with_their_classes(images, trained):
    source, held, test = load_data(latent_settings(images, trained))
    z, grey, classes = source.batch(40, 8, np.random.default_rng(0), slice(0, None, 2))
    with h5py.File(images) as file:
        every = load_autoencoder(trained).encode(torch.from_numpy(file["x"][()][:, None] / np.float32(255)))
        labels = file["y"][()]
    assert z.shape == (20, 2, 2, 2)
    assert not grey.any()
    assert len(held) == 16
    assert not test
    torch.testing.assert_close(torch.stack(held), every[80:], rtol=0, atol=1e-4)
    for one, label in zip(z, classes, strict=True):
        near = (every[:80] - one).abs().amax((1, 2, 3)) < 1e-4
        assert near.any()
        assert label == -1 or set(labels[:80][near.numpy()]) == {int(label)}


@pytest.mark.parametrize("factor", [0.05, 20.0])
def test_latents_of_another_scale_are_refused(factor, images, trained, tmp_path):
    coder = load_autoencoder(trained)
    coder.standardise((coder.mean.flatten()).tolist(), (coder.scale.flatten() / factor).tolist())
    save_autoencoder(tmp_path / "a.safetensors", coder, coder.card)
    with pytest.raises(InputError, match=r"latent\.autoencoder: .* unit variance, got a root mean square of") as caught:
        load_data(latent_settings(images, trained, latent={"autoencoder": str(tmp_path / "a.safetensors")}))
    said = float(str(caught.value).partition("root mean square of ")[2].partition(";")[0])
    assert said == pytest.approx(factor, rel=0.05)      # the autoencoder's own is one over all of its images


@pytest.mark.parametrize(("changes", "message"), [
    ({"network": {"kind": "dit", "channels": 3, "patch": 1, "width": 16, "depth": 1, "heads": 1}}, "expected 2, as the"),
    ({"latent": {"autoencoder": "nowhere"}}, "expected the .safetensors file"),
    ({"loss": {"kind": "hybrid"}}, "hybrid learns variances, and nothing asks a prior of latents for them"),
])
def test_settings_that_do_not_fit(changes, message, images, trained):
    with pytest.raises(InputError, match=message):
        load_data(latent_settings(images, trained, **changes))


def test_sides_that_cannot_be_halved_are_refused(images, tmp_path):
    with pytest.raises(InputError, match="multiples of 16, got 8 x 8"):
        train_autoencoder(settings(images, network={"latent_channels": 2, "widths": [4] * 4, "depths": [1] * 4}), tmp_path)
