"""Latent diffusion: a prior whose denoiser works on the latents of an autoencoder, and its file."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor, nn

from invdiff.errors import InputError
from invdiff.priors.autoencoder import build_autoencoder
from invdiff.priors.checkpoint import card_of, check_card, filled, half_precision, matching, read_tensors, write_tensors
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.facts import known_spectrum
from invdiff.priors.networks import build_network

FORMAT = "invdiff-latent-prior-1"
SAMPLERS = "psld, resample"         # those that restore with a prior of latents


class LatentPrior(Denoiser):
    """D(z, sigma) = E[z0 | z] of latents z = z0 + sigma n, and the autoencoder between them and images (Rombach et al. 2022).

    It is no denoiser of images: sigma is in units of the latents, which have about zero mean and unit variance.

    Args:
        denoiser: of latents, (B, latent_channels, h, w).
        autoencoder: see `invdiff.priors.autoencoder.Coder`.
        card: what is known of it.

    Attributes:
        error: root mean square of x - decode(encode(x)), what no latent can say of an image x.
    """

    latent = True

    def __init__(self, denoiser: Denoiser, autoencoder: Any, card: dict[str, Any] | None = None):
        super().__init__()
        self.denoiser, self.autoencoder = denoiser, autoencoder
        self.card: dict[str, Any] = card or {}

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.autoencoder.channels

    @property
    def classes(self) -> int:
        """How many classes of images it knows; 0 if none."""
        return int(getattr(self.denoiser, "classes", 0))

    @property
    def error(self) -> float:
        psnr = self.card.get("autoencoder", {}).get("psnr")
        return 10 ** (-psnr["mean"] / 20) if psnr else 0.0

    def forward(self, z: Tensor, sigma: float | Tensor, classes: Tensor | None = None, **kwargs: object) -> Tensor:
        """E[z0 | z] of latents z (B, latent_channels, h, w); sigma a float or (B,), classes as `EDMDenoiser` takes them.

        Raises InputError for anything but latents."""
        if z.shape[1] != self.autoencoder.latent_channels:
            raise refusal(f"an image of {z.shape[1]} channels was to be denoised")
        return self.denoiser(z, sigma, *([] if classes is None else [classes]))

    def encode(self, x: Tensor) -> Tensor:
        """Latents of images (B, channels, H, W) in [0, 1]."""
        return self.autoencoder.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, channels, H, W), not clipped, of latents."""
        return self.autoencoder.decode(z)

    def latent_shape(self, size: Sequence[int]) -> tuple[int, int, int]:
        """(latent_channels, h, w) for images of a size (..., H, W). Raises InputError for sides that it cannot divide."""
        factor, (height, width) = self.autoencoder.factor, size[-2:]
        if height % factor or width % factor:
            raise InputError(f"size: the prior's latents are for images whose sides are multiples of {factor}, got {height} x "
                             f"{width}; crop or enlarge the image")
        return self.autoencoder.latent_channels, height // factor, width // factor

    def error_spectrum(self, channels: int) -> Any:
        """The measured error spectrum of D(z, sigma) - z0, or None."""
        return known_spectrum(self.denoiser, channels)


def refusal(reason: str) -> InputError:
    """What a sampler of images says of a prior of latents."""
    return InputError(f"prior: it is one of latents, and no denoiser of images ({reason}); these samplers work with it: "
                      f"{SAMPLERS}")


def latent_of(prior: nn.Module) -> LatentPrior | None:
    """The prior of latents that a prior is, or that it wraps (`Guided`, `Counted`); None for priors of images."""
    inner: Any = prior
    while not isinstance(inner, LatentPrior):
        inner = getattr(inner, "prior", None)
        if inner is None:
            return None
    return inner


def save_latent_prior(path: str | Path, denoiser: EDMDenoiser, autoencoder: Any, card: dict[str, Any]) -> None:
    """Write the weights of both (float16) and one card, which says what the autoencoder's says as `autoencoder`."""
    about = {**getattr(autoencoder, "card", {}), "architecture": autoencoder.architecture}
    tensors = half_precision(denoiser.network, "network.") | half_precision(autoencoder, "autoencoder.")
    write_tensors(path, tensors, {"format": FORMAT, "card": json.dumps({**card, "autoencoder": about})})


def load_latent_prior(path: str | Path) -> LatentPrior:
    """The prior of a file that `save_latent_prior` wrote, in evaluation mode, with its `.card`.

    Raises InputError: missing, truncated, of another format, or weights that do not fit the card.
    """
    tensors, metadata = read_tensors(path)
    with matching(path, "a prior of latents"):
        card = card_of(metadata, FORMAT)
        network = filled(lambda: build_network(card["architecture"]), _part(tensors, "network."))
        denoiser = EDMDenoiser(network, channels=card["architecture"]["channels"], **card["preconditioning"])
        autoencoder = build_autoencoder(card["autoencoder"]["architecture"], _part(tensors, "autoencoder."))
        check_card(card)
        denoiser.card, autoencoder.card = card, card["autoencoder"]
        prior = LatentPrior(denoiser, autoencoder, card)
        if not 0 <= prior.error < math.inf or autoencoder.latent_channels != denoiser.channels:
            raise ValueError(f"autoencoder: expected one of {denoiser.channels} latent channels, and the psnr that it reaches, "
                             f"got {autoencoder.latent_channels} and {card['autoencoder'].get('psnr')}")
    return prior.eval().requires_grad_(False)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
