"""What all writers of volumes share: a stream of slices that is what it was announced to be, and where it lies."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from invdiff.io.scans.scan import Header

Shape = tuple[int, int, int]    # (D, h, w): slices, rows, columns


def checked(slices: Iterable[np.ndarray], shape: Sequence[int], dtype: npt.DTypeLike = np.float32) -> Iterator[np.ndarray]:
    """The slices one at a time, C-contiguous (h, w) of `dtype`, float32 or complex64; nothing is read ahead.

    Raises ValueError where a slice has another shape, is complex for a real `dtype`, or holds NaN or infinity, and after the
    last one where there are not D of them.
    """
    count, height, width = check_shape(shape)
    number = -1
    for number, item in enumerate(slices):
        if number == count:
            raise ValueError(f"slices: expected {count}, the first of the shape {tuple(shape)}, got more")
        array = np.asarray(item)
        if array.shape != (height, width):
            raise ValueError(f"slices: expected (h, w) = ({height}, {width}), got {array.shape} in slice {number}")
        if np.iscomplexobj(array) and not np.issubdtype(dtype, np.complexfloating):
            raise ValueError(f"slices: expected real numbers, such as magnitudes, got {array.dtype} in slice {number}")
        array = np.ascontiguousarray(array, dtype)
        if not np.isfinite(array).all():
            raise ValueError(f"slices: expected finite values, got NaN or infinity in slice {number}")
        yield array
    if number + 1 < count:
        raise ValueError(f"slices: expected {count}, the first of the shape {tuple(shape)}, got {number + 1}")


def check_shape(shape: Sequence[int]) -> Shape:
    """`shape` as three positive ints (D, h, w); ValueError if it is anything else."""
    if len(shape) != 3 or not all(isinstance(n, int | np.integer) and n > 0 for n in shape):
        raise ValueError(f"shape: expected three positive integers (D, h, w), got {tuple(shape)}")
    count, height, width = map(int, shape)
    return count, height, width


def affine_of(header: Header, shape: Sequence[int]) -> tuple[np.ndarray, bool]:
    """The affine (4, 4), float64, voxel (column, row, slice) to millimetres RAS+, and whether it is the scanner's.

    If it did not: voxels of 1 mm around the origin at index n // 2, columns running to the patient's left and rows to the
    back, so that an axial slice is displayed as it is stored. Raises ValueError for an affine that cannot be one.
    """
    count, height, width = check_shape(shape)
    if header.affine is None:
        default = np.diag([-1.0, -1.0, 1.0, 1.0])
        default[:3, 3] = width // 2, height // 2, -(count // 2)
        return default, False
    affine = np.asarray(header.affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
        raise ValueError(f"header.affine: expected a finite (4, 4) matrix with the last row 0 0 0 1, got {affine.tolist()}")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if steps.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / steps)) < 1e-6:
        raise ValueError(f"header.affine: expected three independent directions, got {affine[:3, :3].tolist()}")
    return affine, header.oriented
