"""fastMRI's HDF5: `kspace` (slices, coils, rows, columns), or (slices, rows, columns) from one coil."""

from dataclasses import dataclass

import h5py
import numpy as np

from invdiff.errors import InputError
from invdiff.io.scans.checks import (
    any_of,
    check_mask,
    crop_rows,
    finite_complex,
    measured,
    raw_slice,
    readout_is_full,
    require_complex,
    require_size,
    slice_reader,
)
from invdiff.io.scans.geometry import SPACING_ALONE, affine_of_spacings
from invdiff.io.scans.hdf5 import get_dataset, open_hdf5, read_small
from invdiff.io.scans.mrd_header import MRDHeader, parse_header
from invdiff.io.scans.scan import Header, RawSlice, Scan


@dataclass(frozen=True)
class _Layout:
    """grid: (H, W) as stored. rows: how many of H are kept. mask: bool (H, W), or None where the zeros tell."""

    path: str
    slices: int
    coils: int
    grid: tuple[int, int]
    rows: int
    mask: np.ndarray | None

    def read(self, number: int) -> RawSlice:
        with open_hdf5(self.path) as file:
            kspace = _stored(self.path, file, number)
        if self.rows == self.grid[0]:
            return raw_slice(self.path, number, kspace, self.mask)
        kspace = finite_complex(self.path, f"slice {number}", kspace)
        sampled = measured(kspace, self.mask)
        if sampled.any() and not readout_is_full(sampled):
            raise InputError(f"{self.path}: slice {number} is sampled in another way than the rest, with gaps along its rows; "
                             "keep it in a file of its own")
        columns = sampled.any(axis=0)
        kspace = crop_rows(np.where(columns, kspace, np.complex64(0)), self.rows)
        return raw_slice(self.path, number, kspace, np.array(np.broadcast_to(columns, (self.rows, self.grid[1]))))


def open_fastmri(path: str) -> Scan:
    """A scan of a grid (H, W): H along the readout, W along the phase encoding.

    The image's size is that of the header's reconSpace, else of `reconstruction_rss` or `reconstruction_esc`, else the grid's.
    A readout that is sampled fully and longer than that is cropped in image space, as fastMRI does, but around pixel n // 2
    (fastMRI is one before it where an odd size is cut from an even one). `mask` is (W,) or (H, W),
    else whatever is not zero was sampled; columns of zeros never were. The affine holds spacings, and says nothing
    of the orientation.
    """
    with open_hdf5(path) as file:
        data = get_dataset(path, file, "kspace")
        require_complex(path, "kspace", data.dtype)
        if data.ndim not in (3, 4):
            raise InputError(f"{path}: kspace has shape {data.shape}, expected (slices, coils, rows, columns) or, from one "
                             "coil, (slices, rows, columns)")
        if len(data) == 0:
            raise InputError(f"{path}: kspace has shape {data.shape}, it holds no slices")
        coils, grid = (data.shape[1] if data.ndim == 4 else 1), (data.shape[-2], data.shape[-1])
        require_size(path, (coils, *grid), data.dtype.itemsize)
        header = _header(path, file)
        crop = _image_size(path, file, header, grid)
        mask = check_mask(path, read_small(path, file, "mask"), grid) if "mask" in file else None
        seen = measured(_stored(path, file, len(data) // 2), mask)      # NaN counts here, and is refused where it is read
        rows, notes = _rows(crop[0], grid[0], seen if mask is None or seen.any() else mask)
        notes += _padding(mask, seen)
        layout = _Layout(path, len(data), coils, grid, rows, mask)
        about, more = _about(file, header, _spacings(header, grid), crop)
        slices = len(data)
    return Scan(path, "fastMRI", slices, coils, (rows, grid[1]), crop, slice_reader(path, slices, layout.read),
                header=about, notes=(*notes, *more))


def _stored(path: str, file: h5py.File, number: int) -> np.ndarray:
    """(N, H, W)"""
    kspace = get_dataset(path, file, "kspace")[number]
    return kspace if kspace.ndim == 3 else kspace[None]


def _header(path: str, file: h5py.File) -> MRDHeader | None:
    if "ismrmrd_header" not in file:
        return None
    xml = read_small(path, file, "ismrmrd_header").reshape(-1)[:1].tolist()
    if not xml or not isinstance(xml[0], bytes | str):
        raise InputError(f"{path}: ismrmrd_header is no text; expected an XML header")
    return parse_header(path, xml[0])


def _image_size(path: str, file: h5py.File, header: MRDHeader | None, grid: tuple[int, int]) -> tuple[int, int]:
    if header is not None:
        wanted = header.encodings[0].recon.matrix[:2]
    else:
        stored = [get_dataset(path, file, name).shape[-2:] for name in ("reconstruction_rss", "reconstruction_esc")
                  if name in file]
        wanted = stored[0] if stored and len(stored[0]) == 2 and min(stored[0]) > 0 else grid
    return min(wanted[0], grid[0]), min(wanted[1], grid[1])


def _rows(wanted: int, rows: int, seen: np.ndarray) -> tuple[int, list[str]]:
    """How many rows are kept, and what there is to say about it; one slice, measured where `seen` is True, tells for all."""
    if wanted >= rows:
        return rows, []
    if seen.any() and not readout_is_full(seen):
        return rows, [f"rows are not sampled fully, so all {rows} are kept and the image is cropped to {wanted} at the end"]
    return wanted, [f"readout oversampling removed: cropped from {rows} to {wanted} rows in image space"]


def _padding(mask: np.ndarray | None, seen: np.ndarray) -> list[str]:
    """What there is to say where the mask (H, W) calls more columns measured than `seen` does."""
    empty = 0 if mask is None or not seen.any() else int((any_of(mask) & ~any_of(seen)).sum())
    return [f"{empty} of the columns in the mask hold nothing but zeros, and count as not measured"] if empty else []


def image_header(path: str, size: tuple[int, int]) -> Header:
    """What travels with the images (H, W) of such a file, or of one that `write_fastmri` wrote. Raises InputError."""
    with open_hdf5(path) as file:
        affine = np.asarray(file.attrs.get("affine", ()))
        if affine.shape == (4, 4) and affine.dtype.kind == "f" and np.isfinite(affine).all():
            return Header(affine, oriented=bool(file.attrs.get("oriented", True)))
        header = _header(path, file)
        return _about(file, header, _spacings(header, None), size)[0]


def _spacings(header: MRDHeader | None, grid: tuple[int, int] | None) -> list[float]:
    """Millimetres between rows, columns and slices: of the pixels of the stored grid, which spans the encoded field of view, or
    of the reconstruction's where that is told alone; 0 where it is not told."""
    if header is None:
        return [0.0, 0.0, 0.0]
    encoded, recon = header.encodings[0].encoded, header.encodings[0].recon
    spacings = [length / count for length, count in zip(recon.fov, recon.matrix, strict=True)]
    if grid is not None and min(encoded.fov[:2]) > 0:
        spacings[:2] = [length / count for length, count in zip(encoded.fov, grid, strict=False)]
    return spacings


def _about(file: h5py.File, header: MRDHeader | None, spacings: list[float],
           crop: tuple[int, int]) -> tuple[Header, list[str]]:
    """What the header tells, for images of pixels of these spacings."""
    metadata: dict[str, str | float] = dict(header.metadata) if header else {}
    identity = dict(header.identity) if header else {}
    for name, kept in (("acquisition", metadata), ("patient_id", identity)):
        if isinstance(value := file.attrs.get(name), str):
            kept["AcquisitionType" if name == "acquisition" else "PatientID"] = value
    if header is None:
        return Header(None, metadata, identity), []
    if header.echo_times:
        metadata["EchoTime"] = header.echo_times[0]
    if (thickness := header.encodings[0].thickness) > 0:
        metadata["SliceThickness"] = thickness
    if min(spacings) <= 0:
        return Header(None, metadata, identity), []
    row, column, step = spacings
    return Header(affine_of_spacings(row, column, step, crop), metadata, identity, oriented=False), [SPACING_ALONE]
