"""Complex-valued training images (MRI): real ones, and magnitudes that are given a smooth phase."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.errors import InputError
from invdiff.training.images import Cache, ImageSet, dataset, in_unit_range, open_images, scaled

BRIGHTNESS = (0.5, 1.2)         # a patch is scaled by a factor in this range, log-uniform
CURVE = (-1.8, 1.0)             # b of a changed contrast, uniform
LARGEST = 4.0                   # magnitude; images that are scaled at all have about one
EMPTY = 0.03                    # patches of less root mean square are air; another place is tried


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
    return ImageSet(images.shapes, lambda i: in_unit_range(images[i][..., 0]), cache, 4)


class ComplexPatches:
    """Random square patches of complex images, (count, 2, size, size): flips, turns, brightness, and a smooth phase.

    Args:
        images: complex (H, W), magnitude of about one at most; lists or `ImageSet`s.
        magnitudes: real (H, W) in [0, 1], which get a phase; half of the patches are theirs, if there are any.
        largest: largest side of a patch; some image must be as large. A patch is cut from images that hold it, and turned
            unless it is the whole of one.
        scales: each image is also kept at these sizes.
        contrast: share of patches whose contrast is changed.
        flips: without them patches are neither flipped nor turned.
    """

    def __init__(self, images: Sequence[np.ndarray], magnitudes: Sequence[np.ndarray], largest: int,
                 scales: Sequence[float] = (1.0,), contrast: float = 0.0, flips: bool = True):
        self.pools, self.contrast, self.flips = [], contrast, flips
        for source in (images, magnitudes):
            self.pools.append(ImageSet.of(source).resized(scales, _resize))
        if not any(min(shape) >= largest for shape in self.pools[0].shapes):
            raise InputError(f"data.patch: no training image is at least {largest} pixels high and wide")

    def __len__(self) -> int:
        """How many images there are, at all scales."""
        return sum(map(len, self.pools))

    def batch(self, count: int, size: int, rng: np.random.Generator, mine: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Clean patches (count, 2, size, size), and (count,) False, as none of them is grey; of both, `mine`.

        All are made, for which places are air, and how often another is tried, is seen in the images alone.
        """
        fit = [[i for i, shape in enumerate(pool.shapes) if min(shape) >= size] for pool in self.pools]
        patches = []
        for _ in range(count):
            source = int(rng.integers(2)) if fit[1] else 0
            patches.append(self._patch(self.pools[source], fit[source], size, rng))
        kept = np.stack(patches[mine])
        return (torch.from_numpy(np.stack([kept.real, kept.imag], 1).astype(np.float32)),
                torch.zeros(len(kept), dtype=torch.bool))

    def _patch(self, pool: Sequence[np.ndarray], fit: Sequence[int], size: int, rng: np.random.Generator) -> np.ndarray:
        for _ in range(4):
            image = pool[fit[int(rng.integers(len(fit)))]]
            top, left = (int(rng.integers(n - size + 1)) for n in image.shape)
            patch = image[top : top + size, left : left + size]
            if np.sqrt(np.mean(np.abs(patch) ** 2)) > EMPTY:
                break
        y, x = (np.linspace(-1, 1, n)[start : start + size] for n, start in zip(image.shape, (top, left), strict=True))
        if self.contrast and rng.random() < self.contrast:
            patch = other_contrast(patch, rng.uniform(*CURVE))
        patch = patch * np.exp(1j * smooth_phase(y, x, rng))
        turns, flipped = 0 if patch.shape == image.shape else int(rng.integers(4)), bool(rng.integers(2))
        if self.flips:                          # a whole image keeps its way up
            patch = np.rot90(patch, turns)
            patch = patch[:, ::-1] if flipped else patch
        return patch * np.exp(rng.uniform(*np.log(BRIGHTNESS)))


def other_contrast(image: np.ndarray, b: float) -> np.ndarray:
    """Magnitudes m -> m exp(b m), in units of the largest, and again of the same mean square; the phase is kept.

    With b < -1 the brightest tissue becomes darker than what is less bright, as fluid does from T2 to T1 weighting.
    """
    m = np.abs(image)
    factor = np.exp(b * m / max(float(m.max()), EMPTY)).astype(m.dtype)
    return image * (factor * np.sqrt(np.sum(m**2) / max(float(np.sum((m * factor) ** 2)), 1e-12)))


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


def _resize(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return image
    height, width = scaled(image.shape, scale)
    real, imaginary = (np.asarray(Image.fromarray(np.ascontiguousarray(part, np.float32)).resize(
        (width, height), Image.Resampling.LANCZOS)) for part in (image.real, image.imag))
    return (real + 1j * imaginary).astype(np.complex64) if np.iscomplexobj(image) else real.clip(0)
