"""The table of linear operators that the tests of this folder go through, and their common tools."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from deepinv.physics import DecomposablePhysics

import operators


def kernel(height, width, seed=0):
    """A kernel with no symmetry, of both signs."""
    return np.random.default_rng(seed).standard_normal((height, width))


def masks(batch, channels, height, width):
    return np.random.default_rng(1).random((batch, channels, height, width)) < 0.6


class Case(NamedTuple):
    """How a row of the table is built: from img_size, on sides of at least `low` that are multiples of `multiple`."""

    make: object
    low: int = 2
    multiple: int = 1
    masked: bool = False  # its measurement has entries that are never observed, and stay zero


OPERATORS = {
    "denoising": Case(operators.Denoising, low=1),
    "blur-odd": Case(lambda s: operators.Blur(s, kernel(3, 5)), low=5),
    "blur-even": Case(lambda s: operators.Blur(s, kernel(4, 2)), low=5),
    "blur-box": Case(lambda s: operators.Blur(s, np.full((2, 2), 0.25)), low=5),  # singular where H or W is even
    "gaussian": Case(lambda s: operators.GaussianBlur(s, sigma=0.4), low=5),
    "motion": Case(lambda s: operators.MotionBlur(s, size=5, intensity=0.8), low=5),
    "separable-wide": Case(lambda s: operators.Separable(s, kernel(s[1] - 1, s[1]), kernel(2, s[2]))),
    "separable-singular": Case(lambda s: operators.Separable(s, np.ones((s[1], s[1])), kernel(s[2], s[2]))),
    "inpainting": Case(lambda s: operators.Inpainting(s, operators.random_mask(s, keep=0.6)), masked=True),
    "inpainting-channels": Case(lambda s: operators.Inpainting(s, masks(1, *s)[0]), masked=True),
    "sr-1": Case(lambda s: operators.SuperResolution(s, factor=1), low=1),
    "sr-2": Case(lambda s: operators.SuperResolution(s, factor=2), multiple=2),
    "sr-3": Case(lambda s: operators.SuperResolution(s, factor=3), multiple=3),
}
SIZES = [(1, 6, 6), (3, 7, 9), (2, 5, 8), (1, 8, 7), (2, 12, 6)]


def allowed(name, n):
    case = OPERATORS[name]
    return max(-(-n // case.multiple) * case.multiple, case.low)


def build(name, channels, height, width):
    """The operator in float64, on the nearest size it allows."""
    return OPERATORS[name].make((channels, allowed(name, height), allowed(name, width))).to(torch.float64)


SVD = [name for name in OPERATORS if isinstance(build(name, 2, 6, 6), DecomposablePhysics)]
STATIONARY = [name for name in OPERATORS if hasattr(build(name, 2, 6, 6), "solve_stationary")]


def every_case(names=tuple(OPERATORS)):
    cases = [pytest.param(n, s, id=f"{n}-{s[0]}x{s[1]}x{s[2]}") for n in names for s in SIZES]
    return pytest.mark.parametrize(("name", "size"), cases)


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(function, size):
    """Matrix of a linear function of images of `size`."""
    basis = torch.eye(np.prod(size), dtype=torch.float64)
    return function(basis.reshape(-1, *size)).reshape(len(basis), -1).T


def stationary(size, zero=False, seed=0):
    """A power spectrum (1, C, H, W // 2 + 1) and the dense covariance it stands for, built by shifting the kernel."""
    _, height, width = size
    power = torch.fft.fft2(randn(1, *size, seed=seed)).abs() ** 2 / (height * width)  # symmetric: of a real image
    if zero:
        power[..., 0, 0] = 0
    lags = torch.fft.ifft2(power).real[0]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    blocks = lags[:, (rows[:, None] - rows) % height, (columns[:, None] - columns) % width]
    return power[..., : width // 2 + 1], torch.block_diag(*blocks)
