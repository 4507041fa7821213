"""Batches of training images that are a function of (seed, step): resuming needs no saved random state."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.datasets.images import ImageSet, in_unit_range, scaled
from invdiff.datasets.pixels import brightness
from invdiff.errors import InputError

Place = tuple[int, int, int, bool]      # top, left, quarter turns, flipped


class Patches:
    """Random square patches of images: flips, and right-angle turns of all but whole images; some made smaller, some grey.

    Args:
        images: uint8, or float32 in [0, 1], (H, W, 3).
        largest: largest side of a patch, in pixels; images smaller than it are left out.
        scales: each image is also kept at these sizes, resized with antialiasing; patches come from them by area.
        grey: share of patches whose three channels are the same.
        flips: without them patches are neither flipped nor turned.
        channels: 3, or 1, the brightness alone.
    """

    def __init__(self, images: Sequence[np.ndarray], largest: int, scales: Sequence[float] = (1.0,), grey: float = 0.0,
                 flips: bool = True, channels: int = 3):
        every = ImageSet.of(images).resized(scales, _resize)
        self.images = every.subset([i for i, shape in enumerate(every.shapes) if min(shape) >= largest])
        if not self.images:
            raise InputError(f"data.patch: no training image is at least {largest} pixels high and wide")
        areas = np.array([height * width for height, width in self.images.shapes], dtype=float)
        self.probabilities = areas / areas.sum()
        self.grey, self.flips, self.channels = grey, flips, channels

    def __len__(self) -> int:
        """How many images there are, at all scales."""
        return len(self.images)

    def batch(self, count: int, size: int, rng: np.random.Generator, mine: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Clean patches (count, C, size, size) in [0, 1], and which in colour are grey, (count,) bool; of both, `mine`.

        The whole batch is drawn, and no more images are read than `mine` needs. NumPy alone computes here: in a thread of its
        own, torch would start a second team of workers.
        """
        chosen = rng.choice(len(self.images), size=count, p=self.probabilities)
        grey = (rng.random(count) < self.grey)[mine]
        places = [_place(self.images.shapes[i], size, rng) for i in chosen][mine]
        if not self.flips:
            places = [(top, left, 0, False) for top, left, _, _ in places]
        cut = np.stack([_cut(self.images[int(i)], place, size) for i, place in zip(chosen[mine], places, strict=True)])
        patches = in_unit_range(cut)
        if self.channels == 1:
            patches = brightness(patches)
        else:
            patches[grey] = brightness(patches[grey])
        return torch.from_numpy(patches).permute(0, 3, 1, 2), torch.from_numpy(grey)        # channels last, as networks like it


def _place(shape: tuple[int, int], size: int, rng: np.random.Generator) -> Place:
    top, left = (int(rng.integers(0, n - size + 1)) for n in shape)
    turns, flipped = int(rng.integers(4)), bool(rng.integers(2))
    return top, left, 0 if shape == (size, size) else turns, flipped        # a whole image keeps its way up


def _cut(image: np.ndarray, place: Place, size: int) -> np.ndarray:
    top, left, turns, flipped = place
    patch = np.rot90(image[top : top + size, left : left + size], turns)
    return patch[:, ::-1] if flipped else patch


def _resize(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return image
    height, width = scaled(image.shape[:2], scale)
    if image.dtype != np.uint8:
        channels = [Image.fromarray(np.ascontiguousarray(c)).resize((width, height), Image.Resampling.LANCZOS)
                    for c in image.transpose(2, 0, 1)]
        return np.stack([np.asarray(c) for c in channels], -1).clip(0, 1)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
