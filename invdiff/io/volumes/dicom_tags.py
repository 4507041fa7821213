"""The tags of a derived MR series that are the same in all of its files. DICOM PS3.3, A.4 (MR Image IOD)."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from invdiff.errors import InputError
from invdiff.io.scans.scan import MEASUREMENT, Header

if TYPE_CHECKING:
    from pydicom import Dataset

WARNING = "NOT FOR DIAGNOSTIC USE"

_OURS = {"SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "PixelData"}
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Labels:
    """What a series is called.

    name: in SeriesDescription, such as "posterior mean". derivation: how it was made, in DerivationDescription, up to 900
    characters. number: SeriesNumber. seed: equal seeds give equal UIDs, and series of one seed and another name or number
    belong to one study; random unless given.
    """

    name: str = "reconstruction"
    derivation: str = "Reconstructed from raw k-space with a diffusion prior by invdiff."
    number: int = 1
    seed: str = field(default_factory=lambda: uuid.uuid4().hex)


def uid(labels: Labels, *parts: object) -> str:
    """A UID that depends on the labels' seed and the parts, derived from a UUID: PS3.5, B.2."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, repr((labels.seed, *map(str, parts)))).int}"


def number(value: float) -> str:
    """A decimal string of at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value) + 0.0)    # + 0.0: no minus before a zero


def series_dataset(header: Header, labels: Labels, identity: bool, affine: np.ndarray, known: bool) -> "Dataset":
    """All that the files of a series share. known: whether the affine is the scanner's.

    Raises InputError for an identity that DICOM does not take and axes in the slice that are not at right angles.
    """
    from pydicom import Dataset
    from pydicom.uid import MRImageStorage

    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = MRImageStorage
    _required(dataset)
    _tell(dataset, header.metadata)
    _set_person(dataset, header.identity if identity else None)
    for keyword, part in (("StudyInstanceUID", "study"), ("FrameOfReferenceUID", "frame")):
        if not dataset.get(keyword):
            dataset.add_new(keyword, "UI", uid(labels, part))
    dataset.SeriesInstanceUID = uid(labels, "series", labels.name, labels.number)
    dataset.SeriesNumber = labels.number
    dataset.SeriesDescription = f"{WARNING}: {labels.name}"[:64]
    dataset.DerivationDescription = f"{labels.derivation[:900].rstrip('. ')}. Research use only, {WARNING.lower()}."
    geometry = "" if known else (" Voxel size and position are not known: 1 mm and an axial slice are assumed."
                                 if header.affine is None else " Position and orientation are not those of the scanner.")
    dataset.ImageComments = f"{WARNING}. Research use only, made by invdiff.{geometry}"
    _orient(dataset, affine)
    return dataset


def _required(dataset: "Dataset") -> None:
    """What must be there, if only empty; and the format of the pixels."""
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName", "PatientBirthDate",
                    "PatientSex", "Manufacturer", "PositionReferenceIndicator", "EchoTime", "EchoTrainLength", "ScanOptions",
                    "MRAcquisitionType", "RepetitionTime", "PatientPosition", "SliceThickness"):
        setattr(dataset, keyword, None if keyword != "Manufacturer" else "")
    dataset.Modality = "MR"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"    # research mode, unless the header knows better
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0


def _tell(dataset: "Dataset", metadata: Mapping[str, str | float]) -> None:
    """Sets the tags of the measurement; what DICOM does not take is left out."""
    for keyword in MEASUREMENT:
        if (value := metadata.get(keyword)) is not None:
            _set(dataset, keyword, value)
    if "BodyPartExamined" not in dataset:
        dataset.Laterality = ""    # must be there unless the part is known to be unpaired


def check_person(identity: Mapping[str, str]) -> None:
    """Raises InputError for an identity that DICOM does not take."""
    from pydicom import Dataset

    _set_person(Dataset(), identity)


def _set_person(dataset: "Dataset", identity: Mapping[str, str] | None) -> None:
    if identity is None:
        dataset.PatientName, dataset.PatientID = "Anonymous", ""
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "invdiff: only the measurement's parameters are kept"
        return
    dataset.PatientName, dataset.PatientID = "", ""
    dataset.PatientIdentityRemoved = "NO"
    for keyword, value in identity.items():
        if keyword not in _OURS and not _set(dataset, keyword, value):
            raise InputError(f"{keyword}: DICOM does not take {value!r}; correct it in the scan, or leave its identity out")


def _set(dataset: "Dataset", keyword: str, value: str | float) -> bool:
    """Whether DICOM takes the value for the keyword, which is then set."""
    from pydicom import config
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import DataElement

    tag = tag_for_keyword(keyword)
    if tag is None:
        return False
    vr = dictionary_VR(tag)
    try:
        if vr == "DS":
            value = number(float(value))
        elif vr == "CS":
            value = str(value).upper().strip()
        elif vr == "IS":
            value = str(int(float(value)))
        dataset[keyword] = DataElement(tag, vr, str(value), validation_mode=config.RAISE)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _orient(dataset: "Dataset", affine: np.ndarray) -> None:
    """Spacing and orientation from an affine (column, row, slice) to RAS+, which knows no gap between slices."""
    column, row, step = (_TO_LPS @ affine)[:3, :3].T
    width, height = float(np.linalg.norm(column)), float(np.linalg.norm(row))
    along, down = column / width, row / height
    if abs(along @ down) > 1e-3:
        raise InputError(f"header.affine: columns and rows {along.tolist()}, {down.tolist()} are not at right angles, which "
                         "DICOM cannot say; write NIfTI")
    dataset.PixelSpacing = [number(height), number(width)]    # from row to row, from column to column
    dataset.ImageOrientationPatient = [number(x) for x in (*along, *down)]
    dataset.SpacingBetweenSlices = number(abs(float(np.cross(along, down) @ step)))


def place(dataset: "Dataset", affine: np.ndarray, index: int) -> None:
    """The position of slice `index`: where the centre of its first pixel is, in LPS millimetres."""
    position = (_TO_LPS @ affine @ [0, 0, index, 1])[:3]
    dataset.ImagePositionPatient = [number(x) for x in position]
