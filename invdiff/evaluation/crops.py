"""Clean crops of one size, out of a folder or an HDF5 file of images of any size."""

from pathlib import Path

import numpy as np
from torch import Tensor

from invdiff.errors import InputError
from invdiff.training.data import to_rgb
from invdiff.training.images import Cache, open_images
from invdiff.training.monitor import centre_crops


def central_crops(path: str | Path, key: str, count: int, size: int) -> list[Tensor]:
    """Central crops (3, size, size) in [0, 1] of up to `count` images, spread evenly over those that are large enough.

    Raises InputError as `open_images` does, and if no image is large enough.
    """
    images = open_images(path, key, Cache(0))
    large = [i for i, shape in enumerate(images.shapes) if min(shape) >= size]
    if not large:
        raise InputError(f"{path}: none of its {len(images)} images is at least {size} x {size} pixels; expected larger "
                         "images, or a smaller --size")
    chosen = [large[int(i)] for i in np.linspace(0, len(large) - 1, min(count, len(large)))]
    return list(centre_crops([to_rgb(images[i]) for i in chosen], size))
