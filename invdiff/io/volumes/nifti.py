"""NIfTI-1 files, .nii and .nii.gz."""

import gzip
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from invdiff.errors import InputError
from invdiff.io.files import replacing
from invdiff.io.scans.scan import Header
from invdiff.io.volumes.slices import affine_of, check_shape, checked

DESCRIPTION = "invdiff: research use only, not for diagnostic use"
LIMIT = 2**15 - 1    # of a side: the format counts in 16 bits

_SCANNER, _ALIGNED = 1, 2    # NIfTI's codes: coordinates of the scanner, or of something else


def write_nifti(
    path: str | Path,
    slices: Iterable[np.ndarray],
    shape: Sequence[int],
    header: Header | None = None,
    description: str = DESCRIPTION,
    dtype: npt.DTypeLike = np.float32,
) -> None:
    """Writes slices (h, w), read one at a time, as a volume indexed (column, row, slice); it is complete or absent.

    shape: (D, h, w). header: its affine is stored as sform and qform, as scanner coordinates or, where it is not oriented, as
    aligned; where it has none, voxels of 1 mm are laid out so that slices display as they are, and called aligned. Its
    identity is not written. description: at most 79 bytes. dtype: float32, or complex64 for real and imaginary parts.

    Raises InputError for a name that does not end in .nii or .nii.gz, ValueError for slices that are not as announced, a
    side over 32767, a description that is too long and other dtypes, OSError where the file cannot be written.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: expected a name that ends in .nii or .nii.gz")
    beginning = _beginning(shape, header or Header(), description, dtype)
    with ExitStack() as stack:
        temporary = stack.enter_context(replacing(path))
        file = cast("IO[bytes]", stack.enter_context(temporary.open("wb")))
        if path.name.endswith(".gz"):    # no name and no time inside: equal volumes are equal files
            file = cast("IO[bytes]", stack.enter_context(gzip.GzipFile("", "wb", 1, file, mtime=0)))
        file.write(beginning)
        for array in checked(slices, shape, dtype):
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())    # columns fastest


def _beginning(shape: Sequence[int], header: Header, description: str, dtype: npt.DTypeLike) -> bytes:
    """The 352 bytes before the data."""
    from nibabel.nifti1 import Nifti1Header

    count, height, width = check_shape(shape)
    if max(shape) > LIMIT:
        raise ValueError(f"shape: expected sides of at most {LIMIT}, as NIfTI-1 counts, got {tuple(shape)}")
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.complex64)):
        raise ValueError(f"dtype: expected float32 or complex64, got {np.dtype(dtype)}")
    text = description.encode()
    if len(text) > 79:
        raise ValueError(f"description: expected at most 79 bytes, got {len(text)}")
    affine, known = affine_of(header, shape)
    code = _SCANNER if known else _ALIGNED
    nifti = Nifti1Header(endianness="<")
    nifti.set_data_shape((width, height, count))
    nifti.set_data_dtype(np.dtype(dtype))
    nifti.set_sform(affine, code)
    nifti.set_qform(affine, code)    # sets the voxel sizes too; a shear is in the sform only
    nifti.set_xyzt_units("mm", "sec")
    nifti.set_slope_inter(1, 0)
    nifti["descrip"] = text
    nifti["vox_offset"] = 352
    return nifti.binaryblock + bytes(4)    # and no extensions
