"""ISMRMRD (MRD) raw data: HDF5 with an XML header and a list of acquisitions. Inati et al., Magn Reson Med 77:411, 2017."""

import h5py
import numpy as np

from invdiff.errors import InputError
from invdiff.io.scans.checks import RADIANS, require_size, slice_reader
from invdiff.io.scans.hdf5 import get_dataset, open_hdf5, read_small
from invdiff.io.scans.mrd_about import affine_of_encoding, averages_of, metadata_of, noise_of
from invdiff.io.scans.mrd_header import MRDHeader, parse_header
from invdiff.io.scans.mrd_lines import Choice, choose, place, without_misfits
from invdiff.io.scans.mrd_read import GridReader, PointsReader, read_points
from invdiff.io.scans.scan import Header, Scan

_FIELDS = {"flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample", "idx", "position",
           "encoding_space_ref", "trajectory_dimensions", "sample_time_us", "read_dir", "phase_dir", "slice_dir"}


def find_group(file: h5py.File) -> str | None:
    """Name of the group that holds acquisitions and their header: "dataset", else the only one."""
    names = [name for name, item in file.items() if isinstance(item, h5py.Group) and "xml" in item and "data" in item]
    return "dataset" if "dataset" in names else names[0] if len(names) == 1 else None


def open_mrd(path: str, frame: int = 0) -> Scan:
    """A scan of a grid (H, W) = (readout, phase encoding), or of the positions along the readout of a 3D one, each on the grid
    (phase 1, phase 2).

    Averages are averaged, oversampling of a fully sampled readout is removed in image space, separate calibration lines and
    noise become `calibration` and `noise`; calibration lines measured along with the image are k-space of it. Where
    acquisitions carry trajectories these are taken as (along the readout direction, along the phase direction, ...): in units
    of the encoded matrix where all lie within [-0.5, 0.5], which is what most write, as ISMRMRD leaves it open, else in cycles
    per encoded field of view. `frame` counts the combinations of
    encoding space, contrast, phase, repetition and set. Of the data, `read` touches the slice's alone (all, where it is 3D).
    """
    with open_hdf5(path) as file:
        group = file[find_group(file) or "dataset"]
        header = parse_header(path, _xml(path, group))
        heads = _heads(path, group)
        choice = choose(path, header, heads, frame)
        if (heads["trajectory_dimensions"][np.concatenate(choice.imaging)] > 0).any():
            return _open_trajectory(path, group, header, heads, choice, _coils(path, heads, choice))
        choice = without_misfits(choice, heads)
        return _open_grid(path, group, header, heads, choice, _coils(path, heads, choice))


def _xml(path: str, group: h5py.Group) -> bytes | str:
    xml = read_small(path, group, "xml").reshape(-1)[:1].tolist()
    if not xml or not isinstance(xml[0], bytes | str):
        raise InputError(f"{path}: its XML header is empty; export it again")
    return xml[0]


def _heads(path: str, group: h5py.Group) -> np.ndarray:
    data = get_dataset(path, group, "data")
    names = data.dtype.names or ()
    if data.ndim != 1 or not {"head", "data"} <= set(names) or not set(data.dtype["head"].names or ()) >= _FIELDS:
        raise InputError(f"{path}: {data.name} holds no ISMRMRD acquisitions; images in this format are not read")
    if any(name in names and h5py.check_vlen_dtype(data.dtype[name]) != np.float32 for name in ("data", "traj")):
        raise InputError(f"{path}: {data.name} holds acquisitions of other than 32-bit floats; export it again")
    if not len(data):
        raise InputError(f"{path}: {data.name} holds no acquisitions")
    if len(data) * data.dtype["head"].itemsize > 1 << 30:
        raise InputError(f"{path}: declares {len(data):,} acquisitions; export fewer frames")
    return data.fields("head")[:]


def _coils(path: str, heads: np.ndarray, choice: Choice) -> int:
    used = np.concatenate([*choice.imaging, *choice.calibration, choice.noise])
    coils = np.unique(heads["active_channels"][used])
    if len(coils) != 1 or coils[0] == 0:
        raise InputError(f"{path}: its acquisitions have {coils.tolist()} coils; expected the same number, one or more")
    return int(coils[0])


def _open_grid(path: str, group: h5py.Group, header: MRDHeader, heads: np.ndarray, choice: Choice, coils: int) -> Scan:
    encoding = choice.encoding
    if encoding.trajectory.lower() not in ("cartesian", "other"):
        raise InputError(f"{path}: its trajectory is {encoding.trajectory!r} and its acquisitions do not tell the points; "
                         "expected Cartesian lines, or acquisitions with their trajectories")
    imaging = np.concatenate(choice.imaging)
    x, y, z = encoding.encoded.matrix
    full = place(path, encoding, heads[imaging]).full(x)
    volume = z > 1
    if volume and (not full or len(choice.imaging) > 1):
        raise InputError(f"{path}: is a 3D encoding with a partially sampled readout or of several slabs, which is not read; "
                         "transform it along the readout and store slices")
    notes, rows = list(choice.notes), encoding.wanted(0) if full else x
    if rows < x:
        notes.append(f"readout oversampling removed: {rows} of {x} pixels kept")
    if not full:
        notes.append(f"the readout is sampled partially (asymmetric echo), so all {x} rows are kept")
    size = (y, z) if volume else (rows, y)
    require_size(path, (coils, *((y, z) if volume else (x, y))))
    crop = (encoding.wanted(1), encoding.wanted(2)) if volume else (encoding.wanted(0), encoding.wanted(1))
    least, more = averages_of(heads, choice)
    noise, about_noise = noise_of(path, group, heads, choice, coils, least, header.noise_bandwidth)
    slices = rows if volume else len(choice.imaging)
    if volume:
        more.append(f"3D: transformed along the readout, each of its {slices} positions is a slice")
    grid = GridReader(path, group.name, heads, choice, coils, rows, volume)
    if not volume and crop != encoding.recon.matrix[:2]:
        more.append(f"the image has the encoded resolution, {crop[0]} x {crop[1]} pixels, where the header asks for "
                    f"{encoding.recon.matrix[0]} x {encoding.recon.matrix[1]}")
    affine, oriented, lost = affine_of_encoding(encoding, heads, choice, crop, rows if volume else 0)
    return Scan(path, "ISMRMRD", slices, coils, size, crop, slice_reader(path, slices, grid.read), noise,
                Header(affine, metadata_of(header, choice, volume), header.identity, oriented),
                (*notes, *more, *about_noise, *lost))


def _open_trajectory(path: str, group: h5py.Group, header: MRDHeader, heads: np.ndarray, choice: Choice, coils: int) -> Scan:
    encoding, imaging = choice.encoding, np.concatenate(choice.imaging)
    dimensions = np.unique(heads["trajectory_dimensions"][imaging])
    x, y, z = encoding.encoded.matrix
    if len(dimensions) != 1 or dimensions[0] not in (2, 3) or z > 1:
        raise InputError(f"{path}: its trajectories have {dimensions.tolist()} dimensions on an encoded matrix of {(x, y, z)}; "
                         "expected 2, or 2 and a density compensation, on a single plane")
    require_size(path, (coils, x, y))
    samples = max(int(heads["number_of_samples"][lines].sum()) for lines in choice.imaging)
    require_size(path, (coils, samples))
    points = read_points(path, group["data"], choice.imaging[0], heads)
    reach = float(np.nanmax(np.abs(points))) if points.size else 0.0
    unit = 0 < reach <= 0.5 * (1 + 1e-3)
    if not unit and reach <= RADIANS < min(x, y) / 4:
        raise InputError(f"{path}: its trajectory reaches {reach:g}, on an encoded matrix of {x} x {y}; expected units of the "
                         "matrix, [-0.5, 0.5], or cycles per field of view; divide radians by 2 pi")
    scale = np.array([x, y]) if unit else np.ones(2)
    notes = [*choice.notes, "trajectory taken in " + ("units of the encoded matrix" if unit else "cycles per field of view")]
    if any(len(lines) for lines in choice.calibration):
        notes.append("separate calibration lines of a trajectory left out")
    noise, more = noise_of(path, group, heads, choice, coils, 1, header.noise_bandwidth)
    crop = encoding.wanted(0), encoding.wanted(1)
    affine, oriented, lost = affine_of_encoding(encoding, heads, choice, crop, 0)
    reader = slice_reader(path, len(choice.imaging), PointsReader(path, group.name, heads, choice, scale).read)
    return Scan(path, "ISMRMRD", len(choice.imaging), coils, (x, y), crop, reader, noise,
                Header(affine, metadata_of(header, choice), header.identity, oriented), (*notes, *more, *lost))
