"""Complex-valued training images (MRI): real ones, and magnitudes that are given a smooth phase."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.errors import InputError
from invdiff.training.data import load_images

BRIGHTNESS = (0.5, 1.2)         # a patch is scaled by a factor in this range, log-uniform
EMPTY = 0.03                    # patches of less root mean square are air; another place is tried


def load_complex(path: str | Path, key: str) -> list[np.ndarray]:
    """The images of an HDF5 dataset (N, 2, H, W), real and imaginary part, times the file's attribute `scale`: complex64.

    Raises InputError: no such dataset, or of another shape.
    """
    path = Path(path)
    if not (path.is_file() and h5py.is_hdf5(path)):
        raise InputError(f"{path}: expected an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            if key not in file:
                raise InputError(f"{path}: no dataset {key!r}; it holds {', '.join(sorted(file))}")
            data = file[key]
            if data.ndim != 4 or data.shape[1] != 2 or len(data) == 0 or data.dtype.kind not in "if":
                raise InputError(f"{path}[{key}]: expected numbers (N, 2, H, W), got {data.dtype} {data.shape}")
            values = data[:].astype(np.float32) * np.float32(file.attrs.get("scale", 1.0))
    except OSError as error:
        raise InputError(f"{path}: a truncated or damaged HDF5 file ({error})") from error
    return list(values[:, 0] + 1j * values[:, 1])


def load_magnitudes(path: str | Path, key: str) -> list[np.ndarray]:
    """Encoded grey images as float32 (H, W) in [0, 1]; see `load_images`."""
    return [image[..., 0].astype(np.float32) / 255 for image in load_images(path, key)]


class ComplexPatches:
    """Random square patches of complex images, (count, 2, size, size): flips, turns, brightness, and a smooth phase.

    Args:
        images: complex (H, W), magnitude of about one at most.
        magnitudes: real (H, W) in [0, 1], which get a phase; half of the patches are theirs, if there are any.
        largest: largest side of a patch; smaller images are left out.
        scales: each image is also kept at these sizes.
    """

    def __init__(self, images: Sequence[np.ndarray], magnitudes: Sequence[np.ndarray], largest: int,
                 scales: Sequence[float] = (1.0,)):
        self.pools = []
        for source in (images, magnitudes):
            pool = [_resize(image, s) for s in scales for image in source]
            self.pools.append([image for image in pool if min(image.shape) >= largest])
        if not self.pools[0]:
            raise InputError(f"data.patch: no training image is at least {largest} pixels high and wide")

    def batch(self, count: int, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Clean patches (count, 2, size, size), and (count,) False: none of them is grey."""
        patches = [self._patch(self.pools[int(rng.integers(2)) if self.pools[1] else 0], size, rng) for _ in range(count)]
        return torch.stack([to_channels(patch) for patch in patches]), torch.zeros(count, dtype=torch.bool)

    def _patch(self, pool: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
        for _ in range(4):
            image = pool[int(rng.integers(len(pool)))]
            top, left = (int(rng.integers(n - size + 1)) for n in image.shape)
            patch = image[top : top + size, left : left + size]
            if np.sqrt(np.mean(np.abs(patch) ** 2)) > EMPTY:
                break
        y, x = (np.linspace(-1, 1, n)[start : start + size] for n, start in zip(image.shape, (top, left), strict=True))
        patch = patch * np.exp(1j * smooth_phase(y, x, rng))
        patch = np.rot90(patch, int(rng.integers(4)))
        patch = patch[:, ::-1] if rng.integers(2) else patch
        return patch * np.exp(rng.uniform(*np.log(BRIGHTNESS)))


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
    height, width = (max(1, round(n * scale)) for n in image.shape)
    real, imaginary = (np.asarray(Image.fromarray(np.ascontiguousarray(part, np.float32)).resize(
        (width, height), Image.Resampling.LANCZOS)) for part in (image.real, image.imag))
    return (real + 1j * imaginary).astype(np.complex64) if np.iscomplexobj(image) else real.clip(0)
