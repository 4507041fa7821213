"""The data of one slice out of an ISMRMRD file."""

import math
from dataclasses import dataclass

import h5py
import numpy as np

from invdiff.errors import InputError
from invdiff.io.scans.checks import any_of, crop_rows, finite_complex, raw_slice
from invdiff.io.scans.hdf5 import get_dataset, open_hdf5
from invdiff.io.scans.mrd_header import Encoding
from invdiff.io.scans.mrd_lines import Choice, middle, place
from invdiff.io.scans.scan import RawSlice


@dataclass(frozen=True)
class GridReader:
    """rows: kept along the readout (of encoded.matrix[0]); all of them where it is sampled partially. volume: a 3D encoding."""

    path: str
    group: str
    heads: np.ndarray
    choice: Choice
    coils: int
    rows: int
    volume: bool

    def read(self, number: int) -> RawSlice:
        with open_hdf5(self.path) as file:
            data = get_dataset(self.path, file[self.group], "data")
            one, choice = 0 if self.volume else number, self.choice
            kspace, mask = self._assemble(data, choice.encoding, choice.imaging[one], number)
            kspace, mask, calibration = self._cropped(kspace), mask if self.volume else mask[:self.rows], None
            if len(choice.calibration[one]):
                lines, covered = self._assemble(data, choice.reference, choice.calibration[one], number)
                profile = any_of(covered.T), any_of(covered)
                rows, columns = middle(profile[0]), middle(profile[1])
                lines = lines[:, rows, columns]
                calibration = self._cropped(lines) if lines.size else None
        return raw_slice(self.path, number, kspace, mask, calibration=calibration)

    def _assemble(self, data: h5py.Dataset, encoding: Encoding, lines: np.ndarray,
                  position: int) -> tuple[np.ndarray, np.ndarray]:
        """complex64 (N, H, W) and bool (H, W): the average of what was measured, and where; position: along a 3D readout."""
        x, y, z = encoding.encoded.matrix
        heads = self.heads[lines]
        places = place(self.path, encoding, heads)
        shape = (y, z) if self.volume else (x, y)
        total, counts = np.zeros((self.coils, *shape), np.complex64), np.zeros(shape, np.int64)
        whole = self.choice.encoding.encoded.matrix[0]
        wave = _inverse_dft(x, (position - self.rows // 2) / whole) if self.volume else None
        for i, number in enumerate(lines):
            samples = read_samples(self.path, data, number, heads[i])[:, places.first[i]:places.last[i]]
            row, column = places.columns[i]
            if wave is None:
                rows = slice(places.start[i], places.start[i] + samples.shape[1])
                total[:, rows, row] += samples
                counts[rows, row] += 1
            else:
                total[:, row, column] += samples @ wave
                counts[row, column] += 1
        total /= np.maximum(counts, 1)
        return total, counts > 0

    def _cropped(self, kspace: np.ndarray) -> np.ndarray:
        """K-space (N, h, W) of the part of the readout that is kept, at its own resolution."""
        whole, samples = self.choice.encoding.encoded.matrix[0], kspace.shape[1]
        if self.volume or self.rows == whole:
            return kspace
        finite_complex(self.path, "a line of the slice", kspace)        # the crop would spread a NaN over its column
        step = whole // math.gcd(whole, self.rows)
        padded = -(-samples // step) * step             # on which the field of view is a whole number of pixels
        before = padded // 2 - samples // 2
        cropped = crop_rows(np.pad(kspace, ((0, 0), (before, padded - samples - before), (0, 0))), padded * self.rows // whole)
        kept = max(1, samples * self.rows // whole)
        first = cropped.shape[1] // 2 - kept // 2
        return cropped[:, first:first + kept]


def _inverse_dft(n: int, position: float) -> np.ndarray:
    """complex64 (n,): its product with centred k-space is the centred orthonormal inverse transform at one position, in fields
    of view from the centre."""
    k = np.arange(n) - n // 2
    return (np.exp(2j * np.pi * k * position) / np.sqrt(n)).astype(np.complex64)


@dataclass(frozen=True)
class PointsReader:
    """scale: (2,), from the file's trajectory to cycles per field of view."""

    path: str
    group: str
    heads: np.ndarray
    choice: Choice
    scale: np.ndarray

    def read(self, number: int) -> RawSlice:
        lines = self.choice.imaging[number]
        with open_hdf5(self.path) as file:
            data = get_dataset(self.path, file[self.group], "data")
            points = read_points(self.path, data, lines, self.heads) * self.scale
            kspace = np.concatenate([_trim(self.heads[n], read_samples(self.path, data, n, self.heads[n]).T) for n in lines]).T
        if not np.isfinite(points).all():
            raise InputError(f"{self.path}: the trajectory of slice {number} holds NaN or infinite values; export it again")
        return raw_slice(self.path, number, kspace, trajectory=points.astype(np.float32))


def _trim(head: np.ndarray, samples: np.ndarray) -> np.ndarray:
    return samples[int(head["discard_pre"]):len(samples) - int(head["discard_post"])]


def read_points(path: str, data: h5py.Dataset, lines: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """(K, 2) in the file's units."""
    points = []
    for number in lines:
        head = heads[number]
        values = np.asarray(data.fields("traj")[int(number)], dtype=np.float64)
        shape = int(head["number_of_samples"]), int(head["trajectory_dimensions"])
        if values.size != shape[0] * shape[1]:
            raise InputError(f"{path}: acquisition {number} stores {values.size} numbers as its trajectory, expected "
                             f"{shape[0]} x {shape[1]}; export it again")
        points.append(_trim(head, values.reshape(shape)[:, :2]))
    return np.concatenate(points)


def read_samples(path: str, data: h5py.Dataset, number: int, head: np.ndarray) -> np.ndarray:
    """complex64 (N, samples) of one acquisition."""
    values = np.asarray(data.fields("data")[int(number)], dtype=np.float32)
    shape = int(head["active_channels"]), int(head["number_of_samples"])
    if values.size != 2 * shape[0] * shape[1]:
        raise InputError(f"{path}: acquisition {number} stores {values.size} numbers, expected 2 x {shape[0]} coils x "
                         f"{shape[1]} samples; export it again")
    return values.view(np.complex64).reshape(shape)
