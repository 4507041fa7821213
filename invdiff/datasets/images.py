"""Sets of training images that are decoded when asked for: as large as the disk, not as the memory."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from invdiff.datasets.decoding import decode, read_header
from invdiff.errors import InputError
from invdiff.io.idx import read_idx

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class Cache:
    """The arrays used last, up to `limit` bytes. Threads may share it."""

    def __init__(self, limit: float = float("inf")):
        self.limit, self.size = limit, 0
        self.items: OrderedDict[Any, np.ndarray] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
        with self.lock:
            if key in self.items:
                self.items.move_to_end(key)
                return self.items[key]
        value = make()              # two threads may make the same one; that is cheaper than waiting
        with self.lock:
            if key not in self.items and value.nbytes <= self.limit:
                self.items[key] = value
                self.size += value.nbytes
                while self.size > self.limit:
                    self.size -= self.items.popitem(last=False)[1].nbytes
        return value


class ImageSet(Sequence[np.ndarray]):
    """Images by number, each read when it is asked for, the last ones kept.

    Args:
        shapes: (H, W) of each image.
        read: the image of a number.
        cache: where images are kept; sets may share one.
        item_bytes: of one pixel, all channels.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], read: Callable[[int], np.ndarray], cache: Cache, item_bytes: int):
        self.shapes, self.read, self.cache, self.item_bytes = list(shapes), read, cache, item_bytes
        self.token = object()       # names this set in the cache; an id could be used twice

    @classmethod
    def of(cls, images: "Sequence[np.ndarray]") -> "ImageSet":
        """A set of arrays that are in memory anyhow; an ImageSet is left as it is."""
        if isinstance(images, ImageSet):
            return images
        return cls([(i.shape[0], i.shape[1]) for i in images], images.__getitem__, Cache(), 0)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = index % len(self)
        return self.cache.get((self.token, index), lambda: self.read(index))

    def subset(self, numbers: Sequence[int]) -> "ImageSet":
        """The images of these numbers, read and kept by this set."""
        shapes = [self.shapes[i] for i in numbers]
        return ImageSet(shapes, lambda i: self[numbers[i]], Cache(0), self.item_bytes)

    def resized(self, scales: Sequence[float], resize: Callable[[np.ndarray, float], np.ndarray]) -> "ImageSet":
        """Each image at each of `scales`, all images at the first one before the second."""
        pairs = [(i, scale) for scale in scales for i in range(len(self))]
        shapes = [self.shapes[i] if s == 1.0 else scaled(self.shapes[i], s) for i, s in pairs]

        token = object()

        def read(index: int) -> np.ndarray:
            number, scale = pairs[index]
            if scale == 1.0:
                return self[number]
            return self.cache.get((token, index), lambda: resize(self[number], scale))

        return ImageSet(shapes, read, Cache(0), self.item_bytes)

    @property
    def nbytes(self) -> int:
        """What all images take when they are decoded."""
        return sum(h * w for h, w in self.shapes) * self.item_bytes


def scaled(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H, W) of an image made smaller."""
    height, width = (max(1, round(n * scale)) for n in shape)
    return height, width


def open_images(path: str | Path, key: str, cache: Cache) -> ImageSet:
    """Images of a folder, or of an HDF5 dataset or a folder's idx file called `key`, (H, W, 3): all of them uint8,
    or all float32 in [0, 1], where the file has floats, or any image more than 8 bits, which are kept.

    A dataset holds encoded images, as bytes, or arrays (N, H, W), (N, H, W, 1) or (N, H, W, 3), uint8, uint16 (white is 65535)
    or float.
    Raises:
        InputError: nothing there, no such dataset, or of another kind; bytes that are no image. What is damaged beyond an
            image's first bytes is found when the image is read.
    """
    path = Path(path)
    if path.is_dir() and (path / key).is_file():
        images = _arrays(read_idx(path / key), f"{path / key}", cache)
    elif path.is_dir():
        files = image_files(path)
        images = _encoded([str(p) for p in files], files.__getitem__, lambda i: files[i].read_bytes(), cache)
    elif path.is_file() and h5py.is_hdf5(path):
        data = dataset(path, key)
        name = f"{path}[{key}]"
        if data.ndim == 1:
            names = [f"{name}[{i}]" for i in range(len(data))]
            images = _encoded(names, lambda i: io.BytesIO(_item(data, i, name)), lambda i: _item(data, i, name), cache)
        else:
            images = _arrays(data, name, cache)
    else:
        raise InputError(f"{path}: expected a folder of images or an HDF5 file")
    if not len(images):
        raise InputError(f"{path}: no images found (looked for {', '.join(sorted(SUFFIXES))})")
    return images


def named_in(path: str | Path, key: str | None, what: str) -> tuple[Path, str]:
    """The path and key with which `open_images` opens what `key` names, where the images of all of a folder would not do: a
    dataset of an HDF5 file; of a folder, an idx file or a folder in it, or elsewhere. Without a key, all of a folder or the
    dataset train_jpeg.

    Raises InputError, which begins with `what`, where a folder has no such thing.
    """
    path = Path(path)
    if key is None:
        return path, "" if path.is_dir() else "train_jpeg"
    if not path.is_dir():
        return path, key
    for place in (path / key, Path(key)):
        if place.is_file():
            return place.parent, place.name
        if place.is_dir():
            return place, ""
    raise InputError(f"{what}: no idx file or folder of images called {key} in {path}, and none at that path")


def image_files(path: Path) -> list[Path]:
    """The images of a folder and of those below; what begins with a dot, as macOS's notes on images, is none."""
    return sorted(p for p in path.rglob("[!.]*") if p.suffix.lower() in SUFFIXES
                  and not any(part.startswith(".") for part in p.relative_to(path).parts))


def dataset(path: Path, key: str) -> Any:
    """A dataset of an HDF5 file, which stays open. Raises InputError: damaged, or no such dataset."""
    try:
        file = h5py.File(path, "r")
        if key not in file or not isinstance(file[key], h5py.Dataset):
            raise InputError(f"{path}: no dataset {key!r}; it holds {', '.join(sorted(file))}")
        return file[key]
    except OSError as error:
        raise InputError(f"{path}: a truncated or damaged HDF5 file ({error})") from error


def _encoded(names: Sequence[str], opened: Callable[[int], Any], read: Callable[[int], bytes], cache: Cache) -> ImageSet:
    """Encoded images: `opened` gives what their headers are read of. All are of one type, as batches and sets are stacked."""
    headers = [read_header(opened(i), name) for i, name in enumerate(names)]
    deep = any(header.deep for header in headers)
    return ImageSet([header.shape for header in headers], lambda i: decode(read(i), names[i], deep), cache, 12 if deep else 3)


def _arrays(data: Any, name: str, cache: Cache) -> ImageSet:
    channels, dtype = data.shape[3] if data.ndim == 4 else 1, data.dtype
    unsigned = dtype.kind == "u" and dtype.itemsize <= 2
    if data.ndim not in (3, 4) or channels not in (1, 3) or not (unsigned or dtype.kind == "f"):
        raise InputError(f"{name}: expected encoded images, or uint8, uint16 or float arrays (N, H, W[, 1 or 3]), "
                         f"got {dtype} {data.shape}")

    def read(i: int) -> np.ndarray:
        image = _item(data, i, f"{name}")
        if dtype.kind == "f":
            image = image.astype(np.float32)
            if not (image.min() >= 0 and image.max() <= 1):         # NaN is neither
                raise InputError(f"{name}[{i}]: expected floats in [0, 1], got {image.min():g} to {image.max():g}")
        elif dtype != np.uint8:
            image = image.astype(np.float32) / np.float32(65535)
        return np.ascontiguousarray(np.broadcast_to(image.reshape(*image.shape[:2], channels), (*image.shape[:2], 3)))

    return ImageSet([tuple(data.shape[1:3])] * len(data), read, cache, 3 if dtype == np.uint8 else 12)


def _item(data: Any, index: int, name: str) -> Any:
    try:
        item = data[index]
    except OSError as error:
        raise InputError(f"{name}[{index}]: a truncated or damaged HDF5 file ({error})") from error
    if data.ndim == 1 and not (isinstance(item, bytes) or getattr(item, "dtype", None) in (np.uint8, np.int8)):
        raise InputError(f"{name}: expected encoded images, one variable-length uint8 array each, got {data.dtype}")
    return bytes(item) if data.ndim == 1 else item


def in_unit_range(image: np.ndarray) -> np.ndarray:
    """uint8, or float32 in [0, 1], as float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image
