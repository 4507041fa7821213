"""A picture of a volume: some of its slices side by side."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from invdiff.io.files import replacing
from invdiff.io.volumes.slices import check_shape, checked

if TYPE_CHECKING:
    from PIL import Image

MOST = 25        # slices shown
SMALLEST = 96    # pixels: a smaller slice is enlarged, for its label


def montage(slices: Iterable[np.ndarray], shape: Sequence[int], columns: int | None = None, most: int = MOST) -> "Image.Image":
    """An 8-bit grey picture of at most `most` magnitude slices (h, w), evenly chosen and labelled with their number, from 0.

    shape: (D, h, w). columns: of the grid; those that fit a square best unless given. Black is 0 and white the 99.5th
    percentile of what is shown. The slices are read one at a time, and those shown are kept. Raises ValueError for slices
    that are not as announced, and for numbers below 1.
    """
    from PIL import Image

    count, height, width = check_shape(shape)
    if most < 1 or (columns is not None and columns < 1):
        raise ValueError(f"columns, most: expected at least 1, got {columns} and {most}")
    chosen = sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
    shown = {i: array for i, array in enumerate(checked(slices, shape)) if i in set(chosen)}
    white = float(np.percentile(np.stack(list(shown.values())), 99.5)) or max(float(a.max()) for a in shown.values())
    columns = min(columns or _columns(len(chosen), height, width), len(chosen))
    zoom = math.ceil(SMALLEST / max(height, width))
    step_y, step_x = zoom * height + 2, zoom * width + 2
    sheet = Image.new("L", (columns * step_x - 2, math.ceil(len(chosen) / columns) * step_y - 2), 64)
    for place, (number, array) in enumerate(shown.items()):
        pixels = np.clip(array / white if white > 0 else array, 0, 1) * 255
        tile = Image.fromarray(np.rint(pixels).astype(np.uint8)).resize((zoom * width, zoom * height), Image.Resampling.NEAREST)
        _label(tile, str(number))
        sheet.paste(tile, (place % columns * step_x, place // columns * step_y))
    return sheet


def write_montage(path: str | Path, slices: Iterable[np.ndarray], shape: Sequence[int], columns: int | None = None) -> None:
    """Writes `montage` as a PNG, which is complete or absent."""
    picture = montage(slices, shape, columns)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _columns(count: int, height: int, width: int) -> int:
    """Those that make the longer side of the sheet shortest, leave the fewest places empty, and are the most."""
    def cost(columns: int) -> tuple[int, int, int]:
        rows = math.ceil(count / columns)
        return max(columns * width, rows * height), rows * columns, -columns

    return min(range(1, count + 1), key=cost)


def _label(tile: "Image.Image", text: str) -> None:
    """White on black in the upper left corner."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(max(11, tile.height // 16))
    ImageDraw.Draw(tile).text((3, 1), text, 255, font, stroke_width=1, stroke_fill=0)
