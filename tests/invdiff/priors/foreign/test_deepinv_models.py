"""deepinv's pretrained denoisers: the same weights as deepinv takes, without its unpickling."""

import urllib.error

import deepinv
import pytest
import torch
from foreign_files import Reference, hostile, randomised

from invdiff import InputError, load_prior
from invdiff.priors.foreign.deepinv_models import ALIASES, CHECKPOINTS, build

LIGHT = ["dncnn", "dncnn-gray", "ffdnet", "ffdnet-gray"]        # of these the whole network is quick to make


class Asked(Exception):
    """deepinv wants to download."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch's, and no network."""
    def fail(url, path, *arguments, **options):
        raise urllib.error.URLError("offline")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def file_of(name):
    return CHECKPOINTS[name].url.rpartition("/")[2].partition("?")[0]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_weights_are_those_that_deepinv_would_download(name, monkeypatch):
    asked = []

    def note(url, *arguments, file_name=None, **options):
        asked.append((url, file_name or file_name_of(url)))
        raise Asked

    def file_name_of(url):
        return url.rpartition("/")[2].partition("?")[0]

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", note)
    entry = CHECKPOINTS[name]
    if entry.model in ("SCUNet", "Restormer"):
        pytest.importorskip("einops", reason="needs the package einops")
    on_meta = entry.model not in ("SCUNet", "SwinIR", "GSDRUNet")
    with pytest.raises(Asked), torch.device("meta" if on_meta else "cpu"):
        build(entry, entry.pretrained)
    assert asked == [(entry.url, file_of(name))]


@pytest.mark.parametrize("name", LIGHT)
def test_a_saved_state_dict_is_loaded(name, hub):
    network = randomised(build(CHECKPOINTS[name]))
    torch.save(network.state_dict(), hub / file_of(name))
    prior = load_prior(f"deepinv:{name}")
    x = torch.rand(2, CHECKPOINTS[name].channels, 16, 16)
    sigma = 2 / 255
    torch.testing.assert_close(prior(x, sigma), network(x, sigma=sigma))
    assert prior.card["source"].endswith(file_of(name) + "?download=true")
    assert prior(torch.rand(1, 1, 15, 17), torch.tensor([0.3])).isfinite().all()


def test_a_network_of_one_level_is_asked_at_that_level(hub):
    """DnCNN was trained at 2/255: from stronger noise, the same denoiser sees an image shrunk towards grey."""
    network = randomised(build(CHECKPOINTS["dncnn"]))
    torch.save(network.state_dict(), hub / file_of("dncnn"))
    x = torch.rand(1, 3, 16, 16)
    got = load_prior("deepinv:dncnn")(x, 8 / 255)
    torch.testing.assert_close(got, network(0.5 + (x - 0.5) / 4))


@pytest.mark.parametrize("name", ["drunet", "gsdrunet", "ram", "scunet"])
def test_larger_networks_take_a_batch_of_levels(name, tmp_path):
    """Through a file of one's own, and with a batch of two levels, as samplers ask."""
    if name == "scunet":
        pytest.importorskip("einops", reason="needs the package einops")
    network = build(CHECKPOINTS[name], pretrained=None).eval()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "mine.pth")
    prior = load_prior(f"deepinv:{name}?weights={tmp_path / 'mine.pth'}")
    x, sigma = torch.rand(2, 3, 32, 32), torch.tensor([0.05, 0.15])
    both = prior(x, sigma)
    torch.testing.assert_close(both[1:], prior(x[1:], 0.15), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(both, network(x, sigma=sigma).detach(), rtol=1e-3, atol=1e-4)


def test_the_ffhq_network_is_deepinv_s(tmp_path):
    entry = CHECKPOINTS["ncsnpp-ffhq64"]
    network = randomised(build(entry), std=0.02)
    torch.save(network.state_dict(), tmp_path / "ffhq.pt")
    prior = load_prior(f"deepinv:ncsnpp-ffhq64?weights={tmp_path / 'ffhq.pt'}")
    x = torch.rand(1, 3, 64, 64)
    theirs = deepinv.models.NCSNpp(pretrained=None, _was_trained_on_minus_one_one=True, pixel_std=0.5)
    theirs.load_state_dict(network.state_dict())
    torch.testing.assert_close(prior(x, 0.3), theirs(x, 0.3).detach())


@pytest.mark.parametrize("name", ["diffunet", "diffunet-imagenet"])
def test_a_diffusion_network_is_asked_for_the_noise_at_the_step_of_a_level(name, tmp_path):
    """Its weights alone, as files have them, or with what deepinv's network keeps beside them."""
    network = randomised(Reference(width=64, mult=(1, 1), depth=1, attention=(2,), head_channels=64), std=0.02)
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    alpha, beta = float(abar[300].sqrt()), float((1 - abar[300]).sqrt())
    x, sigma = torch.rand(2, 3, 16, 32), beta / alpha / 2
    expected = x - sigma * network(alpha * (2 * x - 1), torch.tensor([300, 300]))[:, :3]
    beside = {"sqrt_1m_alphas_cumprod": (1 - abar).sqrt(), "sqrt_alphas_cumprod": abar.sqrt()}
    for more in ({}, beside):
        torch.save(network.state_dict() | more, tmp_path / "mine.pt")
        prior = load_prior(f"deepinv:{name}?weights={tmp_path / 'mine.pt'}")
        torch.testing.assert_close(prior(x, sigma), expected, rtol=1e-4, atol=1e-4)
    assert prior.card["source"].endswith(file_of(name) + "?download=true")
    assert prior.card["sigma_range"] == pytest.approx([0.005, 78.7], rel=1e-3)
    assert prior(torch.rand(1, 1, 15, 17), torch.tensor([0.3])).isfinite().all()


def test_weights_that_deepinv_takes_loosely_are_still_those_of_the_network(tmp_path):
    """deepinv loads RAM's with strict=False; one name more or less must do, another network must not."""
    state = build(CHECKPOINTS["ram"]).state_dict()
    first = next(iter(state))
    renamed = {("another" if key == first else key): value for key, value in state.items()}
    torch.save(renamed, tmp_path / "ram.pt")
    assert load_prior(f"deepinv:ram?weights={tmp_path / 'ram.pt'}").channels is None
    torch.save(build(CHECKPOINTS["dncnn"]).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match="tensors are missing"):
        load_prior(f"deepinv:ram?weights={tmp_path / 'other.pt'}")


def test_offline_one_line_says_what_to_fetch_and_where_it_goes(hub):
    with pytest.raises(InputError) as caught:
        load_prior("deepinv:drunet")
    message = str(caught.value)
    assert CHECKPOINTS["drunet"].url in message
    assert str(hub / "drunet_deepinv_color_finetune_22k.pth") in message
    assert "\n" not in message


def test_unknown_names_list_what_there_is():
    with pytest.raises(InputError, match="did you mean 'drunet'"):
        load_prior("deepinv:drunett")
    with pytest.raises(InputError, match="known: adm-imagenet64"):
        load_prior("deepinv:xyz")
    assert set(ALIASES.values()) <= set(CHECKPOINTS)


@pytest.mark.parametrize("kind", ["zip", "old", "plain", "other", "truncated"])
def test_a_bad_file_in_the_cache_is_an_input_error_and_runs_nothing(hub, tmp_path, kind):
    path = hub / file_of("dncnn")
    if kind in ("other", "truncated"):
        torch.save(build(CHECKPOINTS["ffdnet"]).state_dict(), path)
        path.write_bytes(path.read_bytes()[: 1000 if kind == "truncated" else None])
    else:
        hostile(path, tmp_path / "victim", kind)
    with pytest.raises(InputError) as caught:
        load_prior("deepinv:dncnn")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "victim").exists()


def test_a_class_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_prior(f"deepinv:adm-imagenet64?class=3&weights={tmp_path / 'none.pt'}")
    with pytest.raises(InputError, match="unknown option 'klass'"):
        load_prior("deepinv:adm-imagenet64?klass=3")
