"""DICOM series: a folder with a file a slice, MR Image Storage, marked as derived and not for diagnosis."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

import numpy as np

from invdiff.io.results import output_folder
from invdiff.io.scans.scan import Header
from invdiff.io.volumes.dicom_tags import Labels, number, place, series_dataset, uid
from invdiff.io.volumes.slices import Shape, affine_of, check_shape, checked

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Labels", "write_dicom"]

STEPS = 2**16 - 1                       # between black and white
ORDINARY_PEAKS = (100.0, 1e6)           # viewers count in whole numbers


def write_dicom(
    folder: str | Path,
    slices: Iterable[np.ndarray],
    shape: Sequence[int],
    header: Header | None = None,
    labels: Labels | None = None,
    identity: bool = False,
) -> float:
    """Writes slices (h, w), read one at a time, as 0001.dcm, 0002.dcm ... of one series; the folder is complete or absent.

    shape: (D, h, w). header: its affine gives each slice its place (voxels of 1 mm where it has none), its metadata the
    tags that say how the scan was made; its identity is written only with `identity`, and the series then belongs to the
    StudyInstanceUID and FrameOfReferenceUID found there. labels: what the series is called.

    One slope and one intercept hold for the whole series: stored · RescaleSlope + RescaleIntercept is the given value times
    the power of ten that is returned, to half a slope. It is 1 unless the peak is not in [100, 10⁶], for viewers show
    smaller values as black; SeriesDescription and ImageComments tell it. The slices wait on disk for the peak of all.

    Raises InputError for a folder that cannot be written or holds something else, an identity that DICOM does not take, and
    columns and rows that are not at right angles; ValueError for slices that are not as announced.
    """
    header, labels, size = header or Header(), labels or Labels(), check_shape(shape)
    affine, known = affine_of(header, size)
    series = series_dataset(header, labels, identity, affine, known)
    with output_folder(folder) as temporary, TemporaryFile(dir=temporary) as spool:
        values = _spooled(spool, checked(slices, size))
        _set_values(series, values)
        for index, array in enumerate(_again(spool, size)):
            stored = np.rint((array.astype(np.float64) * values.factor - values.low) / values.slope)
            dataset = _instance(series, labels, affine, index, np.clip(stored, 0, STEPS).astype("<u2"))
            dataset.save_as(temporary / f"{index + 1:04d}.dcm", enforce_file_format=True)
    return values.factor


@dataclass(frozen=True)
class _Values:
    """What is stored: (value · factor - low) / slope. white: the top of the window, as low in units of value · factor."""

    factor: float
    low: float
    slope: float
    white: float


def _spooled(spool: IO[bytes], slices: Iterable[np.ndarray]) -> _Values:
    low, high, white = 0.0, 0.0, 0.0
    for array in slices:
        spool.write(array.tobytes())
        low, high = min(low, float(array.min())), max(high, float(array.max()))
        white = max(white, float(np.percentile(array, 99.5)))
    peak = max(high, -low)
    ordinary = peak == 0 or ORDINARY_PEAKS[0] <= peak <= ORDINARY_PEAKS[1]
    factor = 1.0 if ordinary else 10.0 ** (3 - math.floor(math.log10(peak)))
    slope = float(number((high - low) * factor / STEPS or 1.0))    # as it will be read
    return _Values(factor, float(number(low * factor)), slope, white * factor)


def _again(spool: IO[bytes], shape: Shape) -> Iterator[np.ndarray]:
    count, height, width = shape
    spool.seek(0)
    for _ in range(count):
        yield np.frombuffer(spool.read(4 * height * width), np.float32).reshape(height, width)


def _set_values(series: "Dataset", values: _Values) -> None:
    width = max(1.0, values.white - values.low)
    series.RescaleSlope, series.RescaleIntercept, series.RescaleType = number(values.slope), number(values.low), "US"
    series.WindowCenter, series.WindowWidth = number(values.low + width / 2), number(width)
    if values.factor != 1:
        times = f" x{values.factor:g}"
        series.SeriesDescription = f"{series.SeriesDescription[:64 - len(times)]}{times}"
        series.ImageComments += f" Values are the reconstruction's times {values.factor:g}."


def _instance(series: "Dataset", labels: Labels, affine: np.ndarray, index: int, stored: np.ndarray) -> "Dataset":
    """The data set of one slice, stored (h, w), little-endian uint16."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.update(series)
    dataset.SOPInstanceUID = uid(labels, "series", labels.name, labels.number, "instance", index)
    dataset.InstanceNumber = index + 1
    place(dataset, affine, index)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset
