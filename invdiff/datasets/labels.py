"""The class of each image."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from invdiff.datasets.images import dataset, image_files
from invdiff.errors import InputError
from invdiff.io.idx import read_idx

FOLDERS = "folders"


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


def spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Numbers of `count` images, (count,) rising, of each class as many as its share of all labels (N,), spread over it."""
    places = (np.arange(count) + 0.5) * len(labels) / count
    return np.sort(np.argsort(labels, kind="stable")[places.astype(int)])


def held_back(labels: np.ndarray, count: int, key: str) -> np.ndarray:
    """Numbers of the `count` images that are kept back of those with these labels (N,): the last ones, or, where classes are
    folders (`key`), of each its share, as the last ones are then of one class."""
    return spread(labels, count) if key == FOLDERS else np.arange(len(labels) - count, len(labels))


def class_names(path: str | Path, key: str | None, given: Sequence[str], classes: int) -> list[str]:
    """Names of the classes: those given, those of the folders for "folders", or else numbers. Raises InputError."""
    return list(given) or (sorted(set(folder_of_each(path))) if key == FOLDERS else [str(i) for i in range(classes)])
