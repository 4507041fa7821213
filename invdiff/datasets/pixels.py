"""Images as networks take them: channels first, in [0, 1], in colour or grey."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.datasets.images import Cache, in_unit_range, named_in, open_images
from invdiff.errors import InputError

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def to_rgb(image: np.ndarray) -> Tensor:
    """uint8, or float32 in [0, 1], (H, W, 3) -> (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(in_unit_range(image).transpose(2, 0, 1)))


def to_grey(image: np.ndarray) -> Tensor:
    """The same, its brightness: (1, H, W)."""
    return torch.from_numpy(brightness(in_unit_range(image)).transpose(2, 0, 1))


def brightness(image: np.ndarray) -> np.ndarray:
    """Luma (..., 1) of float32 colours (..., 3)."""
    return (image * _LUMA).sum(-1, keepdims=True)


def seen_by(channels: int, image: np.ndarray) -> np.ndarray:
    """float32 colours (..., 3) as a network of 1 or 3 channels sees them: (..., channels), the brightness for one."""
    return brightness(image) if channels == 1 else image


def stored_for(channels: int, image: np.ndarray) -> np.ndarray:
    """The same of colours as they are stored: uint8 stays uint8."""
    seen = seen_by(channels, image)
    return np.rint(seen).astype(np.uint8) if image.dtype == np.uint8 else seen


def load_whole(path: str | Path, key: str | None, channels: int) -> np.ndarray:
    """All images that `key` names, or without one all of a folder, of one size, as a network of 1 or 3 channels sees them,
    (N, C, H, W), uint8 or float32. Raises InputError."""
    images = open_images(*named_in(path, key, "data"), Cache(0))
    if len(set(images.shapes)) > 1:
        raise InputError(f"{path}: {f'the images of {key}' if key else 'its images'} are of several sizes; expected one, so "
                         "resize or crop them")
    return np.stack([stored_for(channels, image).transpose(2, 0, 1) for image in images])


def check_apart(path: str | Path, key: str | None, test: str) -> None:
    """Raises InputError where test images are among those that are trained on, as they lie in a folder that is taken whole."""
    (whole, file), (place, other) = (named_in(path, name, "data.test") for name in (key, test))
    if whole.is_dir() and not file and not other and place.resolve().is_relative_to(whole.resolve()):
        raise InputError(f"data.test: {test} lies in {whole}, all of which is trained on; name what to train on, data.key")


def check_holdout(holdout: int, count: int) -> None:
    """Raises InputError where nothing would be left of `count` images to train on."""
    if holdout >= count:
        raise InputError(f"data.holdout: expected fewer than the {count} images there are, got {holdout}")
