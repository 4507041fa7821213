"""The arrays in a .npy, .npz or .mat file, by name, without running any code in it."""

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import h5py
import numpy as np
import scipy.io

from invdiff.errors import InputError
from invdiff.io.scans.checks import LIMIT, MAX_RATIO, guarded
from invdiff.io.scans.hdf5 import get_dataset, open_hdf5


@dataclass(frozen=True)
class Variable:
    """shape as in NumPy; MATLAB's axes are reversed, so that slices come first. read: an entry of the first axis, or, with
    `...`, all."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[..., np.ndarray]


def hdf5_variable(path: str, name: str) -> Variable:
    """A dataset of an HDF5 file: an entry is read when it is asked for."""
    def read(index) -> np.ndarray:
        with open_hdf5(path) as file:
            return np.asarray(get_dataset(path, file, name)[index])

    with open_hdf5(path) as file:
        data = get_dataset(path, file, name)
        return Variable(data.shape, data.dtype, read)


def npy_variable(path: str) -> Variable:
    """The array of a .npy file, mapped: an entry is read when it is asked for."""
    with guarded(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: is no .npy array")
        return _held(array)


def _held(array: np.ndarray) -> Variable:
    return Variable(array.shape, array.dtype, lambda index: np.array(array[index]))


def npz_variables(path: str) -> Mapping[str, Variable]:
    """The arrays of a .npz archive, read whole, once each when first asked for."""
    found = {}
    with guarded(path), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            if info.file_size > min(LIMIT, MAX_RATIO * info.compress_size):
                raise InputError(f"{path}: {info.filename} declares {info.file_size:,} bytes, over the {LIMIT >> 30} GiB that "
                                 "are read at once, or more than it can hold; store slices in files of their own")
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = header(file)
            if dtype.hasobject:
                raise InputError(f"{path}: {info.filename} holds Python objects, which can run code; store plain numbers")
            if math.prod(shape) * dtype.itemsize > info.file_size:
                raise InputError(f"{path}: {info.filename} declares an array {shape} of {dtype} and holds only "
                                 f"{info.file_size:,} bytes; export it again")
            name = info.filename.removesuffix(".npy")
            found[name] = Variable(tuple(shape), dtype, _Member(path, name).read)
    return found


class _Member:
    """An array of an archive, kept once it was read."""

    def __init__(self, path: str, name: str):
        self._path, self._name = path, name
        self._array: np.ndarray | None = None

    def read(self, index) -> np.ndarray:
        if self._array is None:
            with np.load(self._path, allow_pickle=False) as archive:
                self._array = archive[self._name]
        return np.array(self._array[index])


def mat5_variables(path: str) -> Mapping[str, Variable]:
    """The numeric arrays of a MATLAB file before 7.3, read whole, axes reversed."""
    with guarded(path), open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        shapes = {name: shape for name, shape, kind in scipy.io.whosmat(file) if kind in _NUMBERS}
        for name, shape in shapes.items():
            if math.prod(map(int, shape)) > min(MAX_RATIO * size, LIMIT // 8):
                raise InputError(f"{path}: {name} declares an array {shape} in a file of {size:,} bytes, or over the "
                                 f"{LIMIT >> 30} GiB that are read at once; save it again with -v7.3")
        file.seek(0)
        content = scipy.io.loadmat(file, variable_names=list(shapes)) if shapes else {}
        return {name: _held(content[name].T) for name in shapes if isinstance(content.get(name), np.ndarray)}


_NUMBERS = {"single", "double", "logical", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"}


def mat73_variables(path: str) -> Mapping[str, Variable]:
    """The numeric arrays at the top of a MATLAB 7.3 file, which is HDF5 with axes reversed; read when asked for."""
    found = {}
    with open_hdf5(path) as file:
        for name, item in file.items():
            if isinstance(item, h5py.Dataset) and (dtype := _plain_dtype(item.dtype)) is not None and item.shape:
                found[name] = Variable(item.shape, dtype, _Stored(path, name).read)
    return found


def _plain_dtype(dtype: np.dtype) -> np.dtype | None:
    """complex for MATLAB's pairs (real, imag), the dtype itself for numbers, else None."""
    if dtype.names == ("real", "imag") and dtype["real"].kind == dtype["imag"].kind == "f":
        return np.dtype(np.complex64 if dtype["real"].itemsize <= 4 else np.complex128)
    return dtype if dtype.kind in "biufc" else None


@dataclass(frozen=True)
class _Stored:
    path: str
    name: str

    def read(self, index) -> np.ndarray:
        with open_hdf5(self.path) as file:
            values = get_dataset(self.path, file, self.name)[index]
        return values["real"] + 1j * values["imag"] if values.dtype.names else values
