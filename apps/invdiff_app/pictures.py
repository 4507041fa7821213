"""Tensors as pictures for the page."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.figures import colorize
from invdiff.io.images import to_uint8
from operators import mri

THINNEST = 0.71         # of a brush's radius, pixels: where it goes, at least one pixel's middle is that near


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
    mask = np.full((height, width), 255, np.uint8)
    for stroke in strokes:
        points = [np.array([_within(y, -1, 2) * height, _within(x, -1, 2) * width]) for x, y in stroke["points"]]
        radius = max(_within(stroke["width"], 0, 1) * width / 2, THINNEST)
        points = _thinned(points, max(radius / 8, 0.5))
        for start, end in zip(points, points[1:] or points, strict=False):
            _blacken(mask, start, end, radius)
    return mask


def _thinned(points: list[np.ndarray], least: float) -> list[np.ndarray]:
    """The first and the last, and of those between no two that are nearer than that: they would change nothing but the time."""
    kept = points[:1]
    for point in points[1:-1]:
        if np.linalg.norm(point - kept[-1]) >= least:
            kept.append(point)
    return kept + points[1:][-1:]


def _blacken(mask: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> None:
    """Pixels of a mask whose middle is within `radius` of the line between two places (y, x)."""
    low = np.maximum(np.floor(np.minimum(start, end) - radius), 0).astype(int)
    high = np.maximum(np.ceil(np.maximum(start, end) + radius), 0).astype(int)
    part = mask[low[0] : high[0], low[1] : high[1]]
    middles = np.moveaxis(np.indices(part.shape), 0, -1) + low + 0.5 - 1e-6     # of two as far, only one: 17 pixels are 17
    way = end - start
    share = np.clip((middles - start) @ way / max(way @ way, 1e-12), 0, 1)[..., None]
    part[np.linalg.norm(middles - start - share * way, axis=-1) < radius] = 0


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
