"""The images in a DICOM file: one, or the frames of a multi-frame file, each with a header of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from invdiff.errors import InputError
from invdiff.io.scans.checks import guarded


@dataclass(frozen=True)
class Frame:
    """An image of a file: its number there, or None where the file holds one image alone, and what is said of it."""

    file: str
    number: int | None
    header: Dataset


def frames_of(file: str) -> list[Frame]:
    """The images of a file, without their pixels. Raises InputError for colours, and for what is no image."""
    with guarded(file):
        item = pydicom.dcmread(file, stop_before_pixels=True)
        if "Rows" not in item or "Columns" not in item:
            raise InputError(f"{file}: is a DICOM file without an image; expected MR images")
        if int(item.get("SamplesPerPixel", 1)) != 1:
            raise InputError(f"{file}: is a colour image; expected grey values")
        count = int(item.get("NumberOfFrames", 1) or 1)
        if count == 1 and "PerFrameFunctionalGroupsSequence" not in item:
            return [Frame(file, None, item)]
        if count > Path(file).stat().st_size:
            raise InputError(f"{file}: declares {count} frames and holds fewer bytes; export it again")
        return [Frame(file, number, header) for number, header in enumerate(_headers(file, item, count))]


def pixels_of(frame: Frame, size: tuple[int, int]) -> np.ndarray:
    """(H, W), float32, after the modality's slope and intercept; reads no other frame. Raises InputError."""
    try:
        pixels = pixel_array(frame.file, index=frame.number)
    except (NotImplementedError, RuntimeError) as error:
        syntax = pydicom.dcmread(frame.file, stop_before_pixels=True).file_meta.TransferSyntaxUID
        if not syntax.is_compressed:
            raise
        raise InputError(f"{frame.file}: its compression, {syntax.name}, cannot be decoded here; save it uncompressed, or "
                         "install pylibjpeg") from error
    if pixels.shape != size:
        raise InputError(f"{frame.file}: its image is {pixels.shape}, and its header says {size}; export it again")
    slope, intercept = float(frame.header.get("RescaleSlope", 1) or 1), float(frame.header.get("RescaleIntercept", 0) or 0)
    return (pixels.astype(np.float64) * slope + intercept).astype(np.float32)


def _headers(file: str, item: Dataset, count: int) -> Iterator[Dataset]:
    """Of each frame: what the file says of all images, over it the shared functional groups, over it the frame's own (DICOM
    PS3.3, C.7.6.16). Without groups nothing tells where the frames lie."""
    each = list(item.get("PerFrameFunctionalGroupsSequence") or [Dataset()] * count)
    if len(each) != count:
        raise InputError(f"{file}: declares {count} frames and describes {len(each)}; export it again")
    shared = list(item.get("SharedFunctionalGroupsSequence") or [])
    common = _flat(item)
    for name in ("ImagePositionPatient", "InstanceNumber"):
        if name in common:
            del common[name]
    for number, own in enumerate(each):
        header = Dataset()
        header.update(common)
        for group in (*shared, own):
            for macro in group:
                if macro.VR == "SQ" and len(macro.value) == 1:
                    header.update(_flat(macro.value[0]))
        header.InstanceNumber = number + 1
        if "EffectiveEchoTime" in header:
            header.EchoTime = header.EffectiveEchoTime
        yield header


def _flat(item: Dataset) -> Dataset:
    """Without sequences."""
    flat = Dataset()
    for element in item:
        if element.VR != "SQ":
            flat[element.tag] = element
    return flat
