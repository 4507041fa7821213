"""What every reader checks, so that a damaged or hostile file ends in one clear sentence and in nothing else."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import EmptySlice, InputError
from invdiff.io.scans.scan import RawSlice
from operators.mri import fft, ifft

LIMIT = 4 << 30       # bytes that are read at once: a slice, or an archive that can only be read whole
MAX_RATIO = 1100      # deflate packs no more than 1032 to 1: a file that declares more holds nothing of the kind
MAX_SIDE = 8192       # of a grid
PEAKS = (1e-12, 1e12)  # of a slice: beyond, float32 may not hold the power of its noise, or of all of it
TELLING = 100         # times the mean power: a peak of k-space that is signal, noise has a dozen at most
RADIANS = 3.2         # cycles per field of view: a trajectory that reaches no further is in [-pi, pi], or in [-0.5, 0.5]
MANY_COILS = 64       # more than that, and than twice the samples along an axis, are no coils

Read = TypeVar("Read")


@contextmanager
def guarded(path: str) -> Iterator[None]:
    """Raises InputError in the place of whatever a decoder raises on damaged bytes, and lets none of its warnings out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError as error:
        if str(error).isprintable():
            raise
        raise InputError(_printable(str(error))) from error     # names in a file may hold anything, escape codes too
    except ImportError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: declares more data than memory holds; it is damaged, or export fewer slices") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or brief(error)}); give a file you may read") from error
    except Exception as error:
        raise InputError(f"{path}: cannot be decoded, it is damaged or incomplete ({brief(error)}); copy or export it "
                         "again") from error


def brief(error: BaseException) -> str:
    """What the exception says, on one line of at most 120 characters."""
    if "truncated file" in str(error):         # of HDF5, among numbers that say nothing to a user
        return "truncated"
    return _printable(re.sub(r"\s+", " ", str(error))[:120]) or type(error).__name__


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def slice_reader(path: str, slices: int, read: Callable[[int], Read]) -> Callable[[int], Read]:
    """`read`, guarded, for slice numbers that exist."""
    def guarded_read(number: int) -> Read:
        if not 0 <= number < slices:
            raise InputError(f"{path}: has slices 0 to {slices - 1}, not {number}; choose one of them")
        with guarded(path):
            return read(number)
    return guarded_read


def require_complex(path: str, name: str, dtype: np.dtype) -> None:
    """Raises InputError unless the values are complex."""
    if dtype.kind != "c":
        raise InputError(f"{path}: {name} is {dtype}, expected complex k-space; magnitude images and k-space stored without "
                         "its imaginary part cannot be reconstructed")


def require_size(path: str, shape: tuple[int, ...], itemsize: int = 8) -> None:
    """Raises InputError unless one slice of this shape, (N, H, W) or (N, K), has values and fits."""
    if 0 in shape:
        raise InputError(f"{path}: a slice has shape {shape}, it holds no values; expected at least one coil and one sample")
    if np.prod(shape, dtype=object) * itemsize > LIMIT or (len(shape) == 3 and max(shape[1:]) > MAX_SIDE):
        raise InputError(f"{path}: declares slices of shape {shape}, more than the {LIMIT >> 30} GiB or {MAX_SIDE} rows and "
                         "columns that are read; it is damaged, or has its axes in another order")
    if len(shape) == 3 and shape[0] > max(MANY_COILS, 2 * min(shape[1:])):
        raise InputError(f"{path}: would have {shape[0]} coils and {shape[1]} x {shape[2]} samples; its axes are in another "
                         "order, expected (coils, rows, columns)")


def choose_frame(path: str, frame: int, frames: int) -> None:
    """Raises InputError unless there is such a frame."""
    if not 0 <= frame < frames:
        raise InputError(f"{path}: has frames 0 to {frames - 1}, not {frame}; choose one of them")


def check_mask(path: str, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (H, W) from 0 and 1 of any type, (W,), (H, W), or anything with leading ones that broadcasts to it."""
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise InputError(f"{path}: the mask holds other values than 0 and 1; give 1 where k-space was sampled and 0 elsewhere")
    flat = mask
    while flat.ndim > 2 and flat.shape[0] == 1:
        flat = flat[0]
    if flat.ndim == 0 or flat.ndim > 2 or any(m not in (1, n) for m, n in zip(flat.shape[::-1], size[::-1], strict=False)):
        raise InputError(f"{path}: the mask has shape {mask.shape}, expected (H, W) = {size} or (W,) = ({size[1]},)")
    if not mask.any():
        raise InputError(f"{path}: the mask keeps no sample; give 1 where k-space was sampled")
    return np.array(np.broadcast_to(flat.astype(bool), size))


def finite_complex(path: str, what: str, values: np.ndarray) -> np.ndarray:
    """complex64, of the same shape; raises InputError where values are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ascontiguousarray(values, dtype=np.complex64)
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        raise InputError(f"{path}: {what} holds {bad} NaN or infinite values; export it again, or choose another slice")
    return values


def raw_slice(path: str, number: int, kspace: np.ndarray, mask: np.ndarray | None = None,
              trajectory: np.ndarray | None = None, calibration: np.ndarray | None = None) -> RawSlice:
    """The slice, checked: finite, within PEAKS, zero where the mask (default: where any coil is not zero) is False, with its
    origin in the middle of the grid, and not all zero, which is an EmptySlice. Of the mask, what `measured` says is kept."""
    kspace = finite_complex(path, f"slice {number}", kspace)
    if trajectory is None:
        mask = measured(kspace, mask)
        kspace = np.where(mask, kspace, np.complex64(0))
    if not kspace.any():
        raise EmptySlice(f"{path}: the k-space of slice {number} is zero everywhere; choose another slice")
    check_peak(path, f"the k-space of slice {number}", float(np.abs(kspace).max()))
    if trajectory is None:
        _check_origin(path, number, kspace)
    if calibration is not None:
        calibration = finite_complex(path, f"the calibration of slice {number}", calibration)
    return RawSlice(torch.from_numpy(kspace), _tensor(mask), _tensor(trajectory), _tensor(calibration))


def check_peak(path: str, what: str, peak: float) -> None:
    """Raises InputError where the largest magnitude is of no scale to compute at."""
    if not PEAKS[0] <= peak <= PEAKS[1]:
        raise InputError(f"{path}: the largest magnitude of {what} is {peak:.3g}, expected {PEAKS[0]:g} to {PEAKS[1]:g}; "
                         "multiply all values of the file by a constant")


def _check_origin(path: str, number: int, kspace: np.ndarray) -> None:
    """Raises InputError where k-space (N, H, W) has a peak that is signal, and that far from the middle of the grid."""
    power = np.square(np.abs(kspace)).sum(axis=0)
    row, column = (int(i) for i in np.unravel_index(power.argmax(), power.shape))
    height, width = power.shape
    off = abs(row - height // 2) > height / 4 or abs(column - width // 2) > width / 4
    if off and power[row, column] > TELLING * power[power > 0].mean():
        raise InputError(f"{path}: the peak of k-space of slice {number} is at row {row} and column {column} of {height} x "
                         f"{width}; expected it in the middle, where frequency zero is: shift it with numpy.fft.fftshift")


def any_of(values: np.ndarray) -> np.ndarray:
    """bool (H, W), from (N, H, W): what is not zero anywhere along the first axis."""
    return np.asarray((values != 0).any(axis=0))


def measured(kspace: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """bool (H, W), where k-space (N, H, W) was measured: where any coil is not zero, or as the mask says, but for columns
    of nothing but zeros, with which scanners fill up the grid whatever the mask says."""
    there = any_of(kspace)
    return there if mask is None else mask & any_of(there)


def _tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array))


def crop_rows(kspace: np.ndarray, rows: int) -> np.ndarray:
    """(..., H, W) -> (..., rows, W), cropped in image space to the middle rows. Needs every row of a column sampled.

    Orthonormal on both sides, so white noise stays white, and of the same variance.
    """
    image = ifft(torch.from_numpy(kspace), (-2,))
    start = image.shape[-2] // 2 - rows // 2
    return fft(image[..., start:start + rows, :], (-2,)).numpy()


def readout_is_full(sampled: np.ndarray) -> bool:
    """Whether bool (H, W) has every column all sampled or not at all, up to a few samples that are zero by chance."""
    columns = sampled.any(axis=0)
    return bool(sampled.any(axis=1).all() and sampled[:, columns].mean() >= 0.95)


def grid_of(path: str, trajectory: np.ndarray, wanted: tuple[int, int] | None = None) -> tuple[tuple[int, int], str]:
    """(H, W) of a grid that resolves points (K, 2) in cycles per field of view, and a note: the one that is wanted, else the
    smallest even one, square where it nearly is."""
    if not np.isfinite(trajectory).all():
        raise InputError(f"{path}: the trajectory holds NaN or infinite values; export it again")
    reach = np.abs(trajectory).max(axis=0)
    if reach.max() > MAX_SIDE / 2:
        raise InputError(f"{path}: the trajectory reaches {reach.max():g} cycles per field of view; expected half the number "
                         f"of pixels, at most {MAX_SIDE // 2}")
    if reach.max() <= RADIANS:
        raise InputError(f"{path}: the trajectory reaches only {reach.max():g} cycles per field of view; multiply "
                         "coordinates in [-0.5, 0.5] by the number of pixels, and radians by that over 2 pi")
    if wanted is not None:
        least = [max(int(np.ceil(2 * (r - 1e-3))), 1) for r in reach]
        if any(not low <= side <= MAX_SIDE for low, side in zip(least, wanted, strict=True)):
            raise InputError(f"{path}: the trajectory reaches {reach[0]:g} and {reach[1]:g} cycles per field of view; expected "
                             f"a size from {least[0]} x {least[1]} pixels, twice as many, to {MAX_SIDE} x {MAX_SIDE}, got "
                             f"{wanted[0]} x {wanted[1]}")
        return wanted, f"image size {wanted[0]} x {wanted[1]} as given"
    if reach.min() > 0.9 * reach.max():     # spokes seldom end on both axes
        reach[:] = reach.max()
    height, width = (max(2 * int(np.ceil(r - 1e-3)), 1) for r in reach)
    return (height, width), f"image size {height} x {width} estimated from the trajectory, even; give size for another"
