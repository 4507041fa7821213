"""Fast orthonormal transforms of the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor


def dct(x: Tensor) -> Tensor:
    """Orthonormal DCT-II of real x (..., n), any n, by one FFT of length n (Makhoul 1980)."""
    n, x = x.shape[-1], _at_least_single(x)
    spectrum = torch.fft.fft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1))
    result = (spectrum * _quarter_shift(x)).real * (2 / n) ** 0.5
    return torch.cat([result[..., :1] * 0.5**0.5, result[..., 1:]], dim=-1)


def idct(c: Tensor) -> Tensor:
    """Inverse, and transpose, of `dct`."""
    n, c = c.shape[-1], _at_least_single(c)
    scaled = torch.cat([c[..., :1] * 2**0.5, c[..., 1:]], dim=-1) * (n / 2) ** 0.5
    mirrored = torch.cat([torch.zeros_like(c[..., :1]), scaled[..., 1:].flip(-1)], dim=-1)
    interleaved = torch.fft.ifft(torch.complex(scaled, -mirrored) * _quarter_shift(c).conj()).real
    x = torch.empty_like(c)
    x[..., ::2], x[..., 1::2] = interleaved[..., : (n + 1) // 2], interleaved[..., (n + 1) // 2 :].flip(-1)
    return x


def _at_least_single(x: Tensor) -> Tensor:
    """x in single precision at least: there are no FFTs of half precision on a CPU, nor complex bfloat16 anywhere."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _quarter_shift(like: Tensor) -> Tensor:
    n = like.shape[-1]
    angle = torch.arange(n, dtype=torch.float64) * (-torch.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle).to(like.device, like.dtype.to_complex())
