"""Sampling masks: which points of Cartesian k-space are measured.

    mask = sampling.random_lines((320, 320), acceleration=4, center_fraction=0.08, seed=0)
    mask = sampling.poisson_disc((320, 320), acceleration=6, calib=24) & sampling.partial_fourier((320, 320), 0.75)
    sampling.report(mask)     # {"acceleration": 7.03, "kept": 14566, "total": 102400, "center": (24, 24)}

A mask is a bool tensor (H, W), True = measured, of centred k-space, whose origin is index (H // 2, W // 2).
Lines are whole columns, as in fastMRI: the last axis is undersampled. For the other one transpose: `mask.T`.

shape: (H, W). acceleration: >= 1, the number of points over the number of kept ones, the centre counted among both; a
function says where it means something else. center_fraction: in [0, 1], round(center_fraction · W) columns in
the middle are kept. calib: size of the block in the middle that is kept, a number or (rows, columns), 0 for none. seed:
an integer >= 0. A value out of range, or an acceleration that cannot be met, raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from operators import _check
from operators.mri import _lines, _poisson_disc
from operators.mri._lines import equispaced_fraction_lines, equispaced_lines, gaussian_lines, magic_lines, random_lines

__all__ = [
    "achieved_acceleration",
    "caipi",
    "center_block",
    "dynamic",
    "equispaced_fraction_lines",
    "equispaced_lines",
    "gaussian_lines",
    "gaussian_points",
    "magic_lines",
    "partial_fourier",
    "poisson_disc",
    "radial_lines",
    "random_lines",
    "report",
]

GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2  # 111.25 degrees


def gaussian_points(
    shape: Sequence[int], acceleration: float = 4, calib: int | tuple[int, int] = 24, seed: int = 0, spread: float = 0.2
) -> Tensor:
    """The calibration block, and points drawn without replacement with Gaussian weights.

    Keeps round(H · W / acceleration). spread: standard deviation of the weights, as a fraction of H and of W.
    """
    center = center_block(shape, calib).numpy()
    return torch.from_numpy(_lines.draw_gaussian(center, acceleration, seed, spread))


def poisson_disc(
    shape: Sequence[int],
    acceleration: float = 4,
    calib: int | tuple[int, int] = 24,
    seed: int = 0,
    corners: bool = False,
    decay: float = 1.0,
) -> Tensor:
    """The calibration block, and a Poisson disc whose points thin out away from the origin.

    Keeps round(H · W / acceleration). Two kept points p, q, not both in the block, are at least min(r(p), r(q)) - 0.25
    steps of the grid apart, where r = 0.75 + s · k^decay, k is the distance from the origin, 1 on the inscribed ellipse,
    and s follows from the acceleration. Below an acceleration of 3 or so neighbours must be kept, and it looks random.
    corners: whether points outside the ellipse may be kept. decay: >= 0; 0 is the same density everywhere.
    Dart throwing (Cook 1986, Bridson 2007) on the grid.
    """
    height, width = _lines.grid(shape)
    decay = _check.real("decay", decay, 0, math.inf)
    center = center_block(shape, calib).numpy()
    k = np.hypot(*np.ix_(*((np.arange(n) - n // 2) / (n / 2) for n in (height, width))))
    target = _lines.budget(center, acceleration)
    allowed = (k <= 1) | corners
    _require_room(allowed | center, target, acceleration)
    generator = np.random.default_rng(_check.integer("seed", seed, 0))
    return torch.from_numpy(_poisson_disc.poisson_disc(k**decay, allowed, center, target, generator)[0])


def radial_lines(
    shape: Sequence[int],
    acceleration: float | None = None,
    spokes: int | None = None,
    seed: int = 0,
    golden: bool = True,
    corners: bool = False,
) -> Tensor:
    """Spokes through the origin, drawn on the grid.

    Give one of the two: spokes, their number, or acceleration, for the number that comes nearest. golden: each spoke is
    111.25 degrees from the one before (Winkelmann et al. 2007); else they divide 180 degrees evenly. seed: turns all of
    them. corners: whether spokes run on to the corners; else they end at the inscribed ellipse.
    """
    height, width = _lines.grid(shape)
    first = np.random.default_rng(_check.integer("seed", seed, 0)).uniform(0, math.pi)

    def draw(count: int) -> np.ndarray:
        step = GOLDEN_ANGLE if golden else math.pi / count
        return _spokes(height, width, first + step * np.arange(count), corners)

    if (acceleration is None) == (spokes is None):
        raise ValueError(f"acceleration, spokes: expected one of the two, got {acceleration} and {spokes}")
    if acceleration is None:
        return torch.from_numpy(draw(_check.integer("spokes", spokes, 1)))
    target = height * width / _check.real("acceleration", acceleration, 1, math.inf)
    fewest, most = 1, 8 * max(height, width)
    _require_room(draw(most), target, acceleration)
    if target < draw(fewest).sum():
        raise ValueError(
            f"acceleration: expected at most {height * width / draw(fewest).sum():.4g}, that of one spoke, got {acceleration}"
        )
    while most - fewest > 1:
        middle = (fewest + most) // 2
        fewest, most = (middle, most) if draw(middle).sum() <= target else (fewest, middle)
    return torch.from_numpy(min((draw(n) for n in (fewest, most)), key=lambda mask: abs(mask.sum() - target)))


def partial_fourier(shape: Sequence[int], fraction: float = 0.75, axis: int = -1, reverse: bool = False) -> Tensor:
    """The first round(fraction · n) of the n lines along `axis`, 0 or 1, or -2 or -1; with reverse the last ones.

    fraction: above 0.5, at most 1, so that the origin is kept.
    """
    size = _lines.grid(shape)
    if axis not in (-2, -1, 0, 1):
        raise ValueError(f"axis: expected 0 or 1, or -2 or -1, got {axis!r}")
    n = size[axis]
    kept = round(n * _check.real("fraction", fraction, 0, 1))
    if kept <= n // 2:
        raise ValueError(f"fraction: expected more than {n // 2} of {n} lines, to keep the origin, got {fraction}")
    line = np.arange(n) >= n - kept if reverse else np.arange(n) < kept
    line = line[:, None] if axis in (-2, 0) else line
    return torch.from_numpy(np.broadcast_to(line, size).copy())


def caipi(
    shape: Sequence[int], acceleration: tuple[int, int] = (2, 2), shift: int = 1, calib: int | tuple[int, int] = 24
) -> Tensor:
    """Every ry-th row and rz-th column, each kept row shifted by `shift` columns against the one before; and the block.

    acceleration: (ry, rz); the calibration block comes on top. shift: 0 to rz - 1. The origin is on the lattice.
    2D CAIPIRINHA, Breuer et al. 2006.
    """
    size = _lines.grid(shape)
    try:
        ry, rz = (_check.integer("acceleration", r, 1) for r in acceleration)
    except (TypeError, ValueError):
        raise ValueError(f"acceleration: expected two integers (ry, rz) of at least 1, got {acceleration!r}") from None
    if _check.integer("shift", shift, 0) >= rz:
        raise ValueError(f"shift: expected 0 to rz - 1 = {rz - 1}, got {shift}")
    y, z = np.ix_(*(np.arange(n) - n // 2 for n in size))
    return torch.from_numpy((y % ry == 0) & ((z - shift * (y // ry)) % rz == 0)) | center_block(shape, calib)


def center_block(shape: Sequence[int], calib: int | tuple[int, int] = 24) -> Tensor:
    """The calibration block alone, to be combined with a mask by |."""
    size = _lines.grid(shape)
    sides = tuple(calib) if isinstance(calib, Sequence) else (calib, calib)
    if len(sides) != 2 or any(_check.integer("calib", c, 0) > n for c, n in zip(sides, size, strict=True)):
        raise ValueError(f"calib: expected a block no larger than (H, W) = {size}, got {calib!r}")
    rows, columns = (_lines.block(n, c) for n, c in zip(size, sides, strict=True))
    return torch.from_numpy(rows[:, None] & columns)


def dynamic(mask_function: Callable[..., Tensor], frames: int, seed: int = 0, interleave: bool = False) -> Tensor:
    """A mask for each frame, (T, H, W): dynamic(partial(random_lines, (320, 320), acceleration=8), frames=20).

    mask_function is called with a seed, another for each frame; frame t does not depend on the number of frames. With
    interleave it is called with that seed and offset=t: the lines of `equispaced_lines` then move by a column a frame,
    and any `acceleration` frames in a row cover k-space.
    """
    count = _check.integer("frames", frames, 1)
    seeds = np.random.SeedSequence(_check.integer("seed", seed, 0)).generate_state(count).tolist()
    return torch.stack([mask_function(seed=s, **({"offset": t} if interleave else {})) for t, s in enumerate(seeds)])


def achieved_acceleration(mask: Tensor) -> float:
    """The number of points over the number of kept ones, the centre counted among both; of all frames together."""
    kept = int(torch.as_tensor(mask).count_nonzero())
    if kept == 0:
        raise ValueError(f"mask: expected at least one measured point, got none in {tuple(mask.shape)}")
    return mask.numel() / kept


def report(mask: Tensor) -> dict[str, float | int | tuple[int, int]]:
    """What a mask (H, W), or (T, H, W), keeps: "acceleration", "kept", "total", and "center".

    center: (rows, columns) of the largest block in the middle that is kept whole, in every frame. It is placed as
    `center_block` is, and larger than the one asked for where its neighbours happen to be kept too.
    """
    sampled = torch.as_tensor(mask).cpu().numpy() != 0
    acceleration = achieved_acceleration(torch.from_numpy(sampled))
    common = sampled.reshape(-1, *sampled.shape[-2:]).all(0)
    rows, columns = (np.argsort(np.abs(np.arange(n) - (n - 1) / 2 - 0.25)) for n in common.shape)  # as a block grows
    whole = np.logical_and.accumulate(np.logical_and.accumulate(common[rows][:, columns], 0), 1)
    widths = whole.sum(1)  # of the widest block with 1, 2, ... rows
    best = int((widths * np.arange(1, len(widths) + 1)).argmax())
    center = (best + 1 if widths[best] else 0, int(widths[best]))
    return {"acceleration": acceleration, "kept": int(sampled.sum()), "total": sampled.size, "center": center}


def _spokes(height: int, width: int, angles: np.ndarray, corners: bool) -> np.ndarray:
    """A bool array (H, W): the point nearest to a spoke, in each row that a steep one crosses, or column of a flat one."""
    dy, dx = height * np.sin(angles)[:, None], width * np.cos(angles)[:, None]
    steps = np.arange(-max(height, width), max(height, width) + 1) / np.maximum(np.abs(dy), np.abs(dx))
    y, x = np.rint(dy * steps).astype(int), np.rint(dx * steps).astype(int)
    inside = (np.abs(y + 0.5 * (height % 2 == 0)) < height / 2) & (np.abs(x + 0.5 * (width % 2 == 0)) < width / 2)
    if not corners:
        inside &= (y / height) ** 2 + (x / width) ** 2 <= 0.25
    mask = np.zeros((height, width), dtype=bool)
    mask[y[inside] + height // 2, x[inside] + width // 2] = True
    return mask


def _require_room(allowed: np.ndarray, target: float, acceleration: float) -> None:
    room = int(allowed.sum())
    if target > room:
        raise ValueError(
            f"acceleration: expected at least {allowed.size / room:.4g} without the corners of k-space, got {acceleration}"
        )
