"""Panels of the plane: a density as the background, points on it."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from invdiff.illustrations.style import DENSITY, INK, bare

Extent = tuple[float, float, float, float]      # left, right, bottom, top
UNIT_SQUARE: Extent = (0.0, 1.0, 0.0, 1.0)


def around(centre: float, half: float) -> Extent:
    """The square of this half width around (centre, centre)."""
    return (centre - half, centre + half, centre - half, centre + half)


def grid(extent: Extent, count: int) -> Tensor:
    """Points (count^2, 1, 1, 2) in float64 at the centres of the cells of a square, row after row from below."""
    left, right, bottom, top = extent
    cells = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    y, x = torch.meshgrid(bottom + (top - bottom) * cells, left + (right - left) * cells, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 1, 1, 2)


def density(axes: Axes, log_prob: Callable[[Tensor], Tensor], extent: Extent, count: int = 150, strength: float = 1.0) -> None:
    """The density exp(log_prob) of points (N, 1, 1, 2), darkest at its maximum if strength is 1, lighter below that."""
    values = log_prob(grid(extent, count)).reshape(count, count).numpy()
    shown = np.exp(values - values.max())
    axes.imshow(shown, cmap=DENSITY, vmin=0, vmax=1 / strength, extent=extent, origin="lower", interpolation="bilinear")
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    bare(axes)


def points(axes: Axes, x: Tensor, colour: object = INK, size: float = 3.0, alpha: float = 0.6) -> None:
    """Points (N, ..., 2), as pixels also in a vector graphic, where thousands would be slow. `colour`: one, or one for each."""
    at = x.detach().reshape(-1, 2).numpy()
    axes.scatter(at[:, 0], at[:, 1], s=size, c=colour, alpha=alpha, linewidths=0, rasterized=True)      # type: ignore[arg-type]
