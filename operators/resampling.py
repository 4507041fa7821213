"""Matrices (n / factor, n) that reduce a signal of n samples by an integer factor, in double precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cubic_matrix(n: int, factor: int, antialias: bool) -> Tensor:
    """Cubic interpolation at the middles of blocks of `factor` samples (Keys 1981, Eq. 4).

    antialias: the kernel (a = -0.5) is `factor` times as wide, and normalised over the samples that exist. Otherwise
    the kernel (a = -0.75) has its own width, and the samples at the border repeat.
    """
    middle = (torch.arange(n // factor, dtype=torch.float64)[:, None] + 0.5) * factor - 0.5
    if antialias:
        weights = _cubic((torch.arange(n) - middle) / factor, a=-0.5)
        return weights / weights.sum(1, keepdim=True)
    place = torch.arange(-2, n + 2)
    return torch.zeros(n // factor, n).double().index_add_(1, place.clamp(0, n - 1), _cubic(place - middle, a=-0.75))


def gaussian_matrix(n: int, factor: int, sigma: float, first: int) -> Tensor:
    """Circular blur with a Gaussian of standard deviation sigma, cut at 5 sigma, read at first, first + factor, ..."""
    offset = torch.arange(-math.ceil(5 * sigma), math.ceil(5 * sigma) + 1)
    weights = torch.exp(-0.5 * (offset.double() / sigma) ** 2)
    profile = torch.zeros(n).double().index_add_(0, offset % n, weights / weights.sum())
    return profile[(torch.arange(n) - torch.arange(first, n, factor)[:, None]) % n]


def _cubic(t: Tensor, a: float) -> Tensor:
    """Keys' piecewise cubic, zero from |t| = 2 on."""
    t = t.abs()
    inner = ((a + 2) * t - (a + 3)) * t**2 + 1
    outer = a * (((t - 5) * t + 8) * t - 4)
    return torch.where(t < 1, inner, torch.where(t < 2, outer, 0))
