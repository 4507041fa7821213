"""A file's format, told by its content, and the reader for it."""

import zlib
from dataclasses import replace
from pathlib import Path

from invdiff.errors import InputError
from invdiff.io.scans.arrays import open_arrays, open_image_arrays
from invdiff.io.scans.cfl import cfl_stem, open_cfl
from invdiff.io.scans.checks import choose_frame, guarded
from invdiff.io.scans.dicom import dicom_files, is_dicom, open_dicom
from invdiff.io.scans.fastmri import image_header, open_fastmri
from invdiff.io.scans.hdf5 import open_hdf5
from invdiff.io.scans.mrd import find_group, open_mrd
from invdiff.io.scans.nifti import is_nifti, open_nifti
from invdiff.io.scans.scan import Images, Scan
from invdiff.io.scans.variables import Variable, hdf5_variable, mat5_variables, mat73_variables, npy_variable, npz_variables

_SCANS = "k-space as fastMRI HDF5 (dataset kspace), ISMRMRD, BART .cfl/.hdr, or complex arrays in .npy, .npz or .mat"
_IMAGES = "images as NIfTI, DICOM, fastMRI HDF5 with reconstruction_rss, or arrays in .npy, .npz or .mat"
_RECONSTRUCTIONS = ("reconstruction_rss", "reconstruction_esc", "reconstruction")      # beside k-space, and in results
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PHOTOS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"BM")


def open_scan(path: str | Path, *, trajectory: str | Path | None = None, frame: int = 0,
              size: tuple[int, int] | None = None) -> Scan:
    """Raw k-space: fastMRI or ISMRMRD HDF5, a BART pair, .npy, .npz or .mat; slices are read when they are asked for.

    trajectory: a file that holds it, for a BART pair (another pair, (3, samples, spokes), BART's order) and for .npy (.npy,
    (..., 2), points (ky, kx) in cycles per field of view). frame: which of several repetitions, contrasts, phases or sets.
    size: (H, W) of the image, where a trajectory does not tell it; by default, what it resolves.
    Raises InputError for anything else, naming what would be read.
    """
    with guarded(path := str(path)):
        scan = _open_scan(path, None if trajectory is None else str(trajectory), frame, size)
        if size not in (None, scan.crop):
            raise InputError(f"{path}: has images of {scan.crop[0]} x {scan.crop[1]} pixels, by its grid or its header; leave "
                             "their size out, it goes with a trajectory in .npy, .npz, .mat or of BART")
        return scan


def _open_scan(path: str, trajectory: str | None, frame: int, size: tuple[int, int] | None) -> Scan:
    kind = _kind(path, _SCANS)
    if kind in ("NIfTI", "DICOM", "photo"):
        raise InputError(f"{path}: holds images ({kind}), not k-space; expected {_SCANS}, or simulate a scan of it")
    if trajectory is not None and kind not in ("BART", "npy"):
        raise InputError(f"{path}: a trajectory in a file of its own goes with BART pairs and .npy only; store it in this file")
    if kind == "BART":
        return open_cfl(path, trajectory, frame, size)
    if kind == "ISMRMRD":
        return open_mrd(path, frame)
    choose_frame(path, frame, 1)
    if kind == "fastMRI":
        return open_fastmri(path)
    variables = _variables(path, kind, "kspace")
    if trajectory is not None:
        variables["trajectory"] = npy_variable(trajectory)
    return open_arrays(path, variables, kind.startswith("MATLAB"), size)


def open_images(path: str | Path, *, frame: int = 0) -> Images:
    """Images to simulate a scan of: NIfTI, DICOM (a file, or a folder of one series), .npy, .npz or .mat, or the images in
    fastMRI's files and in what invdiff writes for it, in the file's units.

    frame: of a NIfTI series, or which of several DICOM images at each position. Raises InputError for anything else, naming
    what would be read.
    """
    with guarded(path := str(path)):
        return _open_images(path, frame)


def _open_images(path: str, frame: int) -> Images:
    kind = _kind(path, _IMAGES)
    if kind == "fastMRI" and (name := _reconstruction(path)):
        images = open_image_arrays(path, {"image": hdf5_variable(path, name)})
        return replace(images, format="fastMRI", header=image_header(path, images.size))
    if kind in ("BART", "ISMRMRD", "fastMRI"):
        raise InputError(f"{path}: holds k-space ({kind}), not images; expected {_IMAGES}, or give it as a scan")
    if kind == "photo":
        raise InputError(f"{path}: is a photo; expected {_IMAGES}")
    if kind == "NIfTI":
        return open_nifti(path, frame)
    if kind == "DICOM":
        return open_dicom(path, frame)
    choose_frame(path, frame, 1)
    return open_image_arrays(path, _variables(path, kind, "image"), kind.startswith("MATLAB"))


def _kind(path: str, known: str) -> str:
    """One of BART, fastMRI, ISMRMRD, NIfTI, DICOM, photo, npy, npz, MATLAB 5, MATLAB 7.3."""
    if cfl_stem(path) is not None:
        return "BART"
    if Path(path).is_dir():
        if not dicom_files(path):
            raise InputError(f"{path}: is a folder with no DICOM file in it; expected {known}")
        return "DICOM"
    if not Path(path).is_file():
        what = "is no regular file" if Path(path).exists() else "no such file"
        raise InputError(f"{path}: {what}; expected {known}")
    with open(path, "rb") as file:
        head = file.read(1024)
    if not head:
        raise InputError(f"{path}: is empty; expected {known}")
    if head.startswith(b"\x1f\x8b"):
        head = _unpacked(head)
    if head.startswith(_HDF5) or head[512:520] == _HDF5:
        return _hdf5_kind(path, known)
    kinds = (("npy", head.startswith(b"\x93NUMPY")), ("npz", head.startswith(b"PK\3\4")), ("DICOM", is_dicom(head)),
             ("NIfTI", is_nifti(head)), ("MATLAB 5", head.startswith(b"MATLAB 5.0")), ("photo", _is_photo(head)))
    for kind, fits in kinds:
        if fits:
            return kind
    raise InputError(f"{path}: is of no known format, or its first bytes are damaged; expected {known}")


def _is_photo(head: bytes) -> bool:
    return head.startswith(_PHOTOS) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def _unpacked(head: bytes) -> bytes:
    """As much of a gzip file as its first bytes tell."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 1024)
    except zlib.error:
        return b""


def _hdf5_kind(path: str, known: str) -> str:
    with open_hdf5(path) as file:
        if find_group(file) is not None:
            return "ISMRMRD"
        if any("MATLAB_class" in item.attrs for item in file.values()) or _starts_as_matlab(path):
            return "MATLAB 7.3"
        if "kspace" in file or (known == _IMAGES and any(name in file for name in _RECONSTRUCTIONS)):
            return "fastMRI"
        names = ", ".join(list(file)[:8]) or "nothing"
    raise InputError(f"{path}: is HDF5 that holds {names}; expected {known}")


def _starts_as_matlab(path: str) -> bool:
    """Other programs than MATLAB may write its header alone."""
    with open(path, "rb") as file:
        return b"MATLAB 7.3" in file.read(128)


def _reconstruction(path: str) -> str | None:
    """The dataset of images in a fastMRI file."""
    with open_hdf5(path) as file:
        return next((name for name in _RECONSTRUCTIONS if name in file), None)


def _variables(path: str, kind: str, name: str) -> dict[str, Variable]:
    if kind == "npy":
        return {name: npy_variable(path)}
    readers = {"npz": npz_variables, "MATLAB 5": mat5_variables, "MATLAB 7.3": mat73_variables}
    return dict(readers[kind](path))
