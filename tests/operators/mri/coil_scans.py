"""Scans of simulated coils, and how near coil maps are to each other."""


import torch

from operators.mri import _fourier, coils


def crandn(*shape, seed=0):
    """Complex noise with E|n|² = 2."""
    return 2**0.5 * torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def ellipse(height, width, radius=0.7):
    y = (torch.arange(height) - height // 2) / (height / 2)
    x = (torch.arange(width) - width // 2) / (width / 2)
    return (y[:, None] ** 2 + x**2) < radius**2


def scan(height=60, width=48, count=6, radius=0.7, contrast=0.2, seed=0):
    """K-space (1, N, H, W) complex64 of an ellipse with texture under birdcage coils, the maps (N, H, W), the object."""
    maps = coils.birdcage_maps((height, width), count)[0]
    inside = ellipse(height, width, radius)
    texture = 1 + contrast * crandn(height, width, seed=seed)
    return _fourier.fft(maps * inside * texture.to(torch.complex64), (-2, -1))[None], maps, inside


def overlap(a, b):
    """|<a, b>| / |a| |b| over the coils of maps (N, H, W)."""
    product = (a.conj() * b).sum(0).abs()
    return product / (coils.rss(a, 0) * coils.rss(b, 0)).clamp(min=1e-12)


def project(maps, images):
    """Projection of images (N, H, W) on the span of orthonormal maps (M, N, H, W), pixel by pixel."""
    return ((maps.conj() * images).sum(1, keepdim=True) * maps).sum(0)


def energy_kept(maps, images, where):
    return float((project(maps, images).abs().square() * where).sum() / (images.abs().square() * where).sum())
