"""Complex-valued images (MRI), and magnitudes, which a smooth phase makes complex."""

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from invdiff.datasets.images import Cache, ImageSet, dataset, in_unit_range, open_images
from invdiff.errors import InputError

LARGEST = 4.0                   # magnitude; images that are scaled at all have about one


def open_complex(path: str | Path, key: str, cache: Cache) -> ImageSet:
    """The images of an HDF5 dataset (N, 2, H, W), real and imaginary part, times the file's attribute `scale`: complex64.

    Raises InputError: no such dataset, or of another shape; an image when it is read, whose values are of another scale.
    """
    path = Path(path)
    if not (path.is_file() and h5py.is_hdf5(path)):
        raise InputError(f"{path}: expected an HDF5 file")
    data = dataset(path, key)
    if data.ndim != 4 or data.shape[1] != 2 or len(data) == 0 or data.dtype.kind not in "if":
        raise InputError(f"{path}[{key}]: expected numbers (N, 2, H, W), got {data.dtype} {data.shape}")
    scale = np.float32(data.file.attrs.get("scale", 1.0))

    def read(i: int) -> np.ndarray:
        try:
            values = data[i].astype(np.float32) * scale
        except OSError as error:
            raise InputError(f"{path}[{key}][{i}]: a truncated or damaged HDF5 file ({error})") from error
        image = values[0] + 1j * values[1]
        if not np.abs(image).max() <= LARGEST:              # NaN is not, either
            raise InputError(f"{path}[{key}][{i}]: expected finite magnitudes of about one at most, got up to "
                             f"{np.abs(image).max():g}; the file's attribute `scale` is a factor for all of them")
        return image

    return ImageSet([tuple(data.shape[2:])] * len(data), read, cache, 8)


def load_complex(path: str | Path, key: str) -> list[np.ndarray]:
    """All images of `open_complex`, in memory."""
    return list(open_complex(path, key, Cache(0)))


def open_magnitudes(path: str | Path, key: str, cache: Cache) -> ImageSet:
    """Grey images as float32 (H, W) in [0, 1]; see `open_images`."""
    images = open_images(path, key, Cache(0))
    return ImageSet(images.shapes, lambda i: in_unit_range(images[i][..., 0].copy()), cache, 4)


def smooth_phase(y: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random phase (H, W) in radians: any constant, a ramp, a curvature and three slow waves of random strength.

    y (H,), x (W,): places in the image, whose edges are -1 and 1.
    """
    y = y[:, None]
    strength = rng.random() ** 2
    a, b, c, d, e = rng.normal(0, (2.0, 2.0, 1.0, 1.0, 1.0))
    phase = a * y + b * x + c * y**2 + d * x**2 + e * x * y
    for _ in range(3):
        fy, fx = rng.normal(0, 2.0, 2)
        phase = phase + rng.normal(0, 0.4) * np.sin(fy * y + fx * x + rng.uniform(0, 2 * np.pi))
    return rng.uniform(0, 2 * np.pi) + strength * phase


def to_channels(image: np.ndarray) -> Tensor:
    """Complex (H, W) -> (2, H, W), real and imaginary part."""
    return torch.from_numpy(np.stack([image.real, image.imag]).astype(np.float32))
