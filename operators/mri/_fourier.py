"""Centred orthonormal Fourier transforms, and complex images as two real channels."""

from __future__ import annotations

import cmath
from collections.abc import Sequence

import torch
from torch import Tensor


def fft(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Centred orthonormal FFT of complex x over `dims`, right for odd sizes too: index n // 2 is the origin."""
    dims = tuple(dims)
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, dims), dim=dims, norm="ortho"), dims)


def ifft(k: Tensor, dims: Sequence[int]) -> Tensor:
    """The inverse, and adjoint, of `fft`."""
    dims = tuple(dims)
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(k, dims), dim=dims, norm="ortho"), dims)


def to_complex(x: Tensor) -> Tensor:
    """(B, 2, ...) real to (B, ...) complex."""
    return torch.complex(x[:, 0], x[:, 1])


def to_channels(x: Tensor) -> Tensor:
    """(B, ...) complex to (B, 2, ...) real."""
    return torch.stack([x.real, x.imag], dim=1)


def centring(sizes: Sequence[int]) -> tuple[Tensor, complex]:
    """ramp (*sizes), complex128, and c with |c| = 1: fft(x) = c · ramp · FFT(ramp · x), FFT the plain orthonormal one.

    Two products in the place of two shifts, and products can be merged with others. For axes of even length the ramp
    is 1, -1, 1, ... By exp(-2 pi i (k - h) (j - h) / n) with h = n // 2, multiplied out.
    """
    ramp, turns = torch.zeros(tuple(sizes), dtype=torch.float64), 0.0
    for axis, n in enumerate(sizes):
        half = n // 2
        angle = (torch.arange(n) * half % n).double() / n  # of a turn, reduced as integers
        ramp = ramp + angle.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
        turns -= half * half % n / n
    return torch.polar(torch.ones_like(ramp), 2 * torch.pi * ramp), cmath.exp(2j * cmath.pi * turns)
