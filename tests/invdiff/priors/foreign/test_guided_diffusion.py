"""State dicts of guided-diffusion, against networks put together from deepinv's blocks, which have the same names."""

import pytest
import torch
from deepinv.models import DiffUNet
from foreign_files import Reference, hostile, randomised
from torch import nn

from invdiff import InputError, load_prior
from invdiff.diffusion.schedules import linear_chain
from invdiff.priors.foreign.adm import ADM, Heads
from invdiff.priors.foreign.vp import VPDenoiser

VARIANTS = {
    "ffhq": ({"mult": (1, 1, 2), "depth": 1, "attention": (4,)}, "head_channels=16"),
    "imagenet": ({}, "head_channels=16"),
    "class-conditional": ({"classes": 7}, "head_channels=16&class=5"),
    "convolutions": ({"updown": False, "scale_shift": False}, "head_channels=16"),
    "heads": ({"heads": 4, "attention": (1, 2)}, "heads=4"),
    "new order": ({"new_order": True}, "head_channels=16&attention=new"),
    "one level": ({"mult": (2,), "attention": ()}, "head_channels=16"),
    "noise alone": ({"out": 3, "depth": 3}, "head_channels=16"),
}


def saved(tmp_path, reference):
    path = tmp_path / "model.pt"
    torch.save(reference.state_dict(), path)
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_gives_what_the_reference_gives(variant, tmp_path):
    arguments, options = VARIANTS[variant]
    reference = randomised(Reference(**arguments))
    prior = load_prior(f"guided-diffusion:{saved(tmp_path, reference)}?{options}")
    x, t = torch.randn(2, 3, 16, 24), torch.tensor([3.0, 700.5])
    label = torch.tensor([5, 5]) if "classes" in arguments else None
    torch.testing.assert_close(prior.model.network(x, t), reference(x, t, label), rtol=1e-4, atol=1e-4)
    assert prior(torch.rand(1, 3, 17, 10), 0.2).shape == (1, 3, 17, 10)
    assert prior.card["channels"] == 3


def test_the_noise_becomes_an_image():
    """x0 = (x_t - sqrt(1 - abar) n) / sqrt(abar), at a level of the schedule, in [0, 1]."""
    reference = randomised(Reference())
    torch.manual_seed(1)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = float((1 - betas).cumprod(0)[400])
    sigma = ((1 - abar) / abar) ** 0.5 / 2
    x = torch.rand(1, 3, 16, 16) + sigma * torch.randn(1, 3, 16, 16)
    z = abar**0.5 * (2 * x - 1)
    noise = reference(z, torch.tensor([400]))[:, :3]
    expected = ((z - (1 - abar) ** 0.5 * noise) / abar**0.5 + 1) / 2
    network = ADM(reference.state_dict(), Heads(16))
    network.load_state_dict(reference.state_dict())
    torch.testing.assert_close(VPDenoiser(network, linear_chain())(x, torch.tensor([sigma])), expected, rtol=1e-3, atol=1e-3)


def test_deepinv_s_own_network_and_denoiser(tmp_path):
    """DiffUNet as it is, with FFHQ's architecture: the default options must be right for it."""
    theirs = randomised(DiffUNet(pretrained=None), std=0.02)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("sqrt_")}
    torch.save(state, tmp_path / "ffhq.pt")
    prior = load_prior(f"guided-diffusion:{tmp_path / 'ffhq.pt'}")
    x, t = torch.randn(1, 3, 64, 64), torch.tensor([321])
    torch.testing.assert_close(prior.model.network(x, t), theirs.forward_diffusion(x, t), rtol=1e-3, atol=1e-3)


def test_a_class_is_asked_for(tmp_path):
    path = saved(tmp_path, Reference(classes=7))
    for options in ("head_channels=16", "head_channels=16&class=7", "head_channels=16&class=cat"):
        with pytest.raises(InputError, match=r"expected \?class=0 to \?class=6"):
            load_prior(f"guided-diffusion:{path}?{options}")
    with pytest.raises(InputError, match="knows no classes"):
        load_prior(f"guided-diffusion:{saved(tmp_path, Reference())}?head_channels=16&class=1")


@pytest.mark.parametrize("options", ["schedule=quadratic", "heads=0", "steps=3", "head_channels=24", "speed=1", "heads"])
def test_wrong_options(tmp_path, options):
    with pytest.raises(InputError) as caught:
        load_prior(f"guided-diffusion:{saved(tmp_path, Reference())}?{options}")
    assert "\n" not in str(caught.value)


def test_other_schedules_have_other_levels(tmp_path):
    path = saved(tmp_path, Reference())
    ranges = [load_prior(f"guided-diffusion:{path}?head_channels=16{more}").card["sigma_range"]
              for more in ("", "&schedule=cosine", "&steps=4000")]
    assert ranges[0] == pytest.approx([0.005, 78.7], rel=0.01)
    assert ranges[1][1] > 100
    assert ranges[2][0] < ranges[0][0]


def spoil(state, kind):
    match kind:
        case "missing tensor":
            del state["input_blocks.1.0.out_layers.3.bias"]
        case "missing block":
            return {k: v for k, v in state.items() if not k.startswith("input_blocks.3.")}
        case "wrong shape":
            state["input_blocks.2.0.in_layers.2.weight"] = torch.zeros(96, 32, 3, 3)
        case "wrong embedding":
            state["time_embed.2.weight"] = torch.zeros(64, 64)
        case "upsampler":
            state["input_blocks.0.0.weight"] = torch.zeros(32, 6, 3, 3)
        case "extra tensor":
            state["input_blocks.1.0.gate"] = torch.zeros(3)
        case "another network":
            return nn.Sequential(nn.Conv2d(3, 3, 3)).state_dict()
        case "no mapping":
            return [torch.zeros(3)]
        case "empty":
            return {}
    return state


@pytest.mark.parametrize("kind", ["missing tensor", "missing block", "wrong shape", "wrong embedding", "extra tensor",
                                  "upsampler", "another network", "no mapping", "empty"])
def test_a_mislabelled_file_is_an_input_error(tmp_path, kind):
    path = tmp_path / "bad.pt"
    torch.save(spoil(Reference().state_dict(), kind), path)
    with pytest.raises(InputError) as caught:
        load_prior(f"guided-diffusion:{path}?head_channels=16")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["truncated", "text", "nothing"])
def test_a_broken_file_is_an_input_error(tmp_path, kind):
    path = saved(tmp_path, Reference())
    data = {"truncated": path.read_bytes()[:5000], "text": b"no weights\n" * 50, "nothing": b""}
    path.write_bytes(data[kind])
    with pytest.raises(InputError, match="cannot be read as weights") as caught:
        load_prior(f"guided-diffusion:{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "old", "plain"])
def test_code_in_a_pickle_is_not_executed(tmp_path, kind):
    path = hostile(tmp_path / "evil.pt", tmp_path / "victim", kind)
    with pytest.raises(InputError, match=r"evil\.pt") as caught:
        load_prior(f"guided-diffusion:{path}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "victim").exists()
