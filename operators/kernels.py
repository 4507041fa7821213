"""Blur kernels: Gaussian, camera shake, uniform, out of focus. float64 (kh, kw), they sum to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from operators import _check


def gaussian_kernel(
    sigma: float | tuple[float, float] = 2.0, angle: float = 0.0, size: int | tuple[int, int] | None = None
) -> Tensor:
    """Samples of a Gaussian density.

    sigma: its standard deviation in pixels, > 0; a pair has its own for each principal axis, (down, across) at angle 0.
    angle: degrees by which both axes are turned counter-clockwise in the displayed image; 90 swaps them.
    size: of the kernel, an integer or (kh, kw). By default it reaches 5 standard deviations on each side.
    Raises ValueError on values outside these ranges.
    """
    widths, angle = _principal_axes(sigma, angle)
    radii = gaussian_radii(widths, angle)
    height, width = (2 * radii[0] + 1, 2 * radii[1] + 1) if size is None else as_size(size)
    down, across = np.arange(height) - height // 2, np.arange(width) - width // 2
    if angle == 0:
        profiles = [np.exp(-0.5 * (place / s) ** 2) for place, s in zip((down, across), widths, strict=True)]
        return torch.from_numpy(np.outer(*(profile / profile.sum() for profile in profiles)))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    first = (cos * down[:, None] + sin * across) / widths[0]
    second = (cos * across - sin * down[:, None]) / widths[1]
    return _normalised(np.exp(-0.5 * (first**2 + second**2)))


def gaussian_radii(sigma: float | tuple[float, float], angle: float) -> tuple[int, int]:
    """5 standard deviations of the Gaussian, down and across, rounded up to pixels."""
    widths, angle = _principal_axes(sigma, angle)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return (
        math.ceil(5 * math.hypot(cos * widths[0], sin * widths[1])),
        math.ceil(5 * math.hypot(sin * widths[0], cos * widths[1])),
    )


def _principal_axes(sigma: float | tuple[float, float], angle: float) -> tuple[tuple[float, float], float]:
    """Both standard deviations, and the angle in [0, 180), 0 where it changes nothing but their order."""
    pair = tuple(sigma) if isinstance(sigma, Sequence) and not isinstance(sigma, str) else (sigma, sigma)
    if len(pair) != 2:
        raise ValueError(f"sigma: expected a number or two, (down, across), got {sigma!r}")
    first, second = (_check.real("sigma", s, 0, math.inf, low_included=False) for s in pair)
    angle = _check.real("angle", angle, -math.inf, math.inf) % 180
    if first == second:
        angle = 0.0
    return ((second, first), 0.0) if angle == 90 else ((first, second), angle)


def motion_kernel(size: int = 21, intensity: float = 0.5, seed: int = 0) -> Tensor:
    """The trace (size, size) of a shaking camera: heading and log-speed follow smooth random walks.

    size: in pixels, odd, >= 3. intensity: 0 for a straight line in a random direction, 1 for a trace that turns back on
    itself. seed: an integer >= 0; one seed, one kernel. Its centre of mass is its centre.
    Raises ValueError on values outside these ranges.
    """
    size = _check.integer("size", size, 3)
    if size % 2 == 0:
        raise ValueError(f"size: expected an odd number of pixels, got {size}")
    intensity = _check.real("intensity", intensity, 0, 1)
    rng = np.random.default_rng(_check.integer("seed", seed, 0))
    time = (np.arange(64 * size) + 0.5) / (64 * size)
    # the first terms of the Karhunen-Loève series of Brownian motion on [0, 1]: a walk without its jitter
    rates = (np.arange(6) + 0.5) * np.pi
    walk = np.sqrt(2) * np.sin(time[:, None] * rates) / rates
    start = rng.uniform(0, 2 * np.pi)
    heading = start + 5 * intensity * walk @ rng.standard_normal(len(rates))
    speed = np.exp(intensity * walk @ rng.standard_normal(len(rates)))

    path = np.cumsum(speed[:, None] * np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0)
    path -= path.mean(axis=0)
    path *= (size // 2) / np.linalg.norm(path, axis=1).max()
    corner = np.clip(np.floor(path + size // 2).astype(int), 0, size - 2)
    part = path + size // 2 - corner
    kernel = np.zeros((size, size))
    for down in (0, 1):  # bilinear weights: they antialias the trace and keep its centre of mass
        for right in (0, 1):
            weight = np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1])
            np.add.at(kernel, (corner[:, 0] + down, corner[:, 1] + right), weight)
    return _normalised(kernel)


def uniform_kernel(size: int | tuple[int, int] = 9) -> Tensor:
    """The mean over `size` pixels, an integer or (kh, kw), >= 1; an even size is centred half a pixel off."""
    height, width = as_size(size)
    return torch.full((height, width), 1 / (height * width), dtype=torch.float64)


def disc_kernel(radius: float = 3.0) -> Tensor:
    """The image of a point out of focus: a disc of `radius` pixels, > 0. Each pixel has the exact area it covers."""
    radius = _check.real("radius", radius, 0, math.inf, low_included=False)
    reach = max(math.ceil(radius - 0.5), 0)
    edge = np.arange(-reach, reach + 2) - 0.5
    corner = _disc_corner_area(radius, edge[:, None], edge)
    area = corner[1:, 1:] - corner[:-1, 1:] - corner[1:, :-1] + corner[:-1, :-1]
    return _normalised(area.clip(0))


def _disc_corner_area(radius: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed area that a disc about the origin shares with the rectangle between the origin and (x, y)."""
    a, b = np.minimum(np.abs(x), radius), np.minimum(np.abs(y), radius)
    flat = np.minimum(np.sqrt(radius**2 - b**2), a)  # up to here the rectangle's side is the lower of the two

    def below_arc(t: np.ndarray) -> np.ndarray:
        return (t * np.sqrt(radius**2 - t**2) + radius**2 * np.arcsin(t / radius)) / 2

    return np.sign(x) * np.sign(y) * (b * flat + below_arc(a) - below_arc(flat))


def as_kernel(kernel: Tensor | np.ndarray, img_size: tuple[int, int, int], dtype: torch.dtype | None = None) -> Tensor:
    """A copy of the kernel (kh, kw), also given as (1, 1, kh, kw), in `dtype`, torch's default one if None.

    Raises ValueError unless it is one kernel that fits in the image.
    """
    kernel = _check.own_tensor(kernel)
    if kernel.ndim == 4 and kernel.shape[:2].numel() == 1:  # deepinv's shape
        kernel = kernel[0, 0]
    if kernel.ndim > 2:
        raise ValueError(
            "kernel: expected one for all images of a batch and their channels, (kh, kw) or (1, 1, kh, kw), got "
            f"{tuple(kernel.shape)}; use batch_size=1, or deepinv.physics.BlurFFT for a kernel an image"
        )
    if kernel.ndim != 2 or kernel.numel() == 0:
        raise ValueError(f"kernel: expected (kh, kw), got {tuple(kernel.shape)}")
    check_fits((kernel.shape[0], kernel.shape[1]), img_size)
    if kernel.is_complex():
        raise ValueError(f"kernel: expected real numbers, got {kernel.dtype}")
    if not kernel.isfinite().all() or not kernel.any():
        low, high = kernel.min().item(), kernel.max().item()
        raise ValueError(f"kernel: expected finite numbers, not all zero, got values in [{low}, {high}]")
    return kernel.to(dtype or torch.get_default_dtype())


def check_fits(size: tuple[int, int], img_size: tuple[int, int, int]) -> None:
    """Raise unless a kernel of `size` is no larger than the image."""
    if size[0] > img_size[1] or size[1] > img_size[2]:
        raise ValueError(f"kernel: expected at most (H, W) = {img_size[1:]}, got {size}")


def as_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """An integer >= 1, or two, as (kh, kw)."""
    pair = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"size: expected an integer or two, (kh, kw), got {size!r}")
    return _check.integer("size", pair[0], 1), _check.integer("size", pair[1], 1)


def _normalised(kernel: np.ndarray) -> Tensor:
    return torch.from_numpy(kernel / kernel.sum())
