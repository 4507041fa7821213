"""What goes with the k-space of an ISMRMRD file: how often it was measured, its noise, and where it lies."""

from collections.abc import Mapping

import h5py
import numpy as np
import torch

from invdiff.io.scans.checks import finite_complex, require_size
from invdiff.io.scans.geometry import SPACING_ALONE, affine_from_lps, affine_of_spacings, is_frame
from invdiff.io.scans.hdf5 import get_dataset
from invdiff.io.scans.mrd_header import Encoding, MRDHeader
from invdiff.io.scans.mrd_lines import Choice
from invdiff.io.scans.mrd_read import read_samples


def averages_of(heads: np.ndarray, choice: Choice) -> tuple[int, list[str]]:
    """The smallest number of measurements of a line, and a note."""
    imaging = np.concatenate(choice.imaging)
    idx = heads["idx"][imaging]
    lines = np.stack([idx["slice"], idx["kspace_encode_step_1"], idx["kspace_encode_step_2"]], axis=1)
    counts = np.unique(lines, axis=0, return_counts=True)[1]
    least, most = int(counts.min()), int(counts.max())
    if least < most:
        return least, [f"k-space lines were measured {least} to {most} times and averaged, so the noise is not the same on all"]
    return least, [f"{most} measurements of every k-space line averaged"] if most > 1 else []


def noise_of(path: str, group: h5py.Group, heads: np.ndarray, choice: Choice, coils: int,
           averages: int, share: float) -> tuple[torch.Tensor | None, list[str]]:
    """complex64 (N, S) as strong as the noise of the image's k-space: variance goes with the bandwidth, 1 / dwell time. share:
    of it, that reaches the noise scan, which the receiver dampens towards its ends; the image's middle is not dampened."""
    if not len(choice.noise):
        return None, []
    require_size(path, (coils, int(heads["number_of_samples"][choice.noise].astype(int).sum())))
    imaging = float(heads["sample_time_us"][choice.imaging[0][0]])
    dwell = heads["sample_time_us"][choice.noise].astype(float)
    told = imaging > 0 and bool((dwell > 0).all()) and np.isfinite([imaging, *dwell]).all()
    factors = np.sqrt((dwell / imaging if told else np.ones_like(dwell)) / (averages * share))
    data = get_dataset(path, group, "data")
    noise = np.concatenate([read_samples(path, data, number, heads[number]) * factor
                            for number, factor in zip(choice.noise, factors, strict=True)], axis=1)
    if not noise.any():
        return None, ["the noise measurement is zero everywhere and left out"]
    note = f"noise measurement scaled by {factors[0]:.4g} to the bandwidth and averages of the image" if told else \
        "the file does not tell the dwell times: the noise measurement is taken to have the bandwidth of the image"
    return torch.from_numpy(finite_complex(path, "the noise measurement", noise)), [note]


def metadata_of(header: MRDHeader, choice: Choice, volume: bool = False) -> Mapping[str, str | float]:
    """volume: slices are the positions along a 3D readout."""
    echoes, found = header.echo_times, dict(header.metadata)
    if echoes:
        found["EchoTime"] = echoes[choice.contrast] if choice.contrast < len(echoes) else echoes[0]
    if (thickness := choice.encoding.spacing(0) if volume else choice.encoding.thickness) > 0:
        found["SliceThickness"] = thickness
    return found


def affine_of_encoding(encoding: Encoding, heads: np.ndarray, choice: Choice, crop: tuple[int, int],
              positions: int) -> tuple[np.ndarray | None, bool, list[str]]:
    """Of the image of size crop, and whether it is oriented; positions: how many along the readout of a 3D encoding are
    slices, 0 where it is 2D.

    A position is that of the centre of the field of view, pixel n // 2 along each axis.
    """
    first = heads[[lines[0] for lines in choice.imaging]]
    places = first["position"].astype(float)
    read, phase, normal = (first[name][0].astype(float) for name in ("read_dir", "phase_dir", "slice_dir"))
    x, y, z = (encoding.spacing(axis) for axis in range(3))
    if min(x, y, z) <= 0:
        return None, False, ["the file does not tell where the slices lie: the images have no orientation"]
    if not np.isfinite(places).all() or not is_frame(read, phase, normal):
        return affine_of_spacings(*((y, z, x) if positions else (x, y, z)), crop), False, [SPACING_ALONE]
    notes = []
    if positions:
        row, column, step = phase * y, normal * z, read * x
        origin = places[0] - step * (positions // 2)
    else:
        row, column, step, origin = read * x, phase * y, normal * z, places[0]
        if len(places) > 1 and (gap := (places[-1] - places[0]) / (len(places) - 1)).any():
            step = gap
            if np.abs(np.diff(places, axis=0) - gap).max() > 0.01 * np.linalg.norm(gap):
                notes.append("the slices are not equally spaced: the affine holds their mean distance")
    origin = origin - column * (crop[1] // 2) - row * (crop[0] // 2)
    return affine_from_lps(column, row, step, origin), True, notes
