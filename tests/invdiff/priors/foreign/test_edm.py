"""NCSN++, DDPM++ and ADM with EDM's names, against deepinv's networks, which have the same, and EDM's preconditioning."""

import pytest
import torch
from deepinv.models import ADMUNet, NCSNpp
from foreign_files import hostile, randomised
from safetensors.torch import save_file

from invdiff import InputError, load_prior
from invdiff.sampling import image_size

SMALL = {"img_resolution": 16, "model_channels": 32, "num_blocks": 1, "attn_resolutions": (8,), "pretrained": None}
NETWORKS = {
    "ncsn": lambda **more: NCSNpp(**{**SMALL, "channel_mult": (1, 2), "augment_dim": 9, **more}),
    "ddpm": lambda **more: NCSNpp(**{**SMALL, "model_type": "ddpm", "channel_mult": (2, 2, 2), "augment_dim": 0, **more}),
    "adm": lambda **more: ADMUNet(**{**SMALL, "model_channels": 64, "channel_mult": (1, 2), "num_blocks": 2, **more}),
    "narrow": lambda **more: ADMUNet(**{**SMALL, "channel_mult": (2, 4), "channel_mult_emb": 2, "in_channels": 1,
                                        "out_channels": 1, "attn_resolutions": (16,), **more}),
}


def write(path, network, prefix="model."):
    save_file({prefix + k: v.contiguous() for k, v in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("prefix", ["model.", ""])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_denoiser_is_edm_s(kind, prefix, tmp_path):
    """Karras et al. 2022, Eq. 7 and Table 1, on 2 x - 1 and 2 sigma, with sigma_data 0.5."""
    network = randomised(NETWORKS[kind]())
    prior = load_prior(f"edm:{write(tmp_path / 'net.safetensors', network, prefix)}")
    x, sigma = torch.rand(2, prior.channels, 16, 16), torch.tensor([0.05, 3.0])
    s, z = 2 * sigma.reshape(-1, 1, 1, 1), 2 * x - 1
    total = s.square() + 0.25
    raw = network.forward_unet(z / total.sqrt(), (2 * sigma).log() / 4)
    expected = (z * 0.25 / total + raw * s * 0.5 / total.sqrt() + 1) / 2
    torch.testing.assert_close(prior(x, sigma), expected, rtol=1e-4, atol=1e-4)
    assert prior(torch.rand(1, prior.channels, 9, 21), 0.1).shape == (1, prior.channels, 9, 21)
    assert torch.equal(prior(x, 0.0), x)
    assert image_size(prior) == (16, 16)


@pytest.mark.parametrize("kind", ["ncsn", "adm"])
def test_a_class_is_one_hot(kind, tmp_path):
    network = randomised(NETWORKS[kind](label_dim=4))
    path = write(tmp_path / "net.safetensors", network)
    prior = load_prior(f"edm:{path}?class=2")
    x = torch.rand(2, 3, 16, 16)
    network._was_trained_on_minus_one_one, network.pixel_std = True, 0.5
    labels = torch.tensor([[0, 0, 1.0, 0]]).expand(2, -1)
    torch.testing.assert_close(prior(x, 0.3), network(x, 0.3, class_labels=labels), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"expected \?class=0 to \?class=3"):
        load_prior(f"edm:{path}")


@pytest.mark.parametrize("kind", ["missing", "truncated", "text", "no network", "missing tensor", "wrong shape", "odd width"])
def test_a_bad_file_is_an_input_error(tmp_path, kind):
    path = tmp_path / "net.safetensors"
    state = {k: v.contiguous() for k, v in NETWORKS["ncsn"]().state_dict().items()}
    match kind:
        case "no network":
            state = {"weight": torch.zeros(3)}
        case "missing tensor":
            del state["dec.16x16_block0.conv0.weight"]
        case "wrong shape":
            state["enc.8x8_block0.conv0.weight"] = torch.zeros(64, 7, 3, 3)
        case "odd width":
            state["enc.8x8_block0.conv1.weight"] = torch.zeros(33, 33, 3, 3)
    save_file(state, path)
    match kind:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(path.read_bytes()[:-64])
        case "text":
            path.write_text("no network " * 100)
    with pytest.raises(InputError) as caught:
        load_prior(f"edm:{path}")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["net.pkl", "net.safetensors", "net.pt"])
def test_a_pickle_is_refused_and_not_executed(tmp_path, name):
    path = hostile(tmp_path / name, tmp_path / "victim", "plain")
    with pytest.raises(InputError, match="net"):
        load_prior(f"edm:{path}")
    assert not (tmp_path / "victim").exists()
    with pytest.raises(InputError, match=r"docs/priors\.md shows"):
        load_prior(f"edm:{tmp_path / 'other.pkl'}")
