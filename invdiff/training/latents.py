"""What a prior of latents is trained on: whole images, encoded once."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.datasets.images import in_unit_range
from invdiff.datasets.pixels import seen_by
from invdiff.errors import InputError
from invdiff.priors.autoencoder import load_autoencoder
from invdiff.training.settings import TrainSettings
from invdiff.training.whole import WholeImages

_TOGETHER = 500     # images that are encoded together


class Latents:
    """Latents of images of one size, each as likely as any other.

    Args:
        z: (N, C, h, w) float32.
        labels: the class of each (N,), or None.
        drop: share of them shown without their class, as -1.
        coder: the autoencoder that they are of, which makes images of them.
    """

    def __init__(self, z: Tensor, labels: np.ndarray | None = None, drop: float = 0.1, coder: Any = None):
        self.z, self.labels, self.drop, self.coder = z, labels, drop, coder

    def __len__(self) -> int:
        return len(self.z)

    def batch(self, count: int, size: int, rng: np.random.Generator, mine: slice = slice(None)) -> tuple[Tensor, ...]:
        """As `WholeImages.batch`: latents (count, C, h, w), which of them are grey (none), classes; of all, `mine`."""
        chosen = rng.integers(len(self.z), size=count)
        z0 = self.z[torch.from_numpy(chosen[mine])]
        grey = torch.zeros(len(z0), dtype=torch.bool)
        if self.labels is None:
            return z0, grey
        classes = np.where(rng.random(count) < self.drop, -1, self.labels[chosen])[mine]
        return z0, grey, torch.from_numpy(classes.astype(np.int64))


def autoencoder(settings: TrainSettings) -> Any:
    """The autoencoder that `latent` names, or None without. Raises InputError where it does not fit the network or the data."""
    if not settings.latent:
        return None
    coder = load_autoencoder(settings.latent.autoencoder)
    given = settings.network.channels
    if coder.latent_channels != given:
        raise InputError(f"network.channels: expected {coder.latent_channels}, as the autoencoder's latents have, got {given}")
    sides = [n for n in settings.data.patch if n % coder.factor]
    if sides or len(settings.data.patch) != 1:
        raise InputError(f"data.patch: latents are of whole images, of one size that is a multiple of {coder.factor}, got "
                         f"{list(settings.data.patch)}")
    return coder


@torch.no_grad()
def encoded(coder: Any, images: WholeImages) -> Latents:
    """The latents of images, and of their mirror images where these are as good."""
    parts = []
    for flip in (False, True) if images.flips else (False,):
        for first in range(0, len(images.images), _TOGETHER):
            x = in_unit_range(np.stack([images.images[i] for i in range(len(images.images))[first : first + _TOGETHER]]))
            x = x[:, :, ::-1] if flip else x
            x = seen_by(images.channels, x).transpose(0, 3, 1, 2)
            parts.append(coder.encode(torch.from_numpy(np.ascontiguousarray(x))))
    labels = np.tile(images.labels, 2) if images.labels is not None and images.flips else images.labels
    return Latents(torch.cat(parts), labels, images.drop, coder)


def check_scale(z: Tensor) -> None:
    """Raises InputError for latents far from zero mean and unit variance, on which preconditioning and noise levels rest."""
    size = float(z.square().mean(dtype=torch.float64).sqrt())
    if not 0.5 <= size <= 2:
        raise InputError(f"latent.autoencoder: expected latents of about zero mean and unit variance, got a root mean square "
                         f"of {size:.3g}; train one on such images, or set an AutoencoderKL's scaling_factor and shift_factor")
