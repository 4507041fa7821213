"""Reconstructions as fastMRI's evaluation reads them: HDF5 with the dataset `reconstruction`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from invdiff.io.files import replacing
from invdiff.io.results import new_hdf5
from invdiff.io.scans.scan import Header
from invdiff.io.volumes.slices import affine_of, check_shape, checked


def write_fastmri(path: str | Path, slices: Iterable[np.ndarray], shape: Sequence[int], header: Header | None = None) -> None:
    """Writes magnitude slices (h, w), read one at a time, as `reconstruction` (D, h, w), float32; complete or absent.

    shape: (D, h, w). header: its metadata become attributes of the file, its affine the attributes `affine` and `oriented`;
    its identity is not written. Zbontar et al. 2018. Raises ValueError for slices that are not as announced, OSError where the
    file cannot be written.
    """
    header = header or Header()
    count, height, width = check_shape(shape)
    affine, known = affine_of(header, shape)
    with replacing(path) as temporary, new_hdf5(temporary) as file:
        data = file.create_dataset("reconstruction", (count, height, width), "<f4", chunks=(1, height, width))
        for number, array in enumerate(checked(slices, shape)):
            data[number] = array
        file.attrs["note"] = "research use only, not for diagnostic use"
        own = ("note", "affine", "oriented")
        file.attrs.update({name: value for name, value in header.metadata.items() if name not in own})
        if header.affine is not None:
            file.attrs["affine"], file.attrs["oriented"] = affine, known
