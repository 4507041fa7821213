"""The XML header of ISMRMRD, which fastMRI files carry too."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from invdiff.errors import InputError
from invdiff.io.scans.checks import MAX_SIDE, brief

_METADATA = {
    "RepetitionTime": "sequenceParameters/TR",
    "InversionTime": "sequenceParameters/TI",
    "FlipAngle": "sequenceParameters/flipAngle_deg",
    "EchoSpacing": "sequenceParameters/echo_spacing",
    "MagneticFieldStrength": "acquisitionSystemInformation/systemFieldStrength_T",
    "SequenceName": "sequenceParameters/sequence_type",
    "Manufacturer": "acquisitionSystemInformation/systemVendor",
    "ManufacturerModelName": "acquisitionSystemInformation/systemModel",
    "BodyPartExamined": "studyInformation/bodyPartExamined",
    "PatientPosition": "measurementInformation/patientPosition",
    "ImagingFrequency": "experimentalConditions/H1resonanceFrequency_Hz",
}
_IDENTITY = {
    "PatientName": "subjectInformation/patientName",
    "PatientID": "subjectInformation/patientID",
    "PatientBirthDate": "subjectInformation/patientBirthdate",
    "PatientSex": "subjectInformation/patientGender",
    "PatientWeight": "subjectInformation/patientWeight_kg",
    "StudyDate": "studyInformation/studyDate",
    "StudyTime": "studyInformation/studyTime",
    "StudyID": "studyInformation/studyID",
    "StudyDescription": "studyInformation/studyDescription",
    "StudyInstanceUID": "studyInformation/studyInstanceUID",
    "AccessionNumber": "studyInformation/accessionNumber",
    "ReferringPhysicianName": "studyInformation/referringPhysicianName",
    "SeriesDate": "measurementInformation/seriesDate",
    "SeriesTime": "measurementInformation/seriesTime",
    "SeriesDescription": "measurementInformation/seriesDescription",
    "SeriesInstanceUID": "measurementInformation/seriesInstanceUIDRoot",
    "FrameOfReferenceUID": "measurementInformation/frameOfReferenceUID",
    "ProtocolName": "measurementInformation/protocolName",
    "InstitutionName": "acquisitionSystemInformation/institutionName",
    "StationName": "acquisitionSystemInformation/stationName",
    "DeviceSerialNumber": "acquisitionSystemInformation/deviceID",
}
_DATES = ("PatientBirthDate", "StudyDate", "SeriesDate")
_TIMES = ("StudyTime", "SeriesTime")


@dataclass(frozen=True)
class Space:
    """matrix: samples or pixels along (x, y, z) = (readout, phase 1, phase 2). fov: millimetres, 0 where not told."""

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]


@dataclass(frozen=True)
class Encoding:
    """What was encoded, what is to be reconstructed, which steps (phase 1, phase 2) are the centre, and the trajectory."""

    encoded: Space
    recon: Space
    centre: tuple[int, int]
    trajectory: str

    def wanted(self, axis: int) -> int:
        """How many of the encoded pixels along an axis the image keeps, at the encoded resolution."""
        encoded, recon = self.encoded, self.recon
        if encoded.fov[axis] <= 0 or recon.fov[axis] <= 0:
            return min(encoded.matrix[axis], recon.matrix[axis])
        kept = min(recon.fov[axis] / encoded.fov[axis], 1.0) * encoded.matrix[axis]
        return max(1, round(kept))

    def spacing(self, axis: int) -> float:
        """Millimetres between encoded pixels, or 0."""
        return self.encoded.fov[axis] / self.encoded.matrix[axis]

    @property
    def thickness(self) -> float:
        """Millimetres that a slice at right angles to phase 2 is thick, without the gap to the next one, or 0."""
        return next((space.fov[2] / space.matrix[2] for space in (self.recon, self.encoded) if space.fov[2] > 0), 0.0)


@dataclass(frozen=True)
class MRDHeader:
    """metadata and identity by DICOM keyword; times in milliseconds, angles in degrees, field strength in tesla, frequency in
    megahertz. noise_bandwidth: the share of the bandwidth, 1 / dwell time, that the receiver lets through of a noise scan; 1
    where it is not told."""

    encodings: Sequence[Encoding]
    echo_times: Sequence[float]
    metadata: Mapping[str, str | float]
    identity: Mapping[str, str]
    noise_bandwidth: float


def parse_header(path: str, xml: bytes | str) -> MRDHeader:
    """Raises InputError for XML that is damaged, defines entities, or lacks the encoding."""
    try:
        text = xml.decode("utf-8") if isinstance(xml, bytes) else xml
        if "<!doctype" in text.lower() or "<!entity" in text.lower():
            raise InputError(f"{path}: its XML header holds a DOCTYPE or ENTITY, which ISMRMRD has no use for; remove it")
        root = ElementTree.fromstring(text)
    except (UnicodeError, ElementTree.ParseError) as error:
        raise InputError(f"{path}: its XML header is damaged ({brief(error)}); export it again") from error
    encodings = [_encoding(path, node) for node in root.findall("{*}encoding")]
    if not encodings:
        raise InputError(f"{path}: its XML header has no encoding; expected an ISMRMRD header with encodedSpace and reconSpace")
    metadata = {name: _plain(text) for name, where in _METADATA.items() if (text := _text(root, where))}
    if isinstance(frequency := metadata.get("ImagingFrequency"), float):
        metadata["ImagingFrequency"] = frequency / 1e6
    identity = {name: text for name, where in _IDENTITY.items() if (text := _text(root, where))}
    for name in _DATES:
        if name in identity:
            identity[name] = identity[name].replace("-", "")     # DICOM's way to write it
    for name in _TIMES:
        if name in identity:
            identity[name] = identity[name].replace(":", "")
    echoes = [_number(path, node.text) for node in root.findall("{*}sequenceParameters/{*}TE")]
    share = _plain(_text(root, "acquisitionSystemInformation/relativeReceiverNoiseBandwidth"))
    return MRDHeader(encodings, echoes, metadata, identity, share if isinstance(share, float) and share > 0 else 1.0)


def _encoding(path: str, node: ElementTree.Element) -> Encoding:
    encoded, recon = _space(path, node, "encodedSpace"), _space(path, node, "reconSpace")
    centres = []
    for axis, step in ((1, "kspace_encoding_step_1"), (2, "kspace_encoding_step_2")):
        text = _text(node, f"encodingLimits/{step}/center")
        centres.append(int(_number(path, text)) if text else encoded.matrix[axis] // 2)
    return Encoding(encoded, recon, (centres[0], centres[1]), _text(node, "trajectory") or "cartesian")


def _space(path: str, node: ElementTree.Element, name: str) -> Space:
    matrix = [int(_number(path, _text(node, f"{name}/matrixSize/{axis}"))) for axis in "xyz"]
    fov = [_number(path, _text(node, f"{name}/fieldOfView_mm/{axis}") or "0") for axis in "xyz"]
    if min(matrix) < 1 or max(matrix) > MAX_SIDE or min(fov) < 0:
        raise InputError(f"{path}: its XML header has {name} of {matrix} samples over {fov} mm; expected 1 to {MAX_SIDE} "
                         "samples along each axis and no negative length")
    return Space((matrix[0], matrix[1], matrix[2]), (fov[0], fov[1], fov[2]))


def _text(node: ElementTree.Element, where: str) -> str:
    found = node.find("/".join("{*}" + part for part in where.split("/")))
    return (found.text or "").strip() if found is not None else ""


def _number(path: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}: its XML header has {str(text)[:40]!r} where a number belongs; export it again")
    return value


def _plain(text: str) -> str | float:
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text
