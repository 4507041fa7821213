"""A scan that never was: k-space of images in a file, with birdcage coils and noise, to restore and to score."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import EmptySlice, InputError
from invdiff.io.scans.checks import check_peak
from invdiff.io.scans.scan import Images, RawSlice, Scan
from operators import mri

COILS = 8
NOISE = 4096            # samples of the noise scan


@dataclass(frozen=True)
class SimulatedScan(Scan):
    """A scan of images that are known. truth: of a slice by number, the magnitude (H, W) without noise."""

    truth: Callable[[int], Tensor] | None = None


def simulated_scan(images: Images, coils: int | None, sigma_y: float, seed: int) -> SimulatedScan:
    """Fully sampled k-space of images by birdcage coils, with white noise of `sigma_y` times the middle slice's peak, and a
    noise scan where there is noise.

    Real images get a smooth phase, as a scanner's have. Their k-space is a transform of pixels: what is made of it is
    optimistic (Shimron et al. 2022), and the report says that it was simulated. Raises InputError for a middle slice that is
    empty, or of no usual scale.
    """
    count = coils or COILS
    peak = float(images.read(images.slices // 2).abs().max())
    if peak <= 0:
        raise InputError(f"{images.path}: its middle slice is empty; expected an image to simulate a scan of")
    check_peak(images.path, "its middle slice", peak)
    maps, sigma = mri.birdcage_maps(images.size, count)[0], sigma_y * peak

    def read(number: int) -> RawSlice:
        image = images.read(number)
        if not sigma and not image.any():
            raise EmptySlice(f"{images.path}: slice {number} is zero everywhere; choose another slice")
        if not image.is_complex():
            image = image * _phase(images.size)
        kspace = mri.fft(maps * image, (-2, -1))
        kspace = kspace + sigma * _white(kspace.shape, stream_seed(seed, number, 0))
        return RawSlice(kspace.to(torch.complex64), torch.ones(images.size, dtype=torch.bool))

    noise = sigma * _white((count, NOISE), stream_seed(seed, images.slices, 0)) if sigma else None
    return SimulatedScan(images.path, f"simulated from {images.format}", images.slices, count, images.size, images.size, read,
                         noise, images.header, [*images.notes, f"k-space simulated with {count} birdcage coils"],
                         lambda number: images.read(number).abs())


def _white(shape: Sequence[int], seed: int) -> Tensor:
    """Complex noise of standard deviation 1 per real channel."""
    return torch.view_as_complex(torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed)))


def _phase(size: tuple[int, int]) -> Tensor:
    y, x = (torch.linspace(-1, 1, n) for n in size)
    angle = math.pi * (0.4 * y[:, None] - 0.3 * x + 0.25 * y[:, None] * x + 0.2 * x.square())
    return torch.polar(torch.ones_like(angle), angle)
