"""What every reader of raw MR data returns: a scan whose slices are read when they are asked for, one at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

# DICOM's keywords for how a scan was made: none that could hold a person, a date or a place
MEASUREMENT = (
    "BodyPartExamined", "EchoNumbers", "EchoTime", "EchoTrainLength", "FlipAngle", "ImagedNucleus", "ImagingFrequency",
    "InversionTime", "MRAcquisitionType", "MagneticFieldStrength", "Manufacturer", "ManufacturerModelName",
    "NumberOfAverages", "PatientPosition", "PixelBandwidth", "RepetitionTime", "ScanOptions", "ScanningSequence",
    "SequenceName", "SequenceVariant", "SliceThickness",
)


@dataclass(frozen=True)
class Header:
    """What travels from a scan to its images.

    affine: (4, 4), takes the voxel (column, row, slice) of the images to millimetres, RAS+, or None where the file does not
    tell. metadata: about the measurement, and nobody's identity (echo time, field strength ...). identity: who, when and
    where; it is dropped unless the user wants it kept. Both by DICOM keyword (PatientName ...), several values of one joined by
    a backslash, as DICOM does. oriented: whether the affine's directions and origin are the scanner's; else only its spacings
    are known to be.
    """

    affine: np.ndarray | None = None
    metadata: Mapping[str, str | float] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)
    oriented: bool = True


@dataclass(frozen=True)
class RawSlice:
    """One slice as measured.

    kspace: complex64 (N, H, W), centred, zero where not sampled, scaled as by an orthonormal FFT; or (N, K) at the K points
    of a trajectory. mask: bool (H, W), True = sampled; None with a trajectory. trajectory: float32 (K, 2), points (ky, kx), the
    frequencies along H and along W, in cycles per field of view. calibration: complex64 (N, h, w), the centre of k-space from
    a scan of its own, its origin at (h // 2, w // 2), else None.
    """

    kspace: Tensor
    mask: Tensor | None = None
    trajectory: Tensor | None = None
    calibration: Tensor | None = None


@dataclass(frozen=True)
class Scan:
    """Raw k-space of one or several slices.

    format: a word for the report, such as "fastMRI". size: (H, W) of the grid, that is, of the image before it is cropped.
    crop: (h, w) of the image that is wanted, the middle of the grid. read: slice by number, from 0; reads no other.
    noise: complex64 (N, S), a noise-only measurement at the bandwidth of `kspace`, else None. notes: what reading did to the
    data, one line each, for the report.
    """

    path: str
    format: str
    slices: int
    coils: int
    size: tuple[int, int]
    crop: tuple[int, int]
    read: Callable[[int], RawSlice]
    noise: Tensor | None = None
    header: Header = field(default_factory=Header)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Images:
    """Images to simulate a scan of. read: slice by number, float32 (H, W) magnitude or complex64 (H, W)."""

    path: str
    format: str
    slices: int
    size: tuple[int, int]
    read: Callable[[int], Tensor]
    header: Header = field(default_factory=Header)
    notes: Sequence[str] = ()
