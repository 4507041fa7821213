"""Clean crops of one size, out of a folder or an HDF5 file of images of any size."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from invdiff.datasets.complex_images import open_complex, open_magnitudes, smooth_phase, to_channels
from invdiff.datasets.images import Cache, ImageSet, dataset, open_images
from invdiff.datasets.pixels import to_grey, to_rgb
from invdiff.errors import InputError


def crops_for(channels: int | None, path: str | Path, key: str | None, count: int, size: int) -> list[Tensor]:
    """What a prior of images of that many channels is tried on: complex crops for 2, and where it is not said which (None)
    and the data are complex; grey ones for 1; else colour ones. key: "test" for 2 channels, else "train_jpeg", if it is not
    said.

    Raises InputError as `complex_crops` and `central_crops` do.
    """
    key = key or ("test" if channels == 2 else "train_jpeg")
    if channels == 2 or (channels is None and holds_complex(path, key)):
        return complex_crops(path, key, count, size)
    return central_crops(path, key, count, size, grey=channels == 1)


def central_crops(path: str | Path, key: str, count: int, size: int, grey: bool = False) -> list[Tensor]:
    """Central crops (3, size, size), or of their brightness (1, size, size), in [0, 1] of up to `count` images, spread evenly
    over those that are large enough.

    Raises InputError as `open_images` does, and if no image is large enough.
    """
    images, to_tensor = open_images(path, key, Cache(0)), to_grey if grey else to_rgb
    return list(centre_crops([to_tensor(images[i]) for i in _spread(path, images, count, size)], size))


def complex_crops(path: str | Path, key: str, count: int, size: int, seed: int = 0) -> list[Tensor]:
    """Likewise of complex images, (2, size, size), real and imaginary part: of an HDF5 dataset (N, 2, H, W), or of grey
    pictures, which are magnitudes that get a smooth random phase, as for training.

    Raises InputError as `open_complex` and `open_magnitudes` do, and if no image is large enough.
    """
    images = open_complex(path, key, Cache(0)) if holds_complex(path, key) else open_magnitudes(path, key, Cache(0))
    rng = np.random.default_rng(seed)
    return list(centre_crops([to_channels(_with_phase(images[i], rng)) for i in _spread(path, images, count, size)], size))


def centre_crops(images: Sequence[Tensor], size: int) -> Tensor:
    """(C, H, W) images -> (N, C, size, size)."""
    corners = [((i.shape[1] - size) // 2, (i.shape[2] - size) // 2) for i in images]
    return torch.stack([i[:, t : t + size, l : l + size] for i, (t, l) in zip(images, corners, strict=True)])


def holds_complex(path: str | Path, key: str) -> bool:
    """Whether `key` names a dataset (N, 2, H, W) of an HDF5 file, as `open_complex` reads them."""
    if not (Path(path).is_file() and h5py.is_hdf5(path)):
        return False
    data = dataset(Path(path), key)
    return data.ndim == 4 and data.shape[1] == 2


def _spread(path: str | Path, images: ImageSet, count: int, size: int) -> Sequence[int]:
    large = [i for i, shape in enumerate(images.shapes) if min(shape) >= size]
    if not large:
        raise InputError(f"{path}: none of its {len(images)} images is at least {size} x {size} pixels; expected larger "
                         "images, or a smaller size")
    return [large[int(i)] for i in np.linspace(0, len(large) - 1, min(count, len(large)))]


def _with_phase(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A complex image (H, W) as it is, a magnitude with a phase."""
    if np.iscomplexobj(image):
        return image
    y, x = (np.linspace(-1, 1, n) for n in image.shape)
    return image * np.exp(1j * smooth_phase(y, x, rng))
