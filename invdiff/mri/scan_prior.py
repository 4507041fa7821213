"""A prior of complex images for what a scan sees of them: within the coils' reach, and one image for each set of maps."""

from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor


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

    The data say nothing of where the coil maps are zero, and a prior left to itself would draw there.
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
        return self.prior(images, sigma).reshape(x.shape) * self.support

    def error_spectrum(self, channels: int) -> Any:
        """The prior's own, for all images alike; None where it has none."""
        measured = getattr(self.prior, "error_spectrum", None)
        spectrum, sets = measured(2) if measured else None, channels // 2
        return spectrum if spectrum is None or sets == 1 else Repeated(spectrum, sets)
