"""Training images in memory, and batches that are a function of (seed, step): resuming needs no saved random state."""

import io
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from invdiff.errors import InputError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def load_images(path: str | Path, key: str = "train_jpeg") -> list[np.ndarray]:
    """All images of a folder, or of an HDF5 dataset of encoded bytes, as uint8 (H, W, 3).

    Raises:
        InputError: nothing there, no such dataset, or bytes that are no image.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
        images = [_decode(p.read_bytes(), str(p)) for p in files]
    elif path.is_file() and h5py.is_hdf5(path):
        try:
            with h5py.File(path, "r") as file:
                if key not in file:
                    raise InputError(f"{path}: no dataset {key!r}; it holds {', '.join(sorted(file))}")
                images = [_decode(bytes(item), f"{path}[{key}][{i}]") for i, item in enumerate(file[key])]
        except OSError as error:
            raise InputError(f"{path}: a truncated or damaged HDF5 file ({error})") from error
    else:
        raise InputError(f"{path}: expected a folder of images or an HDF5 file")
    if not images:
        raise InputError(f"{path}: no images found (looked for {', '.join(sorted(_SUFFIXES))})")
    return images


def _decode(data: bytes, name: str) -> np.ndarray:
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{name}: not a readable image ({error})") from error


def to_rgb(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class Patches:
    """Random square patches of images: flips and right-angle turns, some images made smaller, some made grey.

    Args:
        images: uint8 (H, W, 3).
        largest: largest side of a patch, in pixels; images smaller than it are left out.
        scales: each image is also kept at these sizes, resized with antialiasing; patches come from them by area.
        grey: share of patches whose three channels are the same.
    """

    def __init__(self, images: Sequence[np.ndarray], largest: int, scales: Sequence[float] = (1.0,), grey: float = 0.0):
        resized = [_resize(image, s) for s in scales for image in images]
        self.images = [image for image in resized if min(image.shape[:2]) >= largest]
        if not self.images:
            raise InputError(f"data.patch: no training image is at least {largest} pixels high and wide")
        areas = np.array([image.shape[0] * image.shape[1] for image in self.images], dtype=float)
        self.probabilities = areas / areas.sum()
        self.grey = grey

    def batch(self, count: int, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Clean patches (count, 3, size, size) in [0, 1], and which of them are grey, (count,) bool."""
        chosen = rng.choice(len(self.images), size=count, p=self.probabilities)
        grey = rng.random(count) < self.grey
        patches = torch.from_numpy(np.stack([_patch(self.images[i], size, rng) for i in chosen]))
        patches = patches.permute(0, 3, 1, 2).float() / 255
        luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        grey_mask = torch.from_numpy(grey)
        return torch.where(grey_mask.view(-1, 1, 1, 1), (patches * luma).sum(1, keepdim=True), patches), grey_mask


def _patch(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    top, left = (rng.integers(0, n - size + 1) for n in image.shape[:2])
    patch = np.rot90(image[top : top + size, left : left + size], int(rng.integers(4)))
    return np.ascontiguousarray(patch[:, ::-1] if rng.integers(2) else patch)


def _resize(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return image
    height, width = (max(1, round(n * scale)) for n in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
