"""BART's .cfl / .hdr pairs: a line of dimensions, and complex64 values, the first axis fastest. Uecker et al., BART."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from invdiff.errors import InputError
from invdiff.io.scans.checks import (
    any_of,
    choose_frame,
    grid_of,
    guarded,
    raw_slice,
    readout_is_full,
    require_size,
    slice_reader,
)
from invdiff.io.scans.scan import RawSlice, Scan

_AXES = 16
_COILS, _TIME, _SLICES = 3, 10, 13
_NAMES = ("readout", "phase 1", "phase 2", "coils", "sets of maps", "echo", "coefficients", "coefficients 2", "iterations",
          "cardiac phase", "time", "respiration", "levels", "slices", "averages", "batch")


def cfl_stem(path: str) -> str | None:
    """What comes before .cfl and .hdr, where `path` is one of the pair or that stem itself; None where there is no pair."""
    stems = [path, path[:-4]] if path.endswith((".cfl", ".hdr")) else [path]
    for stem in stems:
        if Path(stem + ".cfl").is_file() and Path(stem + ".hdr").is_file():
            return stem
    return None


def open_cfl(path: str, trajectory: str | None = None, frame: int = 0, size: tuple[int, int] | None = None) -> Scan:
    """A scan of dimensions 0 to 3 and 13 (readout, phase 1, phase 2, coils, slices); `frame` is an index into dimension 10.

    The grid (H, W) is the two of dimensions 0 to 2 that are longer than 1, in this order; where all three are, the fully
    sampled readout is transformed and each of its positions is a slice on the grid (phase 1, phase 2). k-space is centred, as
    `bart fft` leaves it; what is not zero was sampled.
    trajectory: another pair, (3, samples, spokes), in cycles per field of view along the first and second image axis; k-space
    is (1, samples, spokes, coils) then, and the image of `size`, else as large as the trajectory asks for.
    """
    with guarded(path):
        mapped, dims = _mapped(path)
        kept = {0, 1, 2, _COILS, _TIME, _SLICES}
        for axis, (name, length) in enumerate(zip(_NAMES, dims, strict=True)):
            if axis not in kept and length != 1:
                raise InputError(f"{path}: dimension {axis} ({name}) has {length} entries, which is not read; choose one of "
                                 f"them with `bart slice {axis} 0`")
        choose_frame(path, frame, dims[_TIME])
        notes = [f"frame {frame} of {dims[_TIME]}; the others are left out"] if dims[_TIME] > 1 else []
        values = mapped[:, :, :, :, 0, 0, 0, 0, 0, 0, frame, 0, 0, :, 0, 0]     # (readout, phase 1, phase 2, coils, slices)
        if trajectory is not None:
            return _open_trajectory(path, values, trajectory, frame, size, notes)
        return _open_grid(path, values, notes)


def _mapped(path: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """The array, mapped and not read, with 16 axes."""
    stem = cfl_stem(path)
    if stem is None:
        raise InputError(f"{path}: is no pair of .cfl and .hdr; give either of them, or their name without the ending")
    with Path(stem + ".hdr").open("rb") as file:
        lines = file.read(1 << 16).decode("ascii", errors="replace").splitlines()
    where = next((i for i, line in enumerate(lines) if line.startswith("# Dimensions")), len(lines))
    words = lines[where + 1].split() if where + 1 < len(lines) else []
    if not 1 <= len(words) <= _AXES or not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words):
        raise InputError(f"{stem}.hdr: expected a line '# Dimensions' and up to {_AXES} numbers after it; export it again")
    dims = tuple(map(int, words)) + (1,) * (_AXES - len(words))
    expected, size = 8 * math.prod(dims), Path(stem + ".cfl").stat().st_size
    if expected != size or size == 0:
        raise InputError(f"{stem}.cfl: holds {size:,} bytes, and its header {dims} asks for {expected:,}; it is incomplete, or "
                         "the header belongs to another file")
    return np.memmap(stem + ".cfl", dtype="<c8", mode="r", shape=dims, order="F"), dims


@dataclass(frozen=True)
class _Plane:
    """values: (H, W, coils, slices), mapped."""

    path: str
    values: np.ndarray

    def read(self, number: int) -> RawSlice:
        return raw_slice(self.path, number, self.values[..., number].transpose(2, 0, 1))


@dataclass(frozen=True)
class _Volume:
    """values: (readout, phase 1, phase 2, coils), mapped. A slice needs all of it once, a coil at a time."""

    path: str
    values: np.ndarray

    def read(self, number: int) -> RawSlice:
        n, *grid, coils = self.values.shape
        wave = np.exp(2j * np.pi * (np.arange(n) - n // 2) * (number - n // 2) / n) / np.sqrt(n)     # inverse DFT, a row
        kspace, sampled = np.empty((coils, *grid), np.complex64), np.zeros((n, *grid), bool)
        for coil in range(coils):
            values = np.asarray(self.values[..., coil])
            sampled |= values != 0
            kspace[coil] = np.tensordot(wave.astype(np.complex64), values, axes=1)
        if sampled.any() and not readout_is_full(sampled.reshape(n, -1)):
            raise InputError(f"{self.path}: its readout, dimension 0, has gaps; transform a fully sampled one and store slices")
        return raw_slice(self.path, number, kspace, any_of(sampled))


@dataclass(frozen=True)
class _Points:
    """values: (samples, spokes, coils, slices), mapped. points: (K, 2)."""

    path: str
    values: np.ndarray
    points: np.ndarray

    def read(self, number: int) -> RawSlice:
        values = self.values[..., number]
        kspace = values.reshape(-1, values.shape[-1]).T     # K runs over (samples, spokes), spokes fastest, as in points
        return raw_slice(self.path, number, kspace, trajectory=self.points)


def _open_grid(path: str, values: np.ndarray, notes: list[str]) -> Scan:
    *space, coils, slices = values.shape
    long = [axis for axis in range(3) if space[axis] > 1]
    if len(long) == 3:
        if slices > 1:
            raise InputError(f"{path}: has slices (dimension 13) of three dimensions each; expected either")
        require_size(path, (coils, *space[1:]))
        require_size(path, (space[0], *space[1:]))
        notes = [*notes, f"3D: transformed along the readout, each of its {space[0]} positions is a slice"]
        return Scan(path, "BART", space[0], coils, (space[1], space[2]), (space[1], space[2]),
                    slice_reader(path, space[0], _Volume(path, values[..., 0]).read), notes=notes)
    flat = next(axis for axis in (2, 1, 0) if axis not in long)
    plane = values[tuple(0 if axis == flat else slice(None) for axis in range(3))]
    size = (plane.shape[0], plane.shape[1])
    require_size(path, (coils, *size))
    return Scan(path, "BART", slices, coils, size, size, slice_reader(path, slices, _Plane(path, plane).read), notes=notes)


def _open_trajectory(path: str, values: np.ndarray, trajectory: str, frame: int, wanted: tuple[int, int] | None,
                     notes: list[str]) -> Scan:
    points, dims = _mapped(trajectory)
    if dims[0] != 3 or math.prod(dims) != math.prod(dims[:3]) * dims[_TIME]:
        raise InputError(f"{trajectory}: has dimensions {dims}, expected (3, samples, spokes)")
    if dims[_TIME] > 1:
        choose_frame(trajectory, frame, dims[_TIME])
    chosen = points[..., frame if dims[_TIME] > 1 else 0, 0, 0, 0, 0, 0].reshape(dims[:3])
    if values.shape[:3] != (1, *dims[1:3]):
        raise InputError(f"{path}: has dimensions {values.shape[:4]}, expected (1, samples, spokes, coils) with the samples "
                         f"and spokes {dims[1:3]} of {trajectory}")
    flat = np.asarray(chosen).reshape(3, -1).real.T.astype(np.float32)     # (K, 3), spokes fastest
    size, note = grid_of(trajectory, flat[:, :2], wanted)
    if np.abs(flat[:, 2]).max() > 0:
        raise InputError(f"{trajectory}: leaves the plane, its third coordinate is not zero; expected a 2D trajectory")
    coils, slices = values.shape[3:]
    require_size(path, (coils, len(flat)))
    return Scan(path, "BART", slices, coils, size, size,
                slice_reader(path, slices, _Points(path, values[0], np.ascontiguousarray(flat[:, :2])).read),
                notes=[*notes, note])
