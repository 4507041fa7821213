"""A small variational autoencoder of images, the space that latent diffusion lives in, and its file."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invdiff.errors import InputError
from invdiff.priors.checkpoint import card_of, filled, half_precision, matching, read_tensors, write_tensors
from invdiff.priors.networks import check_sizes

FORMAT = "invdiff-autoencoder-1"
DIFFUSERS = "diffusers-vae"


class Coder(Protocol):
    """What latent diffusion asks of an autoencoder: `Autoencoder`, or `foreign.diffusers_vae.DiffusersAutoencoder`.

    Images (B, channels, H, W) in [0, 1], H and W multiples of `factor`; latents (B, latent_channels, H / factor, W / factor) of
    about zero mean and unit variance.
    """

    channels: int
    latent_channels: int
    factor: int
    architecture: dict[str, Any]

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


class Autoencoder(nn.Module):
    """A convolutional autoencoder whose latents are kept near a standard normal law by a KL penalty (Kingma & Welling 2014;
    Rombach et al. 2022, Sec. 3.1).

    Encoder and decoder are mirror images: residual blocks at 1/2, 1/4 ... of the image's resolution. No layer looks at the
    whole image, so that any size that is a multiple of `factor` will do.

    Args:
        channels, latent_channels: of images and of latents.
        widths, depths: channels and residual blocks of each resolution; `factor` is 2^len(widths).
        mean, scale: of each latent channel as the encoder has it; `encode` subtracts and divides, `decode` undoes that.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int = 1, latent_channels: int = 4, widths: Sequence[int] = (64, 128),
                 depths: Sequence[int] = (2, 2), mean: Sequence[float] | None = None, scale: Sequence[float] | None = None):
        super().__init__()
        check_sizes(widths, depths, latent_channels)
        self.channels, self.latent_channels, self.factor = channels, latent_channels, 2 ** len(widths)
        self.architecture: dict[str, Any] = {"kind": "kl", "channels": channels, "latent_channels": latent_channels,
                                             "widths": list(widths), "depths": list(depths)}
        self.card: dict[str, Any] = {}
        blocks = [nn.Sequential(*(Residual(w) for _ in range(d))) for w, d in zip(widths, depths, strict=True)]
        down = [nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths)]
        self.encoder = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, widths[0], 3, padding=1), blocks[0],
                                     *(layer for pair in zip(down, blocks[1:], strict=True) for layer in pair),
                                     nn.SiLU(), nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1))
        back = [nn.Sequential(*(Residual(w) for _ in range(d))) for w, d in zip(widths, depths, strict=True)][::-1]
        up = [nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2)) for a, b in pairwise(widths)][::-1]
        self.decoder = nn.Sequential(nn.Conv2d(latent_channels, widths[-1], 3, padding=1), back[0],
                                     *(layer for pair in zip(up, back[1:], strict=True) for layer in pair),
                                     nn.SiLU(), nn.Conv2d(widths[0], 4 * channels, 3, padding=1), nn.PixelShuffle(2))
        self.standardise(mean or [0.0] * latent_channels, scale or [1.0] * latent_channels)

    def standardise(self, mean: Sequence[float], scale: Sequence[float]) -> None:
        """Let latents have these means and standard deviations taken out, a number for each channel. Raises ValueError for
        other numbers of them, and for what is no mean or standard deviation."""
        fit = len(mean) == len(scale) == self.latent_channels and all(map(math.isfinite, [*mean, *scale]))
        if not (fit and min(scale) > 0):
            raise ValueError(f"mean, scale: expected {self.latent_channels} numbers each, got {list(mean)} and {list(scale)}")
        where = next(self.parameters()).device
        self.architecture |= {"mean": list(mean), "scale": list(scale)}
        for name, values in (("mean", mean), ("scale", scale)):       # the card keeps them, in full precision
            buffer = torch.tensor(values, dtype=torch.float32, device=where).reshape(1, -1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent given an image, before latents are standardised."""
        mean, log_variance = self.encoder(_like_networks(2 * x - 1)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of the latent (B, latent_channels, H / factor, W / factor) of images (B, channels, H, W)."""
        return (self.moments(x)[0] - self.mean) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, channels, H, W), not clipped, of latents."""
        return (self.decoder(_like_networks(z * self.scale + self.mean)).float() + 1) / 2


class Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))); starts as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def _like_networks(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def save_autoencoder(path: str | Path, autoencoder: Autoencoder, card: dict[str, Any]) -> None:
    """Write weights (float16) and card; the file is complete or absent."""
    card = {**card, "architecture": autoencoder.architecture}
    write_tensors(path, half_precision(autoencoder), {"format": FORMAT, "card": json.dumps(card)})


def build_autoencoder(architecture: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
    """An autoencoder with its weights, for use. Raises what `matching` takes for a wrong file where these do not fit."""
    rest = {key: value for key, value in architecture.items() if key != "kind"}
    if architecture["kind"] == DIFFUSERS:
        from invdiff.priors.foreign.diffusers_vae import DiffusersAutoencoder

        coder: Any = filled(lambda: DiffusersAutoencoder(**rest), state)
    elif architecture["kind"] == "kl":
        coder = filled(lambda: Autoencoder(**rest), state)
        coder.standardise(coder.architecture["mean"], coder.architecture["scale"])
    else:
        raise ValueError(f"an unknown kind {architecture['kind']!r}; known are kl and {DIFFUSERS}")
    return coder.eval().requires_grad_(False)


def load_autoencoder(name: str | Path) -> Any:
    """An autoencoder by the file that its training wrote, or an AutoencoderKL of the diffusers library as
    "diffusers-vae:FOLDER"; in evaluation mode, with its `.card`.

    Raises InputError: no such file, or one that is no autoencoder, truncated, or does not fit its card.
    """
    kind, colon, target = str(name).partition(":")
    if colon and kind == DIFFUSERS:
        from invdiff.priors.foreign.diffusers_vae import load

        return load(target)
    if Path(name).suffix != ".safetensors":
        raise InputError(f"autoencoder: expected the .safetensors file that the training of one wrote, or {DIFFUSERS}:FOLDER, "
                         f"got {str(name)!r}")
    if not Path(name).is_file():
        raise InputError(f"{name}: no such file; expected an autoencoder, which `invdiff train` writes, for example of "
                         "configs/train/fashion-autoencoder.yaml")
    tensors, metadata = read_tensors(name)
    with matching(name, "an autoencoder"):
        card = card_of(metadata, FORMAT)
        coder = build_autoencoder(card["architecture"], tensors)
    coder.card = card
    return coder
