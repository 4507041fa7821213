import pytest
import torch

from invdiff.priors.checkpoint import load_checkpoint, save_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.networks import build_network

NETWORKS = {
    "unet": {"widths": [8, 8], "depths": [1, 1], "embedding": 16},
    "dit": {"patch": 4, "width": 32, "depth": 1, "heads": 2},
    "ncsnpp": {"img_resolution": 16, "model_channels": 32, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [8]},
    "adm": {"img_resolution": 16, "model_channels": 32, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [8]},
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_channels_any_size_any_network_through_a_file(kind, channels, tmp_path):
    """A denoiser of each kind, random, on an odd size; the same from its file, within half precision."""
    torch.manual_seed(0)
    architecture = {"kind": kind, "channels": channels, **NETWORKS[kind]}
    denoiser = EDMDenoiser(build_network(architecture), channels).eval()
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x = torch.rand(2, channels, 13, 22)
    sigma = torch.tensor([0.1, 2.0])
    card = {"architecture": architecture, "preconditioning": {"sigma_data": 0.25, "centre": 0.5}}
    save_prior(tmp_path / "x.safetensors", denoiser, card)
    loaded = load_checkpoint(tmp_path / "x.safetensors")
    with torch.no_grad():
        out = denoiser(x, sigma)
        assert out.shape == x.shape
        assert (out - x).abs().max() > 1e-3
        torch.testing.assert_close(loaded(x, sigma), out, rtol=0, atol=2e-2)


@pytest.mark.parametrize("kind", ["ncsnpp", "adm"])
def test_deepinv_s_networks_are_the_ones_inside_its_denoisers(kind):
    """Around them EDM's preconditioning, ours or theirs: the same denoiser."""
    torch.manual_seed(0)
    network = build_network({"kind": kind, "channels": 3, **NETWORKS[kind]}).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    theirs, ours = network.model, EDMDenoiser(network, 3, sigma_data=network.model.pixel_std, centre=0.0)
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, 0.4), theirs(x, 0.4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("architecture", "message"), [
    ({"kind": "resnet"}, "unet"), ({"kind": "dit", "widths": [8]}, "widths"), ({"kind": "adm", "model_channels": 33}, "32"),
])
def test_what_is_no_architecture_is_refused(architecture, message):
    with pytest.raises(ValueError, match=message):
        build_network(architecture)


def test_a_card_without_a_kind_is_a_unet_s():
    assert type(build_network(NETWORKS["unet"])).__name__ == "UNet"
