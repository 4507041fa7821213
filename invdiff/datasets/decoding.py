"""Encoded images as arrays to train on: what a header tells, and the pixels."""

from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE

from invdiff.errors import InputError
from invdiff.io.decode import decode_bytes, orientation
from invdiff.io.images import opaque

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_MAX_PIXELS = 2**28             # more than Pillow decodes


class Header(NamedTuple):
    """(H, W) of an image that stands upright, and whether its samples are `deep`, of more than 8 bits."""

    shape: tuple[int, int]
    deep: bool


def read_header(file: Any, name: str) -> Header:
    """What the first bytes of an image file, a path or an open file, say. Raises InputError, which begins with `name`."""
    try:
        with Image.open(file) as image:
            turned = orientation(image) in (5, 6, 7, 8)
            return Header((image.width, image.height) if turned else (image.height, image.width), _deep(image))
    except UnidentifiedImageError as error:         # which would show bytes as <_io.BytesIO object at ...>
        raise InputError(f"{name}: not a readable image; its first bytes are those of none") from error
    except _UNREADABLE as error:
        raise InputError(f"{name}: not a readable image ({error})") from error


def _deep(image: Any) -> bool:
    """Pillow's mode tells it of grey images alone."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITSPERSAMPLE, (1,))) > 8
    layouts = [tile[3] for tile in image.tile] if image.format == "PNG" else []         # without pixels there is none
    return image.mode.startswith(("I", "F")) or any(layout.endswith("16B") for layout in layouts)


def decode(data: bytes, name: str, deep: bool = False) -> np.ndarray:
    """Encoded bytes as (H, W, 3), upright, over white, as where images are restored: uint8, to which more bits are rounded, or,
    if `deep`, float32 in [0, 1], which keeps them. Raises InputError, for floats and wider integers too, whose range nothing
    tells."""
    array = decode_bytes(data, name, _MAX_PIXELS)
    if array.dtype.kind == "f" or array.dtype.itemsize > 2:
        kind = "floats" if array.dtype.kind == "f" else f"numbers of {8 * array.dtype.itemsize} bits"
        raise InputError(f"{name}: holds {kind}; save 8 or 16 bits, or an HDF5 file of floats in [0, 1]")
    if deep:
        array = opaque(array, name).clip(0, 1)
    elif array.dtype == np.uint8 and array.shape[2:] in ((2,), (4,)):
        array = _over_white(array)
    elif array.dtype != np.uint8:
        array = np.rint(opaque(array, name).clip(0, 1) * 255).astype(np.uint8)
    array = array.reshape(*array.shape[:2], -1)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _over_white(array: np.ndarray) -> np.ndarray:
    """As `opaque` does, in integers, for less memory: uint8 (H, W, 2 or 4) as (H, W, 1 or 3)."""
    alpha = array[..., -1:].astype(np.uint16)
    mixed = array[..., :-1] * alpha             # at most 255 * 255 + 127 in all, which fits
    mixed += 255 * (255 - alpha) + 127
    mixed //= 255
    return mixed.astype(np.uint8)
