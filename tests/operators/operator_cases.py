"""The table of linear operators that the tests of this folder go through, and their common tools."""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from deepinv.physics import DecomposablePhysics

import operators


def kernel(height, width, seed=0):
    """A kernel with no symmetry, of both signs."""
    return np.random.default_rng(seed).standard_normal((height, width))


def symmetric_kernel(height, width):
    """A kernel of odd sides with the symmetry of each axis, of both signs and with a spectrum of both."""
    k = kernel(height, width)
    return k + k[::-1] + k[:, ::-1] + k[::-1, ::-1]


def sharp_kernel(height, width):
    """A kernel with no symmetry that is easy to invert: what conjugate gradients solve to rounding."""
    k = np.random.default_rng(2).random((height, width)) / (height * width)
    k[height // 2, width // 2] += 1
    return k


def masks(batch, channels, height, width):
    return np.random.default_rng(1).random((batch, channels, height, width)) < 0.6


def lines(height, width):
    """Every second column of k-space, and the last, from end to end."""
    return np.broadcast_to((np.arange(width) % 2 == 0) | (np.arange(width) == width - 1), (height, width))


def coil_maps(coils, height, width, sets=1):
    """Maps (1, M, N, H, W) with nothing smooth about them, so that SENSE is well conditioned."""
    rng = np.random.default_rng(2)
    parts = rng.standard_normal((2, 1, sets, coils, height, width)).astype(np.float32) / coils**0.5
    return parts[0] + 1j * parts[1]


def multicoil(mask, maps, weights=None):
    return operators.MultiCoilMRI(mask, maps, weights=weights, tol=1e-14, max_iter=1000)


def falling(height, width):
    """Weights of k-space from 1 down to a half."""
    return np.linspace(1, 0.5, height * width).reshape(height, width)


def noncartesian(height, width):
    """Two coils, and a point near each of the grid: a quarter of the spacing away at most, so it is well conditioned."""
    size = np.array([height, width])
    grid = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in size], indexing="ij"), axis=-1)
    points = grid + np.random.default_rng(3).uniform(-0.25, 0.25, grid.shape)
    return operators.NonCartesianMRI(points.clip(-size / 2, size / 2), size, coil_maps(2, *size), tol=1e-13, max_iter=2000)


def phase_constrained(height, width):
    phase = torch.linspace(-2, 5, height * width).reshape(height, width)
    inner = multicoil(lines(height, width), coil_maps(4, height, width))
    return operators.mri.PhaseConstrained(inner, phase, tol=1e-14, max_iter=1000)


def stacked(size):
    """A blurred image, and a noisier one that is not."""
    parts = operators.Blur(size, sharp_kernel(4, 5)), operators.Denoising(size)
    return operators.Stacked(parts, noise=(0.1, 0.3), tol=1e-14, max_iter=1000)


def example():
    """The operator that CONTRIBUTING.md shows whole."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'^```python\n("""Grey.*?)^```$', text, re.M | re.S)
    names: dict = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    return names["Grey"]


class Case(NamedTuple):
    """How a row of the table is built: from img_size, on sides of at least `low` that are multiples of `multiple`."""

    make: object
    low: int = 2
    multiple: int = 1
    masked: bool = False  # its measurement has entries that are never observed, and stay zero


Grey = example()
OPERATORS = {
    "denoising": Case(operators.Denoising, low=1),
    "blur-odd": Case(lambda s: operators.Blur(s, kernel(3, 5)), low=5),
    "blur-even": Case(lambda s: operators.Blur(s, kernel(4, 2)), low=5),
    "blur-box": Case(lambda s: operators.Blur(s, np.full((2, 2), 0.25)), low=5),  # singular where H or W is even
    "gaussian": Case(lambda s: operators.GaussianBlur(s, sigma=0.4), low=5),
    "motion": Case(lambda s: operators.MotionBlur(s, size=5, intensity=0.8), low=5),
    "gaussian-rotated": Case(lambda s: operators.GaussianBlur(s, sigma=(0.4, 0.2), angle=30.0), low=5),
    "uniform": Case(lambda s: operators.UniformBlur(s, size=(2, 3)), low=5),
    "defocus": Case(lambda s: operators.DefocusBlur(s, radius=1.2), low=5),
    "reflect-odd": Case(lambda s: operators.ReflectBlur(s, symmetric_kernel(5, 3)), low=5),
    "reflect-even": Case(lambda s: operators.ReflectBlur(s, np.pad(symmetric_kernel(3, 5), [(1, 0), (0, 0)])), low=5),
    "reflect-singular": Case(lambda s: operators.ReflectBlur(s, np.full((3, 3), 1 / 9)), low=5),
    "separable-wide": Case(lambda s: operators.Separable(s, kernel(s[1] - 1, s[1]), kernel(2, s[2]))),
    "separable-singular": Case(lambda s: operators.Separable(s, np.ones((s[1], s[1])), kernel(s[2], s[2]))),
    **{
        f"separable-{b}": Case(
            lambda s, b=b: operators.SeparableBlur(s, np.outer(sharp_kernel(1, 4), sharp_kernel(1, 3)), b), low=5
        )
        for b in ("circular", "reflect", "replicate", "zero", "valid")
    },
    **{
        f"padded-{b}": Case(
            lambda s, b=b: operators.PaddedBlur(s, sharp_kernel(4, 5), b, tol=1e-14, max_iter=1000), low=5
        )
        for b in ("circular", "reflect", "replicate", "zero", "valid")
    },
    "inpainting": Case(lambda s: operators.Inpainting(s, operators.random_mask(s, keep=0.6)), masked=True),
    "inpainting-rows": Case(lambda s: operators.Inpainting(s, operators.row_mask(s, keep=0.6)), masked=True),
    "inpainting-channels": Case(lambda s: operators.Inpainting(s, masks(1, *s)[0]), masked=True),
    "sr-1": Case(lambda s: operators.SuperResolution(s, factor=1), low=1),
    "sr-2": Case(lambda s: operators.SuperResolution(s, factor=2), multiple=2),
    "sr-3": Case(lambda s: operators.SuperResolution(s, factor=3), multiple=3),
    "sr-bicubic-2": Case(lambda s: operators.BicubicSuperResolution(s, factor=2), multiple=2),
    "sr-bicubic-3": Case(lambda s: operators.BicubicSuperResolution(s, factor=3), multiple=3),
    "sr-bicubic-4": Case(lambda s: operators.BicubicSuperResolution(s, factor=4), multiple=4),
    "sr-cubic-2": Case(lambda s: operators.BicubicSuperResolution(s, factor=2, antialias=False), multiple=2),
    "sr-gaussian-2": Case(lambda s: operators.GaussianSuperResolution(s, factor=2, first=1), multiple=2),
    "sr-gaussian-3": Case(lambda s: operators.GaussianSuperResolution(s, factor=3, sigma=0.8), multiple=3),
    "sr-gaussian-4": Case(lambda s: operators.GaussianSuperResolution(s, factor=4), multiple=4),
    "colorization": Case(lambda s: operators.Colorization((3, *s[1:]))),
    "colorization-signed": Case(lambda s: operators.Colorization((3, *s[1:]), weights=(-0.5, 0.0, 2.0))),
    "grey": Case(lambda s: Grey((3, *s[1:]), tol=1e-14, max_iter=1000)),
    "stacked": Case(stacked, low=5),
    "cs": Case(lambda s: operators.CompressedSensing(s, rate=0.4)),
    "cs-full": Case(lambda s: operators.CompressedSensing(s, rate=1.0, seed=1), low=1),
    "cs-dct": Case(lambda s: operators.DCTSensing(s, rate=0.4)),
    "cs-gaussian": Case(lambda s: operators.GaussianSensing(s, rate=0.15)),
    "mri-lines": Case(lambda s: operators.MRI((2, *s[1:]), lines(*s[1:])), masked=True),
    "mri-random": Case(lambda s: operators.MRI((2, *s[1:]), operators.random_mask(s, keep=0.6)), masked=True),
    "multicoil-lines": Case(lambda s: multicoil(lines(*s[1:]), coil_maps(6, *s[1:])), masked=True),
    "multicoil-random": Case(lambda s: multicoil(operators.random_mask(s, keep=0.6), coil_maps(6, *s[1:])), masked=True),
    "multicoil-weighted": Case(lambda s: multicoil(lines(*s[1:]), coil_maps(6, *s[1:]), falling(*s[1:])), masked=True),
    "multicoil-phase": Case(lambda s: phase_constrained(*s[1:]), masked=True),
    "multicoil-sets": Case(lambda s: multicoil(operators.random_mask(s, 0.8), coil_maps(8, *s[1:], sets=2)), masked=True),
}
if importlib.util.find_spec("mrinufft") and importlib.util.find_spec("finufft"):  # invdiff[mri]; not in the table without
    OPERATORS["noncartesian"] = Case(lambda s: noncartesian(*s[1:]))
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
