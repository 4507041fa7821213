"""A prior of complex images for what a scan sees of them: within the coils' reach, and one image for each set of maps."""

from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.priors.facts import known_spectrum
from operators import mri

LEVELS = 32             # a unit of log sigma has so many, each with its turn: more than a sampler has steps there
TURNS = 16
TURN = torch.randint(TURNS, (1024,), generator=torch.Generator().manual_seed(0))       # of each level, and then anew


class Repeated:
    """A spectrum of any kind, for M images: what it has of (..., K, H, W // 2 + 1) is (..., M K, H, W // 2 + 1)."""

    def __init__(self, spectrum: Any, sets: int):
        self.spectrum, self.sets, self.source = spectrum, sets, spectrum.source
        self.local = getattr(spectrum, "local", None)

    def at(self, sigma: float, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        return torch.cat([self.spectrum.at(sigma, size, device)] * self.sets, -3)

    def local_at(self, sigma: float, x0: Tensor) -> tuple[Tensor, Tensor]:
        power, scale = self.spectrum.local_at(sigma, x0)
        return torch.cat([power] * self.sets, -3), scale


class ScanPrior(Denoiser):
    """D(x, sigma) of a prior of two channels, for x (B, 2 M, H, W), each of M images on its own, and zero off the support.

    The data say nothing of where the coil maps are zero, and a prior left to itself would draw there. Images are turned before
    it sees them, and back (`turned`), at each noise level another way: all are as likely, and what a network makes of them
    differs by its own errors, which cancel over a sampler's steps instead of adding up.
    support: (1, 2 M, H, W), 0 or 1. Raises ValueError for a prior of other images.
    """

    support: Tensor

    def __init__(self, prior: Denoiser, support: Tensor):
        super().__init__()
        channels = getattr(prior, "channels", 2)
        if channels != 2:
            raise ValueError(f"prior: expected one of complex images, with 2 channels, got {channels} channels")
        self.prior = prior
        self.register_buffer("support", support)

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        images = x.reshape(-1, 2, *x.shape[2:])
        if isinstance(sigma, Tensor) and sigma.numel() > 1:
            sigma = sigma.flatten().repeat_interleave(len(images) // len(x))
        turn = turn_at(torch.as_tensor(sigma, dtype=x.dtype, device=x.device).flatten())
        x0 = turned(self.prior(turned(images, turn), sigma), turn, back=True)
        return x0.reshape(x.shape) * self.support

    def error_spectrum(self, channels: int) -> Any:
        """The prior's own, for all images alike; None where it has none."""
        spectrum, sets = known_spectrum(self.prior, 2), channels // 2
        return spectrum if spectrum is None or sets == 1 else Repeated(spectrum, sets)


def turn_at(sigma: Tensor) -> Tensor:
    """The turn (B,), from 0 to TURNS - 1, of each noise level (B,): always the same, and of neighbours any other."""
    return TURN.to(sigma.device)[(sigma.log() * LEVELS).floor().long() % len(TURN)]


def turned(x: Tensor, turn: Tensor, back: bool = False) -> Tensor:
    """Complex images x (B, 2, H, W) after a turn (B,) or (1,): the mirror image, left for right, where it has bit 8, the
    complex conjugate where it has bit 4, and then as many quarters of a circle added to the phase as its last bits say."""
    turn = turn.reshape(-1, 1, 1)
    quarters = torch.tensor([1, 1j, -1, -1j], dtype=torch.complex64, device=x.device)
    z, factor = mri.to_complex(x), quarters[turn % 4]
    if back:
        z = z * factor.conj()
    z = torch.where(turn & 4 > 0, z.conj(), z)
    z = torch.where(turn & 8 > 0, z.flip(-1), z)
    return mri.to_channels(z if back else z * factor)
