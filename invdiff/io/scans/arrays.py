"""k-space and images as plain arrays: .npy, .npz, and MATLAB's .mat."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from invdiff.errors import InputError
from invdiff.io.scans.checks import (
    check_mask,
    finite_complex,
    grid_of,
    guarded,
    raw_slice,
    require_complex,
    require_size,
    slice_reader,
)
from invdiff.io.scans.scan import Images, RawSlice, Scan
from invdiff.io.scans.variables import Variable

_KSPACE = ("kspace", "ksp", "data", "raw")
_IMAGES = ("image", "images", "img", "im", "data", "magnitude")
_OTHERS = ("mask", "noise", "trajectory", "traj")


def open_arrays(path: str, variables: Mapping[str, Variable], matlab: bool = False,
                size: tuple[int, int] | None = None) -> Scan:
    """A scan from the variable `kspace`, `ksp`, `data` or `raw`, or else from the only complex one.

    It is (N, H, W) or (D, N, H, W), from MATLAB (rows, columns[, coils[, slices]]). `mask` is (H, W) or (W,), without one what
    is not zero was sampled; `noise` is complex (N, S). With `trajectory` or `traj` (..., 2), points (ky, kx) in cycles per
    field of view, it is (N, K) or (D, N, K), or has the trajectory's leading axes in the place of K; images are of `size`
    then, else as large as the trajectory asks for.
    """
    with guarded(path):
        small = {name.lower(): name for name in variables if name.lower() in _OTHERS}
        name = _choose(path, variables, _KSPACE, "c")
        kspace = variables[name]
        require_complex(path, name, kspace.dtype)
        others = {key: _small(path, variables[name], name, matlab) for key, name in small.items()}
        points = others.get("trajectory", others.get("traj"))
        if points is not None:
            reader, size, notes = _points(path, kspace, points, name, matlab, size)
        else:
            reader, size, notes = _grid(path, kspace, others.get("mask"), name, matlab)
        require_size(path, (reader.coils, reader.count), kspace.dtype.itemsize)
        noise = _noise(path, others.get("noise"), reader.coils)
        return Scan(path, "MATLAB" if matlab else "NumPy", reader.slices, reader.coils, size, size,
                    slice_reader(path, reader.slices, reader.read), noise, notes=notes)


def open_image_arrays(path: str, variables: Mapping[str, Variable], matlab: bool = False) -> Images:
    """Images (H, W) or (D, H, W), from MATLAB (rows, columns[, slices]), real or complex: the variable `image`, `images`,
    `img`, `im`, `data` or `magnitude`, or else the only array of numbers."""
    with guarded(path):
        if kspace := [name for name in variables if name.lower() in _KSPACE[:2]]:
            raise InputError(f"{path}: holds k-space ({kspace[0]}), expected images; give it as a scan")
        name = _choose(path, variables, _IMAGES, "biufc")
        images = variables[name]
        if images.dtype.kind not in "biufc" or len(images.shape) not in (2, 3):
            raise InputError(f"{path}: {name} is {images.dtype} of shape {images.shape}, expected (H, W) or (slices, H, W)")
        size = images.shape[-1 if matlab else -2], images.shape[-2 if matlab else -1]
        slices = images.shape[0] if len(images.shape) == 3 else 1
        if slices == 0:
            raise InputError(f"{path}: {name} has shape {images.shape}, it holds no images")
        require_size(path, (1, *size), images.dtype.itemsize)

        def read(number: int) -> torch.Tensor:
            image = images.read(number if len(images.shape) == 3 else ...)
            return image_tensor(path, number, image.T if matlab else image)

        return Images(path, "MATLAB" if matlab else "NumPy", slices, size, slice_reader(path, slices, read))


def image_tensor(path: str, number: int, image: np.ndarray) -> torch.Tensor:
    """float32 or complex64 (H, W); raises InputError where it is not finite."""
    values = finite_complex(path, f"slice {number}", image)
    return torch.from_numpy(values if image.dtype.kind == "c" else np.ascontiguousarray(image, dtype=np.float32))


def _choose(path: str, variables: Mapping[str, Variable], names: tuple[str, ...], kinds: str) -> str:
    """The variable of one of the names, else the only one of the kinds that has two axes or more."""
    lower = {name.lower(): name for name in reversed(list(variables))}
    for name in names:
        if name in lower:
            return lower[name]
    found = [name for name, v in variables.items()
             if v.dtype.kind in kinds and len(v.shape) > 1 and name.lower() not in _OTHERS]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{name} {v.shape} {v.dtype}" for name, v in list(variables.items())[:8]) or "no arrays of numbers"
    raise InputError(f"{path}: holds {listed}; expected a variable named {', '.join(names[:-1])} or {names[-1]}, or a single "
                     f"{'complex ' if kinds == 'c' else ''}array")


def _small(path: str, variable: Variable, name: str, matlab: bool) -> np.ndarray:
    """All of a variable, axes as the user sees them."""
    if math.prod(variable.shape) * variable.dtype.itemsize > 1 << 30:
        raise InputError(f"{path}: {name} has shape {variable.shape}, over the 1 GiB that is read of it")
    values = variable.read(...)
    return values.T if matlab else values


def _noise(path: str, noise: np.ndarray | None, coils: int) -> torch.Tensor | None:
    if noise is None:
        return None
    require_complex(path, "noise", noise.dtype)
    if noise.ndim != 2 or noise.shape[0] != coils or noise.shape[1] == 0:
        raise InputError(f"{path}: noise has shape {noise.shape}, expected (coils, samples) with {coils} coils")
    return torch.from_numpy(finite_complex(path, "noise", noise))


@dataclass(frozen=True)
class _Reader:
    """several: k-space has an axis of slices in front. count: samples of a coil. mask: bool (H, W). points: (K, 2)."""

    path: str
    kspace: Variable
    several: bool
    coils: int
    count: int
    matlab: bool
    mask: np.ndarray | None = None
    points: np.ndarray | None = None

    @property
    def slices(self) -> int:
        return self.kspace.shape[0] if self.several else 1

    def read(self, number: int) -> RawSlice:
        values = self.kspace.read(number if self.several else ...)
        if self.points is not None:
            values = values.T if self.matlab else values.reshape(self.coils, -1)
            return raw_slice(self.path, number, values, trajectory=self.points)
        values = values if values.ndim == 3 else values[None]
        return raw_slice(self.path, number, values.swapaxes(1, 2) if self.matlab else values, self.mask)


def _grid(path: str, kspace: Variable, mask: np.ndarray | None, name: str,
          matlab: bool) -> tuple[_Reader, tuple[int, int], list[str]]:
    shape = kspace.shape
    if len(shape) not in ((2, 3, 4) if matlab else (3, 4)) or 0 in shape:
        raise InputError(f"{path}: {name} has shape {shape[::-1] if matlab else shape}, expected "
                         + ("(rows, columns, coils, slices)" if matlab else "(coils, rows, columns) or (slices, coils, rows, "
                            "columns)") + ", none of them empty")
    size = (shape[-1], shape[-2]) if matlab else (shape[-2], shape[-1])
    coils = shape[-3] if len(shape) > 2 else 1
    require_size(path, (coils, *size), kspace.dtype.itemsize)
    checked = None if mask is None else check_mask(path, mask[0] if matlab and mask.shape == (1, size[1]) else mask, size)
    axes = "(rows, columns, coils, slices)" if matlab else "(slices, coils, rows, columns)"
    notes = [f"{name} is read as the {coils} coils of one slice; several slices are {axes}"] if len(shape) == 3 else []
    return _Reader(path, kspace, len(shape) == 4, coils, math.prod(size), matlab, checked), size, notes


def _points(path: str, kspace: Variable, points: np.ndarray, name: str, matlab: bool,
            wanted: tuple[int, int] | None) -> tuple[_Reader, tuple[int, int], list[str]]:
    if points.dtype.kind not in "iuf" or points.ndim < 2 or points.shape[-1] != 2 or points.size == 0:
        raise InputError(f"{path}: the trajectory is {points.dtype} of shape {points.shape}, expected real (..., 2)")
    flat = np.ascontiguousarray(points.reshape(-1, 2), dtype=np.float32)
    shape = kspace.shape[::-1] if matlab else kspace.shape
    leading = shape[:-1] if shape[-1] == len(flat) else shape[:-(points.ndim - 1)]
    tail = shape[len(leading):]
    if tail not in ((len(flat),), points.shape[:-1]) or not 1 <= len(leading) <= (1 if matlab else 2) or 0 in shape:
        raise InputError(f"{path}: {name} has shape {shape}, expected (coils, {len(flat)}) for the {len(flat)} points of its "
                         "trajectory")
    if matlab and len(tail) > 1:
        raise InputError(f"{path}: {name} has shape {shape}, expected (coils, {len(flat)})")
    size, note = grid_of(path, flat, wanted)
    return _Reader(path, kspace, len(leading) == 2, leading[-1], len(flat), matlab, points=flat), size, [note]
