"""The normal operator of non-Cartesian MRI as a convolution: a few FFTs of the image's own size in the place of two NUFFTs.

FᴴF x is the convolution of x with the point spread function psf(l) = Σ_k exp(2 pi i k · l / size) / prod(size), for l from
1 - size to size - 1: a product of spectra on a grid of twice the size (Fessler et al. 2005). The even frequencies of
that grid are those of the image's own grid, and the odd ones those of the image times exp(-i pi n / size). So the
transforms of the padded image split into 2^d of the image itself, with less work and less memory.
psf(-l) = conj psf(l), so its spectrum is real. For a real spectrum k, IFFT(k FFT(z)) = conj FFT(k conj FFT(z)) / prod(size):
the conjugate comes with the product, and the maps are used as they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from operators.mri import _cartesian
from operators.mri._nufft import Nufft

# Complex numbers worked on at a time: about what a CPU's cache holds, and 256 MiB of a GPU's memory.
CPU_CHUNK = 2**18
GPU_CHUNK = 2**25


def spectrum(points: Tensor, size: Sequence[int]) -> Tensor:
    """Spectrum k of FᴴF as pairs k, -k, float64 (*(2,) * d, *size, 2).

    Parity p, frequency j of it is frequency 2 j + p of the doubled grid. It is divided as the FFTs of `normal` ask for.
    points: (K, d), cycles per field of view. size: of the image, d integers.
    """
    size, axes = tuple(size), len(size)
    halves = list(itertools.product((0, 1), repeat=axes))  # of the lags along each axis: 0 ... n - 1, and -n ... -1
    centres = torch.tensor([[n // 2 - n * half for n, half in zip(size, h, strict=True)] for h in halves])
    turns = points.detach().cpu().double() / torch.tensor(size)
    shifts = 2 * torch.pi * centres.double() @ turns.T
    psf = Nufft(points, size, len(halves), 1e-13).adjoint(torch.polar(torch.ones_like(shifts), shifts))
    psf = psf.reshape((2,) * axes + size) * math.prod(size) ** -0.5
    psf = psf.permute([a for i in range(axes) for a in (i, axes + i)]).reshape([2 * n for n in size])
    full = torch.fft.fftn(psf).real / psf.numel()  # imaginary only by lag -n, which no two pixels have
    full = full.reshape([m for n in size for m in (n, 2)]).permute([*range(1, 2 * axes, 2), *range(0, 2 * axes, 2)])
    return torch.stack([full, -full], dim=-1)


def normal(x: Tensor, maps: Tensor, spectrum: Tensor) -> Tensor:
    """Σ_n conj(s_mn) FᴴF Σ_l s_ln x_l, complex (B, M, *size), for x of that shape, maps (B, M, N, *size) and `spectrum`."""
    axes = spectrum.ndim // 2
    size, dims = spectrum.shape[axes:-1], tuple(range(-axes, 0))
    conjugate = torch.zeros_like(x)
    for parity in itertools.product((0, 1), repeat=axes):
        phase = _half_shift(parity, size, x)
        shifted, part = x * phase, torch.zeros_like(x)
        for items, coils in _blocks(len(x), maps.shape[2], math.prod(size), x.device.type):
            block = maps[items, :, coils]
            z = torch.fft.fftn(_cartesian.coil_images(block, shifted[items]), dim=dims)
            torch.view_as_real(z).mul_(spectrum[parity])
            z = torch.fft.fftn(z, dim=dims)
            for m, n in itertools.product(range(block.shape[1]), range(block.shape[2])):
                part[items, m].addcmul_(block[:, m, n], z[:, n])
        conjugate.addcmul_(part, phase)
    return conjugate.conj_physical_()


def combined(maps: Tensor, images: Tensor) -> Tensor:
    """The adjoint, Σ_n conj(s_mn) images_n: (B, M, *size) of maps (B, M, N, *size) and images (B, N, *size)."""
    return torch.stack([(images * maps[:, m].conj()).sum(1) for m in range(maps.shape[1])], dim=1)


def _half_shift(parity: tuple[int, ...], size: Sequence[int], like: Tensor) -> Tensor:
    """exp(-i pi n / size) along the axes of odd parity, complex (*size)."""
    shift = like.new_ones((1,) * len(size))
    for axis, (n, odd) in enumerate(zip(size, parity, strict=True)):
        angle = torch.arange(n, dtype=torch.float64, device=like.device) * (-torch.pi * odd / n)
        shape = [-1 if a == axis else 1 for a in range(len(size))]
        shift = shift * torch.polar(torch.ones_like(angle), angle).to(like.dtype).reshape(shape)
    return shift


def _blocks(batch: int, coils: int, pixels: int, device: str) -> Iterator[tuple[slice, slice]]:
    """Slices of items and coils that cover (batch, coils) in pieces of about a chunk."""
    most = (CPU_CHUNK if device == "cpu" else GPU_CHUNK) // pixels
    some = min(coils, max(1, most))
    items = max(1, most // some)
    for item in range(0, batch, items):
        for coil in range(0, coils, some):
            yield slice(item, item + items), slice(coil, coil + some)
