"""The head that `phantom` shows: an axial slice at the level of the ventricles, T2-weighted, with things to look for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Ellipse:
    """A uniform ellipse; where ellipses overlap, their intensities add.

    centre: (y, x), in units of half the field of view. axes: half lengths (along y, along x) before it is turned by `angle`
    degrees, from the y axis (down) towards the x axis (right). Raises ValueError for axes that are not positive.
    """

    intensity: float
    centre: tuple[float, float]
    axes: tuple[float, float]
    angle: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.intensity, *self.centre, *self.axes, self.angle)
        if len(numbers) != 6 or not all(map(math.isfinite, numbers)) or min(self.axes) <= 0:
            raise ValueError(
                f"Ellipse: expected an intensity, a centre (y, x), two axes > 0 and an angle, all finite, got {numbers}"
            )


def _layers() -> Iterator[Ellipse]:
    """Scalp 0.6, skull 0.06, fluid 0.86, cortex 0.54, and white matter 0.36 in two halves."""
    yield Ellipse(0.60, (0.0, 0.0), (0.92, 0.74))
    yield Ellipse(-0.54, (0.0, 0.0), (0.87, 0.69))
    yield Ellipse(0.80, (0.005, 0.0), (0.815, 0.635))
    yield Ellipse(-0.32, (0.005, 0.0), (0.785, 0.605))
    for side in (-1, 1):
        yield Ellipse(-0.18, (0.01, 0.265 * side), (0.635, 0.238), -1.5 * side)


def _folds() -> Iterator[Ellipse]:
    """Fluid in the sulci, thin and pointing inwards, uneven as they are; the fissure between the halves."""
    for i in range(22):
        turn = 2 * math.pi * (i + 0.5 + 0.22 * math.sin(2.4 * i)) / 22
        depth = 0.05 + 0.018 * math.cos(1.7 * i)
        y, x = 0.785 * math.cos(turn), 0.605 * math.sin(turn)  # on the cortex
        normal = math.atan2(x / 0.605**2, y / 0.785**2)
        inwards = depth + 0.004
        centre = (0.005 + y - inwards * math.cos(normal), x - inwards * math.sin(normal))
        yield Ellipse(0.27, centre, (depth, 0.009), math.degrees(normal))
    yield Ellipse(0.27, (-0.56, 0.0), (0.16, 0.009))
    yield Ellipse(0.27, (0.60, 0.0), (0.14, 0.009))


def _deep() -> Iterator[Ellipse]:
    """Ventricles 1.0, and the grey nuclei beside them; neither half is quite the other's mirror image."""
    for side in (-1, 1):
        grow = 1 + 0.06 * side
        yield Ellipse(0.64, (-0.19, 0.120 * side), (0.13 * grow, 0.036 * grow), -16.0 * side)
        yield Ellipse(0.64, (0.22, 0.165 * side), (0.13 * grow, 0.034 * grow), 18.0 * side)
        yield Ellipse(0.14, (-0.16, 0.215 * side), (0.10, 0.042), -14.0 * side)
        yield Ellipse(0.11, (-0.02, 0.310 * side), (0.16, 0.055), -8.0 * side)
        yield Ellipse(0.13, (0.02, 0.140 * side), (0.075, 0.056), 20.0 * side)
    yield Ellipse(0.40, (0.0, 0.0), (0.085, 0.013))


def _details() -> Iterator[Ellipse]:
    """Lesions from 0.07 down to 0.016 across, and two fans of lines, 0.024 and 0.016 from one to the next."""
    places = (-0.42, 0.25, 0.035), (-0.36, -0.27, 0.022), (-0.45, -0.20, 0.015), (0.02, -0.43, 0.012), (-0.30, 0.37, 0.008)
    for y, x, size in places:
        yield Ellipse(0.40, (y, x), (size, 0.8 * size), 30.0)
    yield Ellipse(-0.20, (0.12, 0.43), (0.022, 0.03))
    for x, pitch in ((-0.26, 0.024), (0.30, 0.016)):
        for line in range(-2, 3):
            yield Ellipse(0.40, (0.42, x + pitch * line), (0.07, pitch / 4))


HEAD: tuple[Ellipse, ...] = (*_layers(), *_folds(), *_deep(), *_details())
