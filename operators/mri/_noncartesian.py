"""The arguments of NonCartesianMRI, checked and in one shape."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from operators import _check
from operators.mri import _cartesian


def sizes(img_size: Sequence[int], points: Tensor) -> tuple[tuple[int, ...], int | None, tuple[int, ...]]:
    """Image size (2 M, [T,] *grid), the number of frames T or None, and the grid."""
    if points.ndim < 2 or points.shape[-1] not in (2, 3) or points.numel() == 0:
        raise ValueError(f"trajectory: expected points (K, 2), (shots, samples, 2) or (..., 3), got {tuple(points.shape)}")
    axes = points.shape[-1]
    try:
        size = tuple(operator.index(n) for n in img_size)
    except TypeError:
        size = ()
    if len(size) == axes:
        size = (2, *size)
    if len(size) not in (axes + 1, axes + 2) or min(size) < 1 or size[0] % 2:
        grid = "(H, W), (2, H, W) or (2, T, H, W)" if axes == 2 else "(D, H, W), (2, D, H, W) or (2, T, D, H, W)"
        raise ValueError(f"img_size: expected {grid} for a trajectory of {axes} coordinates, got {img_size!r}")
    frames = size[1] if len(size) == axes + 2 else None
    if frames is not None and (points.ndim < 3 or len(points) != frames):
        raise ValueError(
            f"trajectory: expected one for each of {frames} frames, ({frames}, K, {axes}), got {tuple(points.shape)}"
        )
    return size, frames, size[-axes:]


def trajectory(points: Tensor, frames: int | None, grid: tuple[int, ...]) -> Tensor:
    """The trajectory as (K, d) or (T, K, d), float64."""
    if points.is_complex():
        raise ValueError(f"trajectory: expected real coordinates, got {points.dtype}")
    points = points.double().reshape(*(() if frames is None else (frames,)), -1, len(grid))
    _check.finite("trajectory", points)
    limit, reach = [n / 2 for n in grid], points.abs().reshape(-1, len(grid)).amax(0).tolist()
    if any(r > m * (1 + 1e-5) for r, m in zip(reach, limit, strict=True)):
        raise ValueError(f"trajectory: expected cycles per field of view, within ±{limit}, half of {grid}, got up to {reach}")
    if max(reach) <= 0.5 and max(grid) > 2:
        raise ValueError(
            f"trajectory: expected cycles per field of view, up to ±{limit}, got up to {reach}; multiply normalised "
            f"coordinates in [-0.5, 0.5] by {grid}"
        )
    return points


def density(weights: Tensor | np.ndarray | None, shape: Sequence[int], frames: int | None) -> Tensor | None:
    """The density as (K,) or (T, K), for points in the shape in which they were given."""
    if weights is None:
        return None
    weights = _check.own_tensor(weights)
    flat = math.prod(shape) // (frames or 1)
    if tuple(weights.shape) not in (tuple(shape), (flat,) if frames is None else (frames, flat)):
        raise ValueError(f"density: expected one weight a point, {tuple(shape)}, got {tuple(weights.shape)}")
    if weights.is_complex():
        raise ValueError(f"density: expected real weights, got {weights.dtype}")
    _check.finite("density", weights)
    if (weights < 0).any() or not weights.any():
        low, high = weights.min().item(), weights.max().item()
        raise ValueError(f"density: expected weights >= 0, not all zero, got values in [{low}, {high}]")
    return weights.reshape(flat) if frames is None else weights.reshape(frames, flat)


def coil_maps(maps: Tensor | np.ndarray | None, sets: int, grid: tuple[int, ...]) -> Tensor:
    """The maps (1 or B, M, N, *grid)."""
    if maps is None and sets == 1:
        return torch.ones(1, 1, 1, *grid, dtype=torch.get_default_dtype().to_complex())
    if maps is None:
        raise ValueError(f"coil_maps: expected {sets} sets of maps for {2 * sets} channels, got None")
    maps = _cartesian.own_maps(maps, len(grid), grid)
    if maps.shape[1] != sets:
        raise ValueError(f"coil_maps: expected {sets} sets, half of img_size's channels, got {tuple(maps.shape)}")
    return maps
