"""Trajectories through k-space, and weights that make up for their uneven density.

Points are (ky, kx), or (kz, ky, kx), ky along the rows, in cycles per field of view: a grid of N pixels reaches from -N / 2 to
N / 2, whatever the unit of length. It is what `NonCartesianMRI` takes, and the unit of SigPy and BART. With pixels that are
square, a radial trajectory of a rectangular image is an ellipse in these units. All tensors are float64.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from operators import _check
from operators.mri._nufft import Nufft


def radial(
    img_size: Sequence[int], spokes: int, samples: int | None = None, golden: bool = False, tiny: int = 1, first: int = 0
) -> Tensor:
    """Spokes through the centre, (spokes, samples, 2).

    img_size: (H, W), or (C, H, W). spokes: 1.57 max(H, W) sample the disc fully. samples: on a spoke, twice max(H, W) by
    default; sample i is at (i - samples // 2) / samples of the diameter, so the centre is sampled. Spoke j is at
    j · 180° / spokes from the kx axis; or, if golden, at j · 111.25° (Winkelmann et al. 2007), and with tiny > 1 at
    j · 180° / (1.618 + tiny - 1), the tiny golden angles, 23.6° for tiny = 7 (Wundrak et al. 2015). first: the first j, with
    which a series of golden-angle frames goes on.
    Raises ValueError on a number that is not an integer in its range.
    """
    size = _grid(img_size, 2)
    samples = 2 * max(size) if samples is None else samples
    spokes, tiny, first = (
        _check.integer(*v) for v in (("spokes", spokes, 1), ("tiny", tiny, 1), ("first", first, 0))
    )
    step = math.pi / ((1 + 5**0.5) / 2 + tiny - 1) if golden else math.pi / spokes
    angle = step * (first + torch.arange(spokes, dtype=torch.float64))
    return _spokes(torch.stack([angle.sin(), angle.cos()], dim=-1), samples, size)


def kooshball(img_size: Sequence[int], spokes: int, samples: int | None = None) -> Tensor:
    """Spokes through the centre of a volume, (spokes, samples, 3), spread by the golden means in two dimensions.

    img_size: (D, H, W), or (C, D, H, W). samples: twice the longest side by default.
    Raises ValueError on a number that is not a positive integer. Source: Chan et al. 2009, Eqs. 1 to 3.
    """
    size = _grid(img_size, 3)
    index = torch.arange(_check.integer("spokes", spokes, 1), dtype=torch.float64)
    height, turn = index * 0.465571231876768 % 1, index * 0.682327803828019 % 1  # of half a sphere: a spoke has two ends
    across, angle = (1 - height**2).sqrt(), 2 * torch.pi * turn
    direction = torch.stack([height, across * angle.sin(), across * angle.cos()], dim=-1)
    return _spokes(direction, 2 * max(size) if samples is None else samples, size)


def spiral(
    img_size: Sequence[int],
    interleaves: int,
    samples: int | None = None,
    turns: float | None = None,
    power: float = 1.0,
    golden: bool = False,
) -> Tensor:
    """Spirals from the centre outwards, k(t) = k_max t^power exp(2 pi i turns t) for t in [0, 1), (interleaves, samples, 2).

    img_size: (H, W), or (C, H, W). power: 1 is Archimedean, the same distance between turns everywhere; more makes the
    centre denser (Kim et al. 2003, Eq. 1, with constant angular velocity in the place of a gradient limit). turns: of each
    interleave; by default, those that leave 1 cycle per field of view between neighbours at the edge. samples: by default,
    at most 1 cycle per field of view apart. Interleaves are turned by 360° / interleaves, or, if golden, by 222.5°.
    Raises ValueError on a number outside these ranges.
    """
    size = _grid(img_size, 2)
    interleaves = _check.integer("interleaves", interleaves, 1)
    power = _check.real("power", power, 1, math.inf)
    turns = power * max(size) / (2 * interleaves) if turns is None else _check.real("turns", turns, 0, math.inf)
    fastest = max(size) / 2 * math.hypot(power, 2 * math.pi * turns)  # at the edge, in cycles per field of view for a unit of t
    samples = math.ceil(fastest) if samples is None else _check.integer("samples", samples, 1)
    time = torch.arange(samples, dtype=torch.float64) / samples
    step = 4 * math.pi / (1 + 5**0.5) if golden else 2 * math.pi / interleaves
    angle = 2 * torch.pi * turns * time + step * torch.arange(interleaves, dtype=torch.float64)[:, None]
    return time[:, None] ** power / 2 * torch.stack([angle.sin(), angle.cos()], dim=-1) * torch.tensor(size)


def stack(trajectory: Tensor, partitions: int) -> Tensor:
    """A plane's trajectory (..., 2) in each partition kz = -partitions // 2, ..., as (partitions, ..., 3): stack of stars.

    partitions: of a volume with D = partitions. Raises ValueError on a trajectory that is not (..., 2).
    """
    if trajectory.ndim < 2 or trajectory.shape[-1] != 2:
        raise ValueError(f"trajectory: expected points (..., 2), got {tuple(trajectory.shape)}")
    count = _check.integer("partitions", partitions, 1)
    kz = torch.arange(count, dtype=trajectory.dtype, device=trajectory.device) - count // 2
    kz = kz.reshape(-1, *[1] * trajectory.ndim).expand(-1, *trajectory.shape[:-1], 1)
    return torch.cat([kz, trajectory.expand(count, *trajectory.shape)], dim=-1)


def radial_density(trajectory: Tensor | np.ndarray, img_size: Sequence[int]) -> Tensor:
    """The area of k-space nearest to each sample of straight spokes through the centre, (spokes, samples): a ramp.

    trajectory: (spokes, samples, 2), samples evenly spaced; the spokes may be at any angles, each gets its share of the gaps
    beside it. (spokes, samples, 3), volumes, each spoke the same share. img_size: (H, W), or (D, H, W), or with channels.
    In (cycles per field of view)²: AᴴWA is about the identity, for maps whose squares sum to 1, where sampling is dense.
    Raises ValueError on a trajectory of another shape, or whose spokes miss the centre.
    """
    points = _check.own_tensor(trajectory).cpu().double()
    axes = points.shape[-1]
    if points.ndim != 3 or axes not in (2, 3) or points.shape[1] < 2:
        raise ValueError(f"trajectory: expected spokes (spokes, samples, 2 or 3), got {tuple(points.shape)}")
    size = _grid(img_size, axes)
    points = points / torch.tensor(size)  # cycles per pixel, where spokes are at their angles in space
    radius, along = points.norm(dim=-1), points[:, -1] - points[:, 0]
    step = along.norm(dim=-1, keepdim=True) / (points.shape[1] - 1)
    direction = along / along.norm(dim=-1, keepdim=True)
    missed = (points - (points * direction[:, None]).sum(-1, keepdim=True) * direction[:, None]).abs().max().item()
    if not missed < 1e-4:
        raise ValueError(f"trajectory: expected straight spokes through the centre, got one {missed:g} cycles per pixel off")
    share = _angles(direction) if axes == 2 else torch.full_like(step, 2 * torch.pi / len(points))  # of half a turn or sphere
    cell = ((radius + step / 2) ** axes - (radius - step / 2).clamp(min=0) ** axes) / axes
    centre = radius < 1e-3 * step
    return torch.where(centre, 2, 1) * cell * share * math.prod(size)  # the cell of the centre has both ends of the spoke


def iterative_density(trajectory: Tensor | np.ndarray, img_size: Sequence[int], iterations: int = 30) -> Tensor:
    """Weights under which the density of any trajectory is even, its shape without the last axis: w <- w / (C w), from ones.

    C is the convolution with the square of a sinc one cycle per field of view wide: its transform, a triangle, reaches as
    far as two pixels of the image can be apart, so C w = 1 is a point spread function without side lobes in the image.
    It has no negative values, so neither have the weights. img_size: (H, W), or (D, H, W), or with channels.
    In (cycles per field of view)², as those of `radial_density`. Two NUFFTs of twice the size an iteration.
    Raises ValueError on a trajectory of another shape. Source: Pipe & Menon 1999, Eq. 10; the kernel is ours.
    """
    points = _check.own_tensor(trajectory).cpu().double()
    if points.ndim < 2 or points.shape[-1] not in (2, 3) or points.numel() == 0:
        raise ValueError(f"trajectory: expected points (..., 2) or (..., 3), got {tuple(points.shape)}")
    _check.finite("trajectory", points)
    size = _grid(img_size, points.shape[-1])
    doubled = [2 * n for n in size]
    nufft = Nufft(2 * points.reshape(-1, len(size)), doubled, 1, 1e-5)
    triangle = torch.full((1,) * len(size), 2.0 ** len(size), dtype=torch.float64)
    for axis, n in enumerate(size):
        side = 1 - (torch.arange(2 * n, dtype=torch.float64) - n).abs() / n
        triangle = triangle * side.reshape([-1 if a == axis else 1 for a in range(len(size))])
    weights = torch.ones(1, nufft.count, dtype=torch.float64)
    for _ in range(_check.integer("iterations", iterations, 1)):
        weights = weights / nufft.forward(triangle * nufft.adjoint(weights)).real
    return weights.reshape(points.shape[:-1])


def _grid(img_size: Sequence[int], axes: int) -> tuple[int, ...]:
    """The last `axes` of img_size, positive ints; it may have channels, and frames, before."""
    try:
        size = tuple(operator.index(n) for n in img_size)
    except TypeError:
        size = ()
    if not axes <= len(size) <= axes + 2 or min(size) < 1:
        raise ValueError(f"img_size: expected {'(H, W)' if axes == 2 else '(D, H, W)'}, or with channels, got {img_size!r}")
    return size[-axes:]


def _spokes(direction: Tensor, samples: int, size: tuple[int, ...]) -> Tensor:
    """(spokes, samples, d) along unit vectors (spokes, d)."""
    samples = _check.integer("samples", samples, 1)
    radius = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    return radius[:, None] * direction[:, None] * torch.tensor(size)


def _angles(direction: Tensor) -> Tensor:
    """Half of the two gaps between the angle of each spoke and its neighbours', (spokes, 1); they sum to pi."""
    angle = torch.atan2(direction[:, 0], direction[:, 1]) % torch.pi
    order = angle.argsort()
    ordered = angle[order]
    gap = torch.cat([ordered[1:], ordered[:1] + torch.pi]) - ordered
    share = torch.empty_like(angle)
    share[order] = (gap + gap.roll(1)) / 2
    return share[:, None]
