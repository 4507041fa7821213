"""A scan that never was: k-space of images in a file, with birdcage coils and noise, to restore and to score."""

import math

import torch
from torch import Tensor

from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import InputError
from invdiff.io.scans.scan import Images, RawSlice, Scan
from operators import mri

COILS = 8


def simulated_scan(images: Images, coils: int | None, sigma_y: float, seed: int) -> Scan:
    """Fully sampled k-space of images by birdcage coils, with white noise of `sigma_y` times the first slice's peak.

    Real images get a smooth phase, as a scanner's have. Their k-space is a transform of pixels: what is made of it is
    optimistic (Shimron et al. 2022), and the report says that it was simulated. Raises InputError for an empty first slice.
    """
    count = coils or COILS
    peak = float(images.read(0).abs().max())
    if peak <= 0:
        raise InputError(f"{images.path}: its first slice is empty; expected an image to simulate a scan of")
    maps = mri.birdcage_maps(images.size, count)[0]

    def read(number: int) -> RawSlice:
        image = images.read(number)
        if not image.is_complex():
            image = image * _phase(images.size)
        kspace = mri.fft(maps * image, (-2, -1))
        generator = torch.Generator().manual_seed(stream_seed(seed, number, 0))
        noise = torch.view_as_complex(torch.randn(*kspace.shape, 2, generator=generator))
        return RawSlice((kspace + sigma_y * peak * noise).to(torch.complex64), torch.ones(images.size, dtype=torch.bool))

    return Scan(images.path, f"simulated from {images.format}", images.slices, count, images.size, images.size, read,
                header=images.header, notes=[*images.notes, f"k-space simulated with {count} birdcage coils"])


def _phase(size: tuple[int, int]) -> Tensor:
    y, x = (torch.linspace(-1, 1, n) for n in size)
    angle = math.pi * (0.4 * y[:, None] - 0.3 * x + 0.25 * y[:, None] * x + 0.2 * x.square())
    return torch.polar(torch.ones_like(angle), angle)
