"""Images from NIfTI."""

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from torch import Tensor

from invdiff.errors import InputError
from invdiff.io.scans.arrays import image_tensor
from invdiff.io.scans.checks import MAX_RATIO, choose_frame, guarded, require_size, slice_reader
from invdiff.io.scans.scan import Header, Images

_MILLIMETRES = {1: 1000.0, 3: 1e-3}      # in NIfTI's codes of metres and micrometres


def is_nifti(head: bytes) -> bool:
    """Whether the first 540 bytes, uncompressed, are those of a single-file NIfTI-1 or NIfTI-2."""
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def open_nifti(path: str, frame: int = 0) -> Images:
    """The volume (columns, rows, slices) of a .nii or .nii.gz, one slice [:, :, k] after another, transposed to (H, W); of a
    series (columns, rows, slices, frames) that of one frame.

    The affine is the file's, in millimetres: its voxel axes (i, j, k) are our (column, row, slice). It is oriented where the
    file calls it the scanner's (code 1), and not where it is of a template, or the file has none; of its two forms the
    scanner's is taken, else sform. Slope and intercept are applied.
    """
    with guarded(path):
        with _image(path) as image:
            shape, dtype, header = image.shape, image.get_data_dtype(), image.header
            scale = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
            sform, qform = int(header["sform_code"]), int(header["qform_code"])
            code = 1 if qform == 1 else sform or qform
            affine = np.diag([scale, scale, scale, 1.0]) @ (image.get_qform() if sform != code == 1 else image.affine)
            offset = int(header.get_data_offset())
        if dtype.kind not in "iufc" or len(shape) < 2 or math.prod(shape[4:]) != 1:
            raise InputError(f"{path}: is {dtype} of shape {shape}, expected grey values (columns, rows, slices), or a series "
                             "(columns, rows, slices, frames)")
        columns, rows, slices, frames = (*shape[:4], 1, 1)[:4]
        if slices == 0 or frames == 0:
            raise InputError(f"{path}: has shape {shape}, it holds no images")
        choose_frame(path, frame, frames)
        require_size(path, (1, rows, columns), dtype.itemsize)
        size = Path(path).stat().st_size * (MAX_RATIO if _compressed(path) else 1)
        if offset + math.prod(shape) * dtype.itemsize > size:
            raise InputError(f"{path}: declares a volume {shape} of {dtype} and holds fewer bytes; copy it again")

        def read(number: int) -> Tensor:
            with _image(path) as image:
                index = (slice(None), slice(None), *(number, frame, *(0,) * 3)[:len(shape) - 2])
                return image_tensor(path, number, np.asarray(image.dataobj[index]).T)

        finite = bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine)) > 0
        notes = [] if finite else ["the file's affine is singular: the images have no orientation"]
        notes += [] if code == 1 else [f"the file does not call its coordinates the scanner's (NIfTI's code {code})"]
        notes += [f"frame {frame} of {frames}; the others are left out"] if frames > 1 else []
        return Images(path, "NIfTI", slices, (rows, columns), slice_reader(path, slices, read),
                      Header(affine if finite else None, oriented=code == 1), notes)


@contextmanager
def _image(path: str) -> Iterator[nibabel.Nifti1Image]:
    """By content, where nibabel's own loader goes by the ending."""
    # nibabel logs each header field that it mends
    with LoggingOutputSuppressor(), (gzip.open(path) if _compressed(path) else open(path, "rb")) as file:
        kind = nibabel.Nifti2Image if file.read(8)[4:] == b"n+2\0" else nibabel.Nifti1Image
        file.seek(0)
        yield kind.from_stream(file)


def _compressed(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"
