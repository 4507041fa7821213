"""Blur kernels from files: images, NumPy's and MATLAB's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def load_kernel(path: str | Path, key: str | None = None) -> Tensor:
    """The kernel in a file, divided by its sum.

    path: an image (PNG, TIFF, ...; colours are averaged, transparency is ignored), a .npy or .npz array or a .mat file
    (v7.3 too, where h5py is installed). key: the name of the array, where a .npz or .mat file has several; "path:key" is
    the same. It is kept as it is but for the scale: what is zero at its borders stays.
    Raises ValueError on a file that is missing, cannot be read or holds Python objects, on an unknown or missing key
    (it lists the names there are), and on an array that is not two-dimensional, real and finite or has no positive sum.
    """
    if key is None and not Path(path).exists() and ":" in str(path):
        path, _, key = str(path).rpartition(":")
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"kernel: expected a file, got {str(path)!r}, which is none")
    with _readable(path):
        content = _READERS.get(path.suffix.lower(), _read_image)(path)
    name = _pick(path, content, key)
    with _readable(path):  # an .npz array is read only here
        array = content if isinstance(content, np.ndarray) else content[name]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"kernel: expected (kh, kw), got {array.shape} in {path}")
    if array.dtype.kind not in "buif" or not np.isfinite(array).all():
        raise ValueError(f"kernel: expected finite real numbers, got others in {path} ({array.dtype})")
    array = array.astype(np.float64)
    if not array.sum() > 0:
        raise ValueError(f"kernel: expected a positive sum, got {array.sum():g} in {path}")
    return torch.from_numpy(array / array.sum())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ValueError(f"kernel: {path} needs the package {error.name}, which is not installed") from error
    except Exception as error:  # a reader may raise anything on a damaged or hostile file
        raise ValueError(f"kernel: expected an image, .npy, .npz or .mat file, got {path} ({error})") from error


def _pick(path: Path, content: np.ndarray | Mapping[str, np.ndarray], key: str | None) -> str:
    """The name of the wanted array."""
    if isinstance(content, np.ndarray):
        if key is not None:
            raise ValueError(f"key: expected none, as {path} is a single array, got {key!r}")
        return ""
    names = ", ".join(sorted(content)) or "none"
    if key is None and len(content) != 1:
        raise ValueError(f"key: expected the name of an array in {path}, got None; its arrays: {names}")
    if key is not None and key not in content:
        raise ValueError(f"key: expected the name of an array in {path}, got {key!r}; its arrays: {names}")
    return next(iter(content)) if key is None else key


def _read_numpy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    """The numeric arrays (kh, kw) by name."""
    with path.open("rb") as file:
        is_hdf5 = b"MATLAB 7.3" in file.read(128)
    if not is_hdf5:
        from scipy.io import loadmat

        return {name: item for name, item in loadmat(path).items() if isinstance(item, np.ndarray) and _is_grid(item)}
    import h5py

    with h5py.File(path) as file:  # stored by columns, so that rows and columns are swapped
        return {name: item[()].T for name, item in file.items() if isinstance(item, h5py.Dataset) and _is_grid(item)}


def _is_grid(item: Any) -> bool:
    return item.ndim == 2 and item.dtype.kind in "buif"


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError("it has several pages")
        is_coded = image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV")  # the numbers stored are not brightnesses
        values = np.asarray(image.convert("RGB") if is_coded else image)
    if values.ndim == 2:
        return values
    colours = values.shape[2] - (values.shape[2] in (2, 4))  # the last of two or four channels is transparency
    return values[..., :colours].mean(2)


_READERS: dict[str, Any] = {".npy": _read_numpy, ".npz": _read_numpy, ".mat": _read_mat}
