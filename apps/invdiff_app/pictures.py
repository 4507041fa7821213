"""Tensors as pictures for the page."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from invdiff.figures import colorize
from invdiff.io.images import to_uint8
from operators import mri


def estimate(x: Tensor) -> np.ndarray:
    """The first of a batch (B, C, H, W) as uint8, a complex one as its magnitude."""
    image = x[:1].detach().float().cpu()
    if image.shape[1] not in (1, 3):
        image = mri.combine_sets(image)
        image = image / image.quantile(0.998).clamp_min(1e-6)
    return to_uint8(image.nan_to_num())


def spread(std: Tensor) -> tuple[np.ndarray, float]:
    """(C, H, W) in false colours, uint8 (H, W, 3), and the value of the brightest."""
    coloured, top = colorize(std)
    return to_uint8(coloured), top


def windowed(x: Tensor, low: float, high: float) -> np.ndarray:
    """(H, W), black at `low` and white at `high`, uint8."""
    return to_uint8(((x - low) / max(high - low, 1e-12)).clamp(0, 1)[None])


def stretched(x: Tensor) -> np.ndarray:
    """(H, W) between its least and its largest value, uint8."""
    return windowed(x, float(x.min()), float(x.max()))


def shown(x: Tensor) -> np.ndarray:
    """(1, C, H, W) or (C, H, W), clipped; what is no colour image, as the grey mean of its channels."""
    image = x if x.ndim == 3 else x[0]
    return to_uint8(image if image.shape[0] in (1, 3) else image.mean(0, keepdim=True))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def without(strokes: Sequence[Mapping[str, Any]], size: Sequence[int]) -> np.ndarray:
    """A mask of `size` (H, W), uint8: black where strokes of a round brush go, white elsewhere. Strokes have `points` (x, y)
    and a `width`, both in shares of the picture's sides, and so fit any size; the width is a share of W. A browser may send
    any number: of those far off, the nearest that may matter is taken."""
    height, width = size
    mask = Image.new("L", (width, height), 255)
    brush = ImageDraw.Draw(mask)
    for stroke in strokes:
        points = [(_within(x, -1, 2) * width, _within(y, -1, 2) * height) for x, y in stroke["points"]]
        radius = _within(stroke["width"], 0, 1) * width / 2
        brush.line(points, 0, max(round(2 * radius), 1))
        for x, y in points:
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), 0)
    return np.asarray(mask)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high) if math.isfinite(value) else low


def data_url(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    """Whole pixels repeated, so that the longer side is about `side`."""
    factor = max(side // max(pixels.shape[:2]), 1)
    return pixels.repeat(factor, 0).repeat(factor, 1)


def overlay(grey: np.ndarray, colours: np.ndarray, share: float) -> np.ndarray:
    """False colours (H, W, 3) laid over a grey picture (H, W)."""
    mixed = torch.from_numpy(grey)[..., None].float() * (1 - share) + torch.from_numpy(colours).float() * share
    return mixed.round().to(torch.uint8).numpy()
