"""AutoencoderKLs as diffusers saves them, against diffusers itself."""

import json

import pytest
import torch
from foreign_files import randomised
from torch import nn

from invdiff import InputError, load_prior
from invdiff.priors import EDMDenoiser
from invdiff.priors.autoencoder import load_autoencoder
from invdiff.priors.latent import save_latent_prior
from invdiff.priors.networks import build_network

diffusers = pytest.importorskip("diffusers", reason="needs the package diffusers")


def vae(**changes):
    torch.manual_seed(0)
    arguments = {"in_channels": 1, "out_channels": 1, "latent_channels": 4, "block_out_channels": (8, 8), "norm_num_groups": 4,
                 "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
                 "sample_size": 16, "scaling_factor": 0.3, "shift_factor": 0.1}
    return randomised(diffusers.AutoencoderKL(**{**arguments, **changes}))


@pytest.mark.parametrize("part", ["", "vae"])
def test_latents_are_those_of_their_pipelines(part, tmp_path):
    model, x = vae(), torch.rand(2, 1, 16, 24)
    model.save_pretrained(tmp_path / part)
    coder = load_autoencoder(f"diffusers-vae:{tmp_path}")
    assert (coder.channels, coder.latent_channels, coder.factor) == (1, 4, 2)
    z = (model.encode(2 * x - 1).latent_dist.mean - 0.1) * 0.3
    torch.testing.assert_close(coder.encode(x), z)
    torch.testing.assert_close(2 * coder.decode(z) - 1, model.decode(z / 0.3 + 0.1).sample)


def test_a_prior_in_its_latents_carries_it(tmp_path):
    vae().save_pretrained(tmp_path / "vae")
    coder = load_autoencoder(f"diffusers-vae:{tmp_path}")
    architecture = {"kind": "dit", "channels": 4, "patch": 1, "width": 16, "depth": 1, "heads": 1, "classes": 0}
    network = build_network(architecture)
    nn.init.normal_(network.head.weight)
    card = {"architecture": architecture, "preconditioning": {"sigma_data": 1.0, "centre": 0.0}}
    save_latent_prior(tmp_path / "p.safetensors", EDMDenoiser(network, 4, 1.0, 0.0), coder, card)
    prior, x = load_prior(tmp_path / "p.safetensors"), torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(prior.encode(x), coder.encode(x), rtol=0, atol=0.02 * float(coder.encode(x).abs().max()))


def test_folders_that_are_wrong(tmp_path):
    with pytest.raises(InputError, match="expected a folder that an AutoencoderKL"):
        load_autoencoder(f"diffusers-vae:{tmp_path}")
    vae().save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(InputError, match="pickles are not read"):
        load_autoencoder(f"diffusers-vae:{tmp_path / 'pickled'}")
    vae().save_pretrained(tmp_path / "wide")
    config = json.loads((tmp_path / "wide" / "config.json").read_text())
    (tmp_path / "wide" / "config.json").write_text(json.dumps({**config, "latent_channels": 8}))
    with pytest.raises(InputError, match="not the weights of the model"):
        load_autoencoder(f"diffusers-vae:{tmp_path / 'wide'}")
    for changes in ({"layers_per_block": 65}, {"layers_per_block": 65, "block_out_channels": [8]}):
        (tmp_path / "wide" / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(InputError, match="depths up to 64"):
            load_autoencoder(f"diffusers-vae:{tmp_path / 'wide'}")
    (tmp_path / "wide" / "config.json").write_text(json.dumps({**config, "_class_name": "VQModel"}))
    with pytest.raises(InputError, match="got a VQModel"):
        load_autoencoder(f"diffusers-vae:{tmp_path / 'wide'}")
