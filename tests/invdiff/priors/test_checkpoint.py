import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

import invdiff.priors.checkpoint as checkpoint
from invdiff.errors import InputError
from invdiff.evaluation.generative.classifier import load_classifier
from invdiff.io import files
from invdiff.priors import load_prior
from invdiff.priors.autoencoder import load_autoencoder
from invdiff.priors.checkpoint import load_checkpoint, read_card, save_prior, write_tensors
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.latent import load_latent_prior
from invdiff.priors.unet import UNet

ARCHITECTURE = {"channels": 3, "widths": [8, 8], "depths": [1, 1], "embedding": 16}
CARD = {"name": "tiny", "architecture": ARCHITECTURE, "preconditioning": {"sigma_data": 0.2, "centre": 0.4},
        "spectrum": {"sigmas": [0.1, 1.0], "frequencies": [0.0, 0.5], "power": [[[0.01, 0.02]] * 3, [[0.3, 0.4]] * 3],
                     "source": "made up"},
        "data": "Grüße, 画像", "licence": None}


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    network = UNet(**ARCHITECTURE)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return EDMDenoiser(network, 3, **CARD["preconditioning"])


@pytest.fixture
def path(denoiser, tmp_path):
    path = tmp_path / "deep" / "tiny.safetensors"
    save_prior(path, denoiser, CARD)
    return path


def test_round_trip_within_half_precision(denoiser, path):
    loaded = load_checkpoint(path)
    for name, value in denoiser.network.state_dict().items():
        got = loaded.network.state_dict()[name]
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, value, rtol=2**-11, atol=2**-25)           # half an ulp, normal and subnormal
    assert (loaded.sigma_data, loaded.centre, loaded.channels) == (0.2, 0.4, 3)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(loaded(x, 0.3), denoiser(x, 0.3), rtol=0, atol=2e-3)


def test_the_card_survives(path):
    assert load_checkpoint(path).card == CARD == read_card(path)
    spectrum = load_prior(path).error_spectrum(3)
    assert spectrum.source == "made up"
    assert spectrum.power.shape == (2, 3, 2)
    assert load_prior(path).error_spectrum(1) is None                              # no grey spectrum on this card


def test_saving_what_was_loaded_changes_nothing(path, tmp_path):
    loaded = load_checkpoint(path)
    save_prior(tmp_path / "again.safetensors", loaded, loaded.card)
    (old, old_card), (new, new_card) = (checkpoint.read_tensors(p) for p in (path, tmp_path / "again.safetensors"))
    assert old_card == new_card
    assert old.keys() == new.keys()
    assert all(torch.equal(old[k], new[k]) for k in old)


def spoil(path, kind):
    data = path.read_bytes()
    network = UNet(**ARCHITECTURE)
    weights = {k: v.clone() for k, v in network.state_dict().items()}

    def card(**changes):
        save_file(weights, path, metadata={"format": checkpoint.FORMAT, "card": json.dumps(CARD | changes)})

    match kind:
        case "missing":
            path.unlink()
        case "truncated header":
            path.write_bytes(data[:100])
        case "truncated weights":
            path.write_bytes(data[:-50])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("not a prior at all, but quite a long text\n" * 20)
        case "pickle":
            torch.save(weights, path)
        case "folder":
            path.unlink()
            path.mkdir()
        case "no card":
            save_file(weights, path)
        case "broken card":
            save_file(weights, path, metadata={"format": checkpoint.FORMAT, "card": "{"})
        case "other format":
            save_file(weights, path, metadata={"format": "invdiff-prior-99", "card": json.dumps(CARD)})
        case "wider architecture":
            card(architecture=ARCHITECTURE | {"widths": [8, 16]})
        case "deeper architecture":
            card(architecture=ARCHITECTURE | {"depths": [1, 2]})
        case "unknown architecture":
            card(architecture={"attention": True} | ARCHITECTURE)
        case "no architecture":
            card(architecture=None)
        case "list of widths missing":
            card(architecture=ARCHITECTURE | {"widths": []})
        case "unknown preconditioning":
            card(preconditioning={"sigma": 1})
        case "a spectrum of another shape":
            card(spectrum={"sigmas": [0.1, 1.0], "frequencies": [0.0, 0.5], "power": [[[1.0, 1.0]]], "source": "x"})
        case "a spectrum in words":
            card(spectrum="flat")
        case "a card that is a list":
            save_file(weights, path, metadata={"format": checkpoint.FORMAT, "card": "[1]"})
        case "a spread that is none":
            card(preconditioning={"sigma_data": -0.2, "centre": 0.4})
        case "no levels at all":
            card(architecture=ARCHITECTURE | {"widths": [], "depths": []})
        case "a falling range":
            card(sigma_range=[1.0, 0.1])
        case "a size in words":
            card(image_size="big")
        case "a size of three numbers":
            card(image_size=[28, 28, 28])
        case "sampling in a word":
            card(sampling="ddim")
        case "weights that are not finite":
            weights["stem.bias"][0] = float("nan")
            card()


@pytest.mark.parametrize("kind", ["missing", "truncated header", "truncated weights", "empty", "text", "pickle", "folder",
                                  "no card", "broken card", "other format", "wider architecture", "deeper architecture",
                                  "unknown architecture", "no architecture", "list of widths missing",
                                  "unknown preconditioning", "a spectrum of another shape", "a spectrum in words",
                                  "a card that is a list", "a spread that is none", "no levels at all",
                                  "a falling range", "a size in words", "a size of three numbers",
                                  "sampling in a word", "weights that are not finite"])
def test_a_bad_file_is_an_input_error_that_names_it(path, kind):
    spoil(path, kind)
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "truncated header", "text", "pickle", "no card", "broken card",
                                  "a card that is a list"])
def test_a_bad_file_has_no_card(path, kind):
    spoil(path, kind)
    with pytest.raises(InputError) as caught:
        read_card(path)
    assert str(path) in str(caught.value)


def test_a_failed_write_leaves_the_old_file_and_no_litter(path, denoiser, monkeypatch):
    before = path.read_bytes()

    def fail(tensors, filename, metadata):
        filename.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(InputError, match=r"tiny\.safetensors: cannot be written \(disk full\)"):
        save_prior(path, denoiser, CARD)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_is_full_is_an_input_error(path, denoiser, monkeypatch):
    """safetensors' own error is no OSError."""
    def fail(tensors, filename, metadata):
        raise SafetensorError("Error while serializing: I/O error: File too large (os error 27)")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(InputError, match=r"tiny\.safetensors: cannot be written .*File too large.*; raise the limit"):
        save_prior(path, denoiser, CARD)


@pytest.mark.parametrize("value", [float("nan"), 1e5])
def test_what_is_no_number_in_half_precision_is_not_written(path, denoiser, value):
    before = path.read_bytes()
    with torch.no_grad():
        denoiser.network.stem.bias.fill_(value)
    with pytest.raises(InputError, match=r"tiny\.safetensors: is not written, as stem\.bias holds NaN or infinity"):
        save_prior(path, denoiser, CARD)
    assert path.read_bytes() == before


def test_the_name_appears_only_when_the_file_is_whole(tmp_path, monkeypatch):
    """Whatever is written, it is written elsewhere first: at the rename the new file is complete and the old one there."""
    path, seen = tmp_path / "x.safetensors", []
    write_tensors(path, {"a": torch.zeros(3)}, {})
    replace = files.os.replace

    def spy(source, target):
        seen.append((checkpoint.read_tensors(source)[0]["a"], checkpoint.read_tensors(target)[0]["a"]))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", spy)
    write_tensors(path, {"a": torch.ones(3)}, {})
    ((new, old),) = seen
    assert (new == 1).all()
    assert (old == 0).all()


KL = {"kind": "kl", "channels": 1, "latent_channels": 2, "widths": [8, 8], "depths": [1, 1]}
CLASSIFIER = {"widths": [8, 8], "depths": [1, 1]}
CLAIMS = [      # loader, format, and the card around an architecture
    (load_checkpoint, "invdiff-prior-1", ARCHITECTURE, lambda a: {"architecture": a}),
    (load_latent_prior, "invdiff-latent-prior-1", ARCHITECTURE, lambda a: {"architecture": a}),
    (load_autoencoder, "invdiff-autoencoder-1", KL, lambda a: {"architecture": a}),
    (load_classifier, "invdiff-classifier-1", CLASSIFIER, lambda a: {"architecture": a})]


@pytest.mark.parametrize(("load", "form", "architecture", "card"), CLAIMS)
def test_a_file_that_claims_a_large_network_takes_no_memory_or_time(load, form, architecture, card, tmp_path, monkeypatch):
    """Names and shapes are compared before a network takes memory, and more blocks than any has are not built at all."""
    path, built = tmp_path / "claims.safetensors", set()
    reset = torch.nn.Conv2d.reset_parameters
    monkeypatch.setattr(torch.nn.Conv2d, "reset_parameters", lambda layer: built.add(layer.weight.device.type) or reset(layer))
    for changes, said in (({}, "do not match"), ({"depths": [65, 1]}, "64"), ({"depths": [1] * 9, "widths": [1] * 9}, "8")):
        save_file({"a": torch.zeros(1)}, path, metadata={"format": form, "card": json.dumps(card(architecture | changes))})
        with pytest.raises(InputError, match=f"claims.safetensors: not an? .*{said}"):
            load(path)
    assert built == {"meta"}


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(InputError, match=r"prior: no prior is called 'nature_'; shipped are .*\.safetensors file"):
        load_prior("nature_")
