"""Images from DICOM: a file of one or many frames, or a folder that holds one series."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from torch import Tensor

from invdiff.errors import InputError
from invdiff.io.scans.arrays import image_tensor
from invdiff.io.scans.checks import choose_frame, guarded, require_size, slice_reader
from invdiff.io.scans.dicom_frames import Frame, frames_of, pixels_of
from invdiff.io.scans.geometry import SPACING_ALONE, affine_from_lps, affine_of_spacings, is_frame
from invdiff.io.scans.scan import MEASUREMENT, Header, Images

_METADATA = (*MEASUREMENT, "Modality")
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


def open_dicom(path: str, frame: int = 0) -> Images:
    """A file of one or many frames, or a folder of one series, in the order of the positions; slope and intercept are applied.

    The affine is that of the first image, with the step from the first to the last; without positions it is not oriented.
    frame: which of the images at each position, in the order of their numbers, where there are several echoes, phases or
    contrasts. Raises InputError where there are several series, or images of several sizes or orientations, or more images at
    some positions than at others.
    """
    with guarded(path):
        files = dicom_files(path) if Path(path).is_dir() else [path]
        if not files:
            raise InputError(f"{path}: the folder holds no DICOM file; give a folder of one series, or a file")
        items = [each for file in files for each in frames_of(file)]
        _check_series(path, [item.header for item in items])
        items, places, notes = _sorted(path, items, frame)
        first = items[0].header
        size = int(first.Rows), int(first.Columns)
        require_size(path, (1, *size))

        def read(number: int) -> Tensor:
            with guarded(items[number].file):
                return image_tensor(path, number, pixels_of(items[number], size))

        affine, more = _affine(first, places, len(items), size)
        identity = {name: str(value) for name, value in _values(first, _IDENTITY).items()}
        return Images(path, "DICOM", len(items), size, slice_reader(path, len(items), read),
                      Header(affine, _values(first, _METADATA), identity, places is not None), [*notes, *more])


def _check_series(path: str, items: Sequence[Dataset]) -> None:
    series = Counter(str(item.get("SeriesInstanceUID", "")) for item in items)
    if len(series) > 1:
        names = {str(i.get("SeriesInstanceUID", "")): f"{i.get('SeriesNumber', '?')} {i.get('SeriesDescription', '')}".strip()
                 for i in items}
        listed = ", ".join(f"{names[uid]} ({count} images)" for uid, count in list(series.items())[:8])
        raise InputError(f"{path}: holds {len(series)} series: {listed}; give a folder of one")
    sizes = {(int(item.Rows), int(item.Columns)) for item in items}
    if len(sizes) > 1:
        raise InputError(f"{path}: holds images of sizes {sorted(sizes)}; expected one size in a series")


def _sorted(path: str, items: list[Frame], frame: int) -> tuple[list[Frame], np.ndarray | None, list[str]]:
    """One image for each position, along the normal, the positions (n, 3), and what was left out; all by InstanceNumber, and
    None, where an image does not tell its position."""
    items = sorted(items, key=lambda item: int(item.header.get("InstanceNumber", 0) or 0))
    axes = [_numbers(item.header, "ImageOrientationPatient", 6) for item in items]
    places = [_numbers(item.header, "ImagePositionPatient", 3) for item in items]
    if any(axis is None or not is_frame(axis[:3], axis[3:]) for axis in axes) or any(place is None for place in places):
        choose_frame(path, frame, 1)
        return items, None, []
    orientations, positions = np.array(axes), np.array(places)
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise InputError(f"{path}: holds images of several orientations; give a folder of one stack")
    depth = positions @ np.cross(orientations[0, :3], orientations[0, 3:])
    order = np.argsort(depth, kind="stable")
    stacks = np.split(order, np.flatnonzero(np.diff(depth[order]) > 1e-3) + 1)      # the images at each position
    count = len(stacks[0])
    if any(len(stack) != count for stack in stacks):
        raise InputError(f"{path}: holds several images at some positions and fewer at others; keep those of one echo, phase "
                         "or contrast")
    choose_frame(path, frame, count)
    chosen = [sorted(stack)[frame] for stack in stacks]                             # by InstanceNumber, as items are
    notes = [f"frame {frame} of the {count} images at each position; the others are left out"] if count > 1 else []
    return [items[i] for i in chosen], positions[chosen], notes


def _affine(first: Dataset, places: np.ndarray | None, count: int,
            size: tuple[int, int]) -> tuple[np.ndarray | None, list[str]]:
    """PixelSpacing is (between rows, between columns); the first direction is the one in which columns are counted."""
    spacing = _numbers(first, "PixelSpacing", 2)
    if spacing is None or spacing.min() <= 0:
        return None, ["the file does not tell where the images lie: they have no orientation"]
    distances = (_numbers(first, name, 1) for name in ("SpacingBetweenSlices", "SliceThickness"))
    distance = next((float(found[0]) for found in distances if found is not None and found[0] > 0), 1.0)
    if places is None:
        return affine_of_spacings(spacing[0], spacing[1], distance, size), [SPACING_ALONE]
    axes = np.array(_numbers(first, "ImageOrientationPatient", 6))
    notes: list[str] = []
    if count > 1:
        step = (places[-1] - places[0]) / (count - 1)
        gaps = np.linalg.norm(np.diff(places, axis=0) - step, axis=1)
        if gaps.max() > 0.01 * np.linalg.norm(step):
            notes.append("the slices are not equally spaced: the affine holds their mean distance")
    else:
        step = np.cross(axes[:3], axes[3:]) * distance
    return affine_from_lps(axes[:3] * spacing[1], axes[3:] * spacing[0], step, places[0]), notes


def _numbers(item: Dataset, name: str, count: int) -> np.ndarray | None:
    """(count,), or None where the element is missing or no such numbers."""
    value = item.get(name)
    try:
        numbers = np.atleast_1d(np.array(value, dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return numbers if value is not None and numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _values(item: Dataset, names: Sequence[str]) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for name in names:
        value = item.get(name)
        if isinstance(value, MultiValue):
            value = "\\".join(map(str, value))
        if value is not None and str(value):
            found[name] = float(value) if isinstance(value, int | float) else str(value)
    return found
