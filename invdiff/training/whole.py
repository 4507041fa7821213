"""Batches of whole images, grey or in colour, with the class of each where it is known."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invdiff.datasets.images import ImageSet, in_unit_range
from invdiff.datasets.pixels import seen_by
from invdiff.errors import InputError


class WholeImages:
    """Images of one size (H = W), each as likely as any other.

    Args:
        images: uint8, or float32 in [0, 1], (H, W, 3).
        channels: 3, or 1, the brightness alone.
        labels: the class of each image (N,), or None.
        drop: share of images shown without their class, as -1.
        flips: mirror half of them, left to right.
    """

    def __init__(self, images: Sequence[np.ndarray], channels: int, labels: np.ndarray | None = None, drop: float = 0.1,
                 flips: bool = True):
        self.images = ImageSet.of(images)
        self.channels, self.labels, self.drop, self.flips = channels, labels, drop, flips
        self.size = self.images.shapes[0][0]
        for i, (height, width) in enumerate(self.images.shapes):
            if height != self.size or width != self.size:
                raise InputError(f"data: whole images are square and of one size; expected {self.size} x {self.size}, the "
                                 f"first one's height, got {height} x {width} for image {i}")

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, count: int, size: int, rng: np.random.Generator, mine: slice = slice(None)) -> tuple[Tensor, ...]:
        """Images (count, C, size, size) in [0, 1], (count,) False, as none is grey in colour, and their classes (count,), if
        they have some; of all, `mine`. Raises InputError for another size than the images'."""
        if size != self.size:
            raise InputError(f"data.patch: the images are {self.size} x {self.size}, and are taken whole; expected "
                             f"[{self.size}], got {size}")
        chosen = rng.integers(len(self.images), size=count)
        flipped = (rng.random(count) < 0.5)[mine] if self.flips else np.zeros(len(chosen[mine]), bool)
        x0 = seen_by(self.channels, in_unit_range(np.stack([self.images[int(i)] for i in chosen[mine]])))
        x0[flipped] = x0[flipped][:, :, ::-1]
        grey = torch.zeros(len(x0), dtype=torch.bool)
        images = torch.from_numpy(np.ascontiguousarray(x0)).permute(0, 3, 1, 2)         # channels last, as networks like it
        if self.labels is None:
            return images, grey
        classes = np.where(rng.random(count) < self.drop, -1, self.labels[chosen])[mine]
        return images, grey, torch.from_numpy(classes.astype(np.int64))
