"""Autoencoders and priors of latents: their faces, their files, and what is wrong with a file."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from invdiff import InputError, load_prior
from invdiff.priors import EDMDenoiser, Guided, LatentPrior, spectrum_records
from invdiff.priors.autoencoder import Autoencoder, load_autoencoder, save_autoencoder
from invdiff.priors.checkpoint import read_tensors, write_tensors
from invdiff.priors.latent import latent_of, save_latent_prior
from invdiff.priors.networks import build_network

ARCHITECTURE = {"kind": "dit", "channels": 3, "patch": 1, "width": 32, "depth": 1, "heads": 2, "classes": 4}


def autoencoder(seed=0, channels=1):
    torch.manual_seed(seed)
    made = Autoencoder(channels, latent_channels=3, widths=(8, 12), depths=(1, 1))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    made.standardise([0.5, -1.0, 0.0], [2.0, 0.5, 1.0])
    return made.eval()


def latent_file(path, **changes):
    torch.manual_seed(1)
    network = build_network(ARCHITECTURE)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    card = {"name": "toy", "architecture": ARCHITECTURE, "preconditioning": {"sigma_data": 1.0, "centre": 0.0},
            "sigma_range": [0.002, 80.0], "image_size": [28, 20], "classes": list("abcd"), **changes}
    coder = autoencoder()
    coder.card = {"name": "toy-autoencoder", "psnr": {"mean": 26.0}}
    save_latent_prior(path, EDMDenoiser(network, 3, 1.0, 0.0), coder, card)
    return path


@pytest.mark.parametrize("size", [(28, 28), (12, 20)])
def test_shapes_and_one_image_at_a_time(size):
    coder = autoencoder()
    x = torch.rand(3, 1, *size)
    z = coder.encode(x)
    assert coder.factor == 4
    assert z.shape == (3, 3, size[0] // 4, size[1] // 4)
    assert coder.decode(z).shape == x.shape
    torch.testing.assert_close(coder.decode(coder.encode(x[1:2])), coder.decode(z)[1:2], rtol=0, atol=1e-4)


def test_standardising_does_not_change_what_comes_back():
    coder, x = autoencoder(), torch.rand(2, 1, 12, 12)
    raw, back = coder.moments(x)[0], coder.decode(coder.encode(x))
    coder.standardise(raw.mean((0, 2, 3)).tolist(), raw.std((0, 2, 3)).tolist())
    z = coder.encode(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(3))
    torch.testing.assert_close(coder.decode(z), back, rtol=0, atol=1e-5)


def test_an_autoencoder_comes_back_from_its_file(tmp_path):
    """To half precision, with the means and scales of its latents whole."""
    coder, x = autoencoder(), torch.rand(2, 1, 12, 12)
    save_autoencoder(tmp_path / "a.safetensors", coder, {"name": "a"})
    again = load_autoencoder(tmp_path / "a.safetensors")
    assert again.card["name"] == "a"
    assert torch.equal(again.scale, coder.scale)
    torch.testing.assert_close(again.decode(again.encode(x)), coder.decode(coder.encode(x)), rtol=0, atol=0.02)


def test_a_prior_of_latents_is_one_file(tmp_path):
    prior = load_prior(latent_file(tmp_path / "toy.safetensors"))
    assert isinstance(prior, LatentPrior)
    assert (prior.latent, prior.channels, prior.classes) == (True, 1, 4)
    assert prior.latent_shape((28, 20)) == (3, 7, 5)
    assert prior.error == pytest.approx(0.0501, abs=1e-4)
    z, classes = torch.randn(2, 3, 7, 5), torch.tensor([0, 3])
    assert not torch.equal(prior(z, 1.0, classes), prior(z, 1.0))
    assert torch.equal(prior(z, 1.0, classes=classes), prior(z, 1.0, classes))
    torch.testing.assert_close(prior(z, torch.tensor([0.3, 5.0]), classes)[1:], prior(z[1:], 5.0, classes[1:]))
    assert prior.decode(z).shape == (2, 1, 28, 20)


def test_a_class_after_the_name_guides_it(tmp_path):
    prior = load_prior(f"{latent_file(tmp_path / 'toy.safetensors')}?class=c&guidance=2")
    assert isinstance(prior, Guided)
    assert latent_of(prior).latent_shape((28, 20)) == (3, 7, 5)
    assert prior(torch.randn(2, 3, 7, 5), 1.0).isfinite().all()
    assert latent_of(prior.prior.denoiser) is None


def test_images_are_refused(tmp_path):
    prior = load_prior(latent_file(tmp_path / "toy.safetensors"))
    with pytest.raises(InputError, match=r"it is one of latents.*psld, resample"):
        prior(torch.rand(1, 1, 28, 28), 0.1)
    with pytest.raises(InputError, match="multiples of 4, got 30 x 28"):
        prior.latent_shape((30, 28))


@pytest.mark.parametrize("load", [load_prior, load_autoencoder])
def test_files_that_are_wrong(load, tmp_path):
    path = latent_file(tmp_path / "toy.safetensors")
    if load is load_autoencoder:
        path = tmp_path / "a.safetensors"
        save_autoencoder(path, autoencoder(), {})
    tensors, metadata = read_tensors(path)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated"):
        load(tmp_path / "cut.safetensors")
    write_tensors(tmp_path / "few.safetensors", dict(list(tensors.items())[1:]), metadata)
    with pytest.raises(InputError, match="do not match"):
        load(tmp_path / "few.safetensors")
    card = json.loads(metadata["card"])
    (card.get("autoencoder") or card)["architecture"]["kind"] = "other"
    write_tensors(tmp_path / "kind.safetensors", tensors, {**metadata, "card": json.dumps(card)})
    with pytest.raises(InputError, match="unknown kind 'other'"):
        load(tmp_path / "kind.safetensors")
    write_tensors(tmp_path / "format.safetensors", tensors, {**metadata, "format": "other"})
    with pytest.raises(InputError, match="format"):
        load(tmp_path / "format.safetensors")


SPECTRUM = {"sigmas": [0.1, 1.0], "frequencies": [0.0, 0.5], "power": [[[0.1, 0.1]], [[0.2, 0.2]]], "source": "x"}


@pytest.mark.parametrize(("changes", "said"), [
    ({"sigma_range": [5, -1]}, "sigma_range"), ({"spectrum": {"sigmas": [1.0]}}, "frequencies"),
    ({"spectrum": SPECTRUM | {"sigmas": [1.0, 0.1]}}, "do not rise"), ({"preconditioning": {"sigma_data": "wide"}}, "str"),
    ({"autoencoder": {"mean": [0.0]}}, "expected 3 numbers"),
    ({"autoencoder": {"scale": [1.0, 0.0, 1.0]}}, "expected 3 numbers"), ({"autoencoder": None}, "NoneType"),
    ({"psnr": 26}, "subscriptable"),
    ({"nan": "network.stem.weight"}, "stem.weight holds NaN"), ({"nan": "autoencoder.encoder.1.weight"}, "holds NaN")])
def test_what_a_run_would_find_out_in_its_midst_is_found_as_it_is_loaded(changes, said, tmp_path):
    path = latent_file(tmp_path / "toy.safetensors", spectrum=SPECTRUM)
    load_prior(path)
    tensors, metadata = read_tensors(path)
    card = json.loads(metadata["card"])
    if "nan" in changes:
        tensors[changes["nan"]].fill_(float("nan"))
    elif "psnr" in changes:
        card["autoencoder"]["psnr"] = changes["psnr"]
    elif "autoencoder" in changes:
        card["autoencoder"]["architecture"] = changes["autoencoder"] and {**card["autoencoder"]["architecture"],
                                                                          **changes["autoencoder"]}
    else:
        card |= changes
    save_file(tensors, path, {**metadata, "card": json.dumps(card)})
    with pytest.raises(InputError, match=f"toy.safetensors: not a prior of latents.*{said}"):
        load_prior(path)


def test_a_spectrum_of_images_is_not_for_latents(tmp_path):
    path = latent_file(tmp_path / "toy.safetensors")
    spectrum_records.write_record(tmp_path / "mine.json", {"format": spectrum_records.FORMAT, "spectrum": SPECTRUM})
    with pytest.warns(UserWarning, match="other weights"), pytest.raises(InputError, match="is for a prior of images"):
        load_prior(f"{path}?spectrum={tmp_path / 'mine.json'}")


def test_a_name_that_is_no_autoencoder():
    with pytest.raises(InputError, match=r"expected the \.safetensors file"):
        load_autoencoder("runs/autoencoder")
