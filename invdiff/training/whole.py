"""Batches of whole images, grey or in colour, with the class of each where it is known."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.io.idx import read_idx
from invdiff.training.data import seen_by
from invdiff.training.images import ImageSet, dataset, image_files, in_unit_range

FOLDERS = "folders"


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


def read_labels(path: str | Path, key: str, count: int, classes: int) -> np.ndarray:
    """The class of each of `count` images, (count,) int64: of an HDF5 dataset or an idx file called `key`, or, for
    "folders", by the folder below `path` that an image lies in, in alphabetical order.

    Raises:
        InputError: not there, no whole numbers, another number of them, or one that is no class; an image in no folder.
    """
    path = Path(path)
    if key == FOLDERS:
        folders, labels = np.unique(folder_of_each(path), return_inverse=True)
        if len(folders) != classes:
            raise InputError(f"data.labels: expected {classes} folders, as network.classes = {classes}, got {len(folders)}")
    elif path.is_dir():
        labels = read_idx(path / key)
    else:
        found: h5py.Dataset = dataset(path, key)
        labels = found[()]
    if labels.shape != (count,) or labels.dtype.kind not in "ui":
        raise InputError(f"data.labels: expected {count} whole numbers, one for each image, got {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"data.labels: expected classes 0 to {classes - 1}, as network.classes = {classes}, got "
                         f"{labels.min()} to {labels.max()}")
    return labels.astype(np.int64)


def folder_of_each(path: str | Path) -> list[str]:
    """The folder, below `path`, that each image lies in. Raises InputError for an image beside the folders."""
    places = [file.relative_to(path).parts for file in image_files(Path(path))]
    if beside := next((place[0] for place in places if len(place) == 1), None):
        raise InputError(f"data.labels: {beside} lies beside the folders, which are the classes; move it into one of them")
    return [place[0] for place in places]


def class_names(path: str | Path, key: str | None, given: Sequence[str], classes: int) -> list[str]:
    """Names of the classes: those given, those of the folders for "folders", or else numbers. Raises InputError."""
    return list(given) or (sorted(set(folder_of_each(path))) if key == FOLDERS else [str(i) for i in range(classes)])
