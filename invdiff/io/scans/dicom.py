"""Images from DICOM: a file, or a folder that holds one series."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from torch import Tensor

from invdiff.errors import InputError
from invdiff.io.scans.arrays import image_tensor
from invdiff.io.scans.checks import guarded, require_size, slice_reader
from invdiff.io.scans.geometry import affine_from_lps, is_frame
from invdiff.io.scans.scan import Header, Images

_METADATA = ("EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "MagneticFieldStrength", "SequenceName",
             "ScanningSequence", "Manufacturer", "ManufacturerModelName", "BodyPartExamined", "PatientPosition", "Modality")
_IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientWeight", "StudyDate",
             "StudyTime", "StudyID", "StudyDescription", "StudyInstanceUID", "SeriesDate", "SeriesTime", "SeriesDescription",
             "SeriesInstanceUID", "SeriesNumber", "FrameOfReferenceUID", "AcquisitionDate", "AcquisitionTime",
             "AccessionNumber", "ReferringPhysicianName", "OperatorsName", "InstitutionName", "StationName",
             "ProtocolName", "DeviceSerialNumber")


def dicom_files(folder: str) -> list[str]:
    """The DICOM files in a folder, not in those below it."""
    return [str(file) for file in sorted(Path(folder).iterdir()) if file.is_file() and is_dicom(_head(file))]


def is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes are those of a DICOM file."""
    return head[128:132] == b"DICM"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(132)


def open_dicom(path: str) -> Images:
    """A file, or a folder of one series, in the order of the positions; slope and intercept are applied.

    The affine is that of the first image, with the step from the first to the last. Raises InputError where there are several
    series, or images of several sizes, orientations, or at one position.
    """
    with guarded(path):
        files = dicom_files(path) if Path(path).is_dir() else [path]
        if not files:
            raise InputError(f"{path}: the folder holds no DICOM file; give a folder of one series, or a file")
        items = [_header(file) for file in files]
        _check_series(path, items)
        items, places = _sorted(path, items)
        first = items[0]
        size = int(first.Rows), int(first.Columns)
        require_size(path, (1, *size))
        names = [str(item.filename) for item in items]

        def read(number: int) -> Tensor:
            with guarded(names[number]):
                return image_tensor(path, number, _pixels(names[number], size))

        affine, notes = _affine(first, places, len(items))
        identity = {name: str(value) for name, value in _values(first, _IDENTITY).items()}
        return Images(path, "DICOM", len(items), size, slice_reader(path, len(items), read),
                      Header(affine, _values(first, _METADATA), identity), notes)


def _header(file: str) -> FileDataset:
    """Everything but the pixels."""
    with guarded(file):
        item = pydicom.dcmread(file, stop_before_pixels=True)
        if "Rows" not in item or "Columns" not in item:
            raise InputError(f"{file}: is a DICOM file without an image; expected MR images")
        if int(item.get("SamplesPerPixel", 1)) != 1:
            raise InputError(f"{file}: is a colour image; expected grey values")
        if int(item.get("NumberOfFrames", 1) or 1) != 1:
            raise InputError(f"{file}: holds {item.NumberOfFrames} frames (enhanced DICOM), which is not read; convert it to "
                             "NIfTI or to one file a slice")
        return item


def _check_series(path: str, items: Sequence[FileDataset]) -> None:
    series = Counter(str(item.get("SeriesInstanceUID", "")) for item in items)
    if len(series) > 1:
        names = {str(i.get("SeriesInstanceUID", "")): f"{i.get('SeriesNumber', '?')} {i.get('SeriesDescription', '')}".strip()
                 for i in items}
        listed = ", ".join(f"{names[uid]} ({count} images)" for uid, count in list(series.items())[:8])
        raise InputError(f"{path}: holds {len(series)} series: {listed}; give a folder of one")
    sizes = {(int(item.Rows), int(item.Columns)) for item in items}
    if len(sizes) > 1:
        raise InputError(f"{path}: holds images of sizes {sorted(sizes)}; expected one size in a series")


def _sorted(path: str, items: list[FileDataset]) -> tuple[list[FileDataset], np.ndarray | None]:
    """Along the normal, and positions (n, 3); by InstanceNumber, and None, where a file does not tell its position."""
    axes = [_numbers(item, "ImageOrientationPatient", 6) for item in items]
    places = [_numbers(item, "ImagePositionPatient", 3) for item in items]
    if any(axis is None or not is_frame(axis[:3], axis[3:]) for axis in axes) or any(place is None for place in places):
        return sorted(items, key=lambda item: int(item.get("InstanceNumber", 0) or 0)), None
    orientations, positions = np.array(axes), np.array(places)
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise InputError(f"{path}: holds images of several orientations; give a folder of one stack")
    depth = positions @ np.cross(orientations[0, :3], orientations[0, 3:])
    order = np.argsort(depth, kind="stable")
    if len(order) > 1 and np.diff(depth[order]).min() < 1e-3:
        raise InputError(f"{path}: holds several images at the same position; keep those of one echo, phase or contrast")
    return [items[i] for i in order], positions[order]


def _affine(first: FileDataset, places: np.ndarray | None, count: int) -> tuple[np.ndarray | None, list[str]]:
    spacing = _numbers(first, "PixelSpacing", 2)
    if places is None or spacing is None or spacing.min() <= 0:
        return None, ["the file does not tell where the images lie: they have no orientation"]
    axes = np.array(_numbers(first, "ImageOrientationPatient", 6))
    notes: list[str] = []
    if count > 1:
        step = (places[-1] - places[0]) / (count - 1)
        gaps = np.linalg.norm(np.diff(places, axis=0) - step, axis=1)
        if gaps.max() > 0.01 * np.linalg.norm(step):
            notes.append("the slices are not equally spaced: the affine holds their mean distance")
    else:
        thickness = _numbers(first, "SpacingBetweenSlices", 1)
        thickness = _numbers(first, "SliceThickness", 1) if thickness is None else thickness
        step = np.cross(axes[:3], axes[3:]) * (1.0 if thickness is None or thickness[0] <= 0 else thickness[0])
    # PixelSpacing is (between rows, between columns); the first direction is the one in which columns are counted
    return affine_from_lps(axes[:3] * spacing[1], axes[3:] * spacing[0], step, places[0]), notes


def _numbers(item: FileDataset, name: str, count: int) -> np.ndarray | None:
    """(count,), or None where the element is missing or no such numbers."""
    value = item.get(name)
    try:
        numbers = np.atleast_1d(np.array(value, dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return numbers if value is not None and numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _values(item: FileDataset, names: Sequence[str]) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for name in names:
        value = item.get(name)
        if value is not None and str(value):
            found[name] = float(value) if isinstance(value, int | float) else str(value)
    return found


def _pixels(file: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W), float32, after the modality's slope and intercept."""
    item = pydicom.dcmread(file)
    try:
        pixels = item.pixel_array
    except (NotImplementedError, RuntimeError) as error:
        if not item.file_meta.TransferSyntaxUID.is_compressed:
            raise
        raise InputError(f"{file}: its compression, {item.file_meta.TransferSyntaxUID.name}, cannot be decoded here; save it "
                         "uncompressed, or install pylibjpeg") from error
    if pixels.shape != size:
        raise InputError(f"{file}: its image is {pixels.shape}, and its header says {size}; export it again")
    slope, intercept = float(item.get("RescaleSlope", 1) or 1), float(item.get("RescaleIntercept", 0) or 0)
    return (pixels.astype(np.float64) * slope + intercept).astype(np.float32)
