"""`diffusers-vae:FOLDER`: an AutoencoderKL of the diffusers library, as the space of a prior of latents."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invdiff.errors import InputError
from invdiff.priors.checkpoint import read_tensors
from invdiff.priors.foreign.weights import fill
from invdiff.priors.networks import check_sizes

_WEIGHTS = "diffusion_pytorch_model.safetensors"


class DiffusersAutoencoder(nn.Module):
    """An AutoencoderKL under the face of `invdiff.priors.autoencoder.Coder`: images in [0, 1], and latents times the config's
    scaling_factor, after its shift_factor, as diffusers' own pipelines have them: of unit variance where these fit.

    Args:
        config: of the model, as its config.json has it.

    Raises InputError without diffusers, and ValueError for a config that makes no AutoencoderKL.
    """

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        try:
            with torch.device("cpu"):       # where this one is built, modules that are imported for it are not to be
                from diffusers import AutoencoderKL
        except ImportError as error:
            raise InputError("diffusers-vae: needs the package diffusers; pip install diffusers") from error
        if config.get("_class_name") != "AutoencoderKL":
            raise ValueError(f"expected the config of an AutoencoderKL, got a {config.get('_class_name')}")
        check_sizes(config.get("block_out_channels", (64,)), [config.get("layers_per_block", 1)])
        self.model: Any = AutoencoderKL.from_config(dict(config))
        known = self.model.config
        self.channels, self.latent_channels = known.in_channels, known.latent_channels
        self.factor = 2 ** (len(known.block_out_channels) - 1)
        self.scaling, self.shift = known.scaling_factor, known.shift_factor or 0.0
        self.architecture = {"kind": "diffusers-vae", "config": dict(config)}
        self.card: dict[str, Any] = {}

    def encode(self, x: Tensor) -> Tensor:
        """The mean of the latent of images (B, channels, H, W) in [0, 1], H and W multiples of `factor`."""
        return (self.model.encode(2 * x - 1).latent_dist.mean - self.shift) * self.scaling

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, channels, H, W), not clipped."""
        return (self.model.decode(z / self.scaling + self.shift).sample + 1) / 2


def load(target: str) -> DiffusersAutoencoder:
    """The autoencoder of a folder that `save_pretrained` wrote, of the model or of a pipeline (its vae/). Weights are read from
    safetensors alone.

    Raises InputError: no such folder, a model of another kind, or files that do not fit.
    """
    folder = Path(target)
    home = folder / "vae" if (folder / "vae").is_dir() else folder
    path = home / "config.json"
    if not path.is_file():
        raise InputError(f"diffusers-vae:{target}: {path} is not there; expected a folder that an AutoencoderKL's "
                         "save_pretrained wrote")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        with torch.device("meta"):
            coder = DiffusersAutoencoder(config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path}: makes no AutoencoderKL ({str(error).splitlines()[0]})") from error
    if not (home / _WEIGHTS).is_file():
        raise InputError(f"{home}: holds no {_WEIGHTS}; save the model with safe_serialization=True, as pickles are not read")
    fill(coder.model, read_tensors(home / _WEIGHTS)[0], str(home / _WEIGHTS), "the model in config.json")
    coder.card = {"name": f"diffusers-vae:{target}", "data": "unknown", "licence": "unknown"}
    return coder.float().eval().requires_grad_(False)
