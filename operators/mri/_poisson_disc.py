"""Dart throwing on a grid: the method behind `sampling.poisson_disc`."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def poisson_disc(growth: Array, allowed: Array, fixed: Array, target: int, rng: np.random.Generator) -> tuple[Array, float]:
    """A bool array (H, W) with exactly `target` samples, all of `fixed` among them, and the slope it was drawn with.

    A sample at p keeps the others away by radius(p) = 0.75 + slope · growth[p] + u, u uniform in [-0.25, 0.25); up to 1
    that is nobody. Darts land on all of `allowed`, in random order. The slope is searched for until at most 0.5 % more
    of them than wanted stay (small grids may not get there); the surplus is taken out at random. growth: >= 0, (H, W).
    """
    width = growth.shape[1]
    fixed_points = np.argwhere(fixed)
    darts = rng.permutation(np.argwhere(allowed & ~fixed))
    points = np.concatenate([fixed_points, darts])  # (N, 2), in the order of landing
    dither = rng.uniform(-0.25, 0.25, size=len(points))
    wanted = target - len(fixed_points)
    # without a radius every dart stays; 1 / sqrt(samples) is nearly linear in the slope, so false position is fast
    low, best = 0.0, np.arange(len(fixed_points), len(points))
    high, fewest = math.inf, 0
    for attempt in range(40):
        if len(best) <= 1.005 * wanted:
            break
        if math.isinf(high):
            slope = 2 * low or 2.0
        elif attempt % 4 == 3 or not fewest:
            slope = (low + high) / 2
        else:
            first, last, goal = (count**-0.5 for count in (len(best), fewest, 1.0025 * wanted))
            slope = low + (high - low) * (goal - first) / (last - first)
        radius = 0.75 + slope * growth[points[:, 0], points[:, 1]] + dither
        kept = _throw(points, np.minimum(radius, math.hypot(*growth.shape)), len(fixed_points), growth.shape)
        if len(kept) >= wanted:
            low, best = slope, kept
        else:
            high, fewest = slope, len(kept)
    chosen = points[rng.permutation(best)[:wanted]]
    mask = fixed.copy()
    mask.reshape(-1)[chosen[:, 0] * width + chosen[:, 1]] = True
    return mask, low


def _throw(points: Array, radius: Array, fixed: int, shape: tuple[int, ...]) -> Array:
    """Indices of the points that stay when they land one after another; the first `fixed` stay, and are not listed."""
    reach = math.ceil(radius.max())
    stride = shape[1] + 2 * reach  # a border all round, so that no disc has to be clipped
    dy, dx = (d.ravel() for d in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    squared = dy**2 + dx**2
    nearest_first = np.argsort(squared, kind="stable")
    disc = (dy * stride + dx)[nearest_first]
    sizes = np.searchsorted(squared[nearest_first], np.maximum(radius, 1) ** 2).tolist()  # strictly nearer than the radius
    places = ((points[:, 0] + reach) * stride + points[:, 1] + reach).tolist()
    taken = bytearray((shape[0] + 2 * reach) * stride)
    view = np.frombuffer(taken, dtype=np.uint8)
    for place, size in zip(places[:fixed], sizes[:fixed], strict=True):
        view[disc[:size] + place] = 1
    kept = []
    for index in range(fixed, len(places)):
        place = places[index]
        if not taken[place]:
            kept.append(index)
            if sizes[index] > 1:
                view[disc[: sizes[index]] + place] = 1
    return np.array(kept, dtype=int)
