"""Masks of whole columns: fastMRI's rules and a Gaussian density. Public as `operators.mri.sampling`."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from operators import _check


def random_lines(
    shape: Sequence[int], acceleration: float = 4, center_fraction: float = 0.08, seed: int | tuple[int, ...] = 0
) -> Tensor:
    """Columns at random: fastMRI's `RandomMaskFunc`, bit for bit. The acceleration is met in the mean (Zbontar et al. 2018).

    seed: below 2^32, or several, as fastMRI makes them of a file's name: tuple(map(ord, "file1000000.h5")).
    """
    height, width = grid(shape)
    center = _center(width, acceleration, center_fraction)
    lines = int(center.sum())
    probability = (width / acceleration - lines) / (width - lines) if lines < width else 0.0
    return _columns(height, center | (_legacy_generator(seed).uniform(size=width) < probability))


def equispaced_lines(
    shape: Sequence[int],
    acceleration: int = 4,
    center_fraction: float = 0.08,
    seed: int | tuple[int, ...] = 0,
    offset: int | None = None,
) -> Tensor:
    """Every `acceleration`-th column, and the centre: fastMRI's `EquiSpacedMaskFunc`, bit for bit.

    The acceleration is not met, since the centre comes on top. offset: of the first column, modulo acceleration; drawn
    from the seed where it is None. seed: as in `random_lines`.
    """
    height, width = grid(shape)
    step = _check.integer("acceleration", acceleration, 1)
    mask = _center(width, None, center_fraction)
    mask[_start(offset, step, seed) :: step] = True
    return _columns(height, mask)


def equispaced_fraction_lines(
    shape: Sequence[int],
    acceleration: float = 4,
    center_fraction: float = 0.08,
    seed: int | tuple[int, ...] = 0,
    offset: int | None = None,
) -> Tensor:
    """Columns at nearly even steps, wider to pay for the centre: fastMRI's `EquispacedMaskFractionFunc`, bit for bit.

    The acceleration is met up to a few columns, by how the steps fall on the centre; at acceleration 1 the rule leaves
    the last column out. offset: of the first column, modulo the step; drawn from the seed where it is None. seed: as in
    `random_lines`.
    """
    height, width = grid(shape)
    mask = _center(width, acceleration, center_fraction)
    lines = int(mask.sum())
    if lines < width / acceleration:
        step = (acceleration * (lines - width)) / (lines * acceleration - width)
        mask[np.around(np.arange(_start(offset, round(step), seed), width - 1, step)).astype(int)] = True
    return _columns(height, mask)


def magic_lines(
    shape: Sequence[int],
    acceleration: int = 4,
    center_fraction: float = 0.08,
    seed: int | tuple[int, ...] = 0,
    offset: int | None = None,
) -> Tensor:
    """Every `acceleration`-th column, shifted between the halves of k-space: fastMRI's `MagicMaskFunc`, bit for bit.

    Where a column is kept its mirror image is not, of which it tells most (Defazio 2019, arXiv:1912.01101). The
    acceleration is not met, since the centre comes on top. offset: modulo acceleration; drawn from the seed where it is
    None. seed: as in `random_lines`.
    """
    height, width = grid(shape)
    step = _check.integer("acceleration", acceleration, 1)
    mask = _center(width, None, center_fraction)
    start = _start(offset, step, seed)
    positive, negative = (start + 1, start + 2) if start % 2 == 0 else (start + 2, start - 1)
    mask[width // 2 :][positive::step] = True  # frequencies 0, 1, 2, ...
    mask[: width // 2][::-1][negative::step] = True  # frequencies -1, -2, ...
    return _columns(height, mask)


def gaussian_lines(
    shape: Sequence[int], acceleration: float = 4, center_fraction: float = 0.08, seed: int = 0, spread: float = 0.2
) -> Tensor:
    """The centre, and columns drawn without replacement with Gaussian weights: round(W / acceleration) in all.

    spread: standard deviation of the weights, as a fraction of W; 15/128 in Chung & Ye (2022).
    """
    height, width = grid(shape)
    center = _center(width, None, center_fraction)
    return _columns(height, draw_gaussian(center, acceleration, seed, spread))


def draw_gaussian(center: np.ndarray, acceleration: float, seed: int, spread: float) -> np.ndarray:
    """`center`, and points drawn with Gaussian weights: a bool array with round(size / acceleration) points."""
    spread = _check.real("spread", spread, 0, math.inf, low_included=False)
    count = budget(center, acceleration)
    squares = (((np.arange(n) - n // 2) / (spread * n)) ** 2 for n in center.shape)
    exponent = sum(np.ix_(*squares)) / 2  # minus the logarithm of the weights
    generator = np.random.default_rng(_check.integer("seed", seed, 0))
    # the smallest of independent exponential variables over weights are a weighted draw without replacement
    arrival = np.where(center, -np.inf, np.log(generator.exponential(size=center.shape)) + exponent)
    mask = np.zeros(center.size, dtype=bool)
    mask[np.argsort(arrival, axis=None, kind="stable")[:count]] = True
    return mask.reshape(center.shape)


def grid(shape: Sequence[int]) -> tuple[int, int]:
    """`shape` as two positive ints."""
    try:
        height, width = (operator.index(n) for n in shape)
    except (TypeError, ValueError):
        raise ValueError(f"shape: expected two integers (H, W), got {shape!r}") from None
    if min(height, width) < 1:
        raise ValueError(f"shape: expected (H, W) of at least 1 each, got {tuple(shape)}")
    return height, width


def block(size: int, kept: int) -> np.ndarray:
    """A bool array (size,), True at the `kept` places in the middle, size // 2 the first of them."""
    start = (size - kept + 1) // 2
    return (np.arange(size) >= start) & (np.arange(size) < start + kept)


def budget(center: np.ndarray, acceleration: float) -> int:
    """How many points to keep, round(size / acceleration); raises where that is none, or less than the centre."""
    count = round(center.size / _check.real("acceleration", acceleration, 1, math.inf))
    if count < max(1, int(center.sum())):
        raise ValueError(
            f"acceleration: expected at most {center.size / max(1, int(center.sum())):.4g}, with {int(center.sum())} of "
            f"{center.size} lines or points in the centre, got {acceleration}"
        )
    return count


def _center(width: int, acceleration: float | None, center_fraction: float) -> np.ndarray:
    """The columns in the middle; they must fit into width / acceleration, where it is given."""
    lines = round(width * _check.real("center_fraction", center_fraction, 0, 1))
    if acceleration is not None and lines > width / _check.real("acceleration", acceleration, 1, math.inf):
        raise ValueError(
            f"center_fraction: expected at most {math.floor(width / acceleration)} of {width} columns, all that "
            f"acceleration {acceleration} leaves, got {center_fraction}, which is {lines} columns"
        )
    return block(width, lines)


def _columns(height: int, kept: np.ndarray) -> Tensor:
    if not kept.any():
        raise ValueError(f"center_fraction: expected at least one column of {kept.size} to be kept, got none; make it larger")
    return torch.from_numpy(np.tile(kept, (height, 1)))


def _start(offset: int | None, step: int, seed: int | tuple[int, ...]) -> int:
    if offset is None:
        return int(_legacy_generator(seed).randint(0, high=step))
    return _check.integer("offset", offset, 0) % step


def _legacy_generator(seed: int | tuple[int, ...]) -> np.random.RandomState:
    """The generator of fastMRI's rules, whose stream NumPy has frozen."""
    seeds = [_check.integer("seed", s, 0) for s in (seed if isinstance(seed, tuple | list) else [seed])]
    if not seeds or max(seeds) >= 2**32:
        raise ValueError(f"seed: expected an integer below 2^32, or several, got {seed!r}")
    return np.random.RandomState(seeds if isinstance(seed, tuple | list) else seeds[0])
