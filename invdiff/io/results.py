"""Results out: a folder that is complete or absent, and the array, JSON and YAML files in it."""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from invdiff.errors import InputError
from invdiff.io.files import replacing, sibling, unwritable, write_text

MAX_BYTES = 2**33    # of arrays in one file: 8 GiB

_RESULT_SUFFIXES = {".png", ".h5", ".json", ".yaml", ".csv", ".npy", ".npz", ".nii", ".gz", ".dcm"}
_AXES = {
    "samples": "measurement, sample, channel, row, column",
    "mean": "measurement, channel, row, column",
    "std": "measurement, channel, row, column",
    "lower": "measurement, channel, row, column",
    "upper": "measurement, channel, row, column",
    "prior_part": "measurement, channel, row, column",
    "measured": "measurement, channel, row, column",
}


def check_output(path: str | Path) -> None:
    """Raises InputError unless `output_folder(path)` can do its work; to be called before a long computation.

    `path` may be absent (its parents too), an empty folder, or an earlier result, which will be replaced: a folder
    with a report.json and nothing but the kinds of files a result is made of, and folders of DICOM files.
    """
    try:
        target = Path(path).resolve()
        _check_replaceable(target)
        parent = next(folder for folder in target.parents if folder.exists())
        probe = sibling(parent / target.name)
        probe.mkdir()    # tried and not asked: os.access answers yes to root, and on read-only file systems
        probe.rmdir()
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:    # RuntimeError: a loop of links; ValueError: a null byte
        raise unwritable(path, error) from error


def check_kept(output: str | Path, files: Iterable[str | Path]) -> None:
    """Raises InputError where one of the files that a run reads is its output, a file or a folder, or lies in it, and so would
    be replaced; to be called before."""
    for file in files:
        try:
            place, target = Path(os.path.realpath(file)), Path(os.path.realpath(output))
        except ValueError:      # a null byte: whoever reads or writes the file refuses it
            continue
        if target in (place, *place.parents):
            raise InputError(f"{file}: would be replaced by the output, {output}; choose another one")


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path}: is a file; choose another output folder or remove it")
    if os.path.ismount(path):    # renames cannot replace it
        raise InputError(f"{path}: is a mount point; choose a folder inside it for the output")
    entries = sorted(path.iterdir())
    if entries and not (path / "report.json").is_file():
        raise InputError(f"{path}: is not empty and holds no earlier result; choose another output folder or remove it")
    for entry in entries:
        if not (_is_series(entry) or (entry.suffix in _RESULT_SUFFIXES and entry.is_file())):
            raise InputError(f"{path}: holds {entry.name}, which is no result; choose another output folder or move it")


def _is_series(path: Path) -> bool:
    """A folder of DICOM files and nothing else, as a restored scan may have."""
    known = path.name.startswith("dicom-") and path.is_dir() and not path.is_symlink()
    return known and all(file.suffix == ".dcm" and file.is_file() for file in path.iterdir())


@contextmanager
def output_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path` to write to, and on success renames it to `path`, replacing an earlier
    result. On any exception, Ctrl-C included, the temporary folder is removed and `path` is what it was.

    Raises InputError as `check_output` does, and in the place of an OSError while it is written, as on a full disk.
    """
    check_output(path)
    target = Path(path).resolve()    # a link stays, and what it points to is replaced
    temporary = sibling(target)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _check_replaceable(target)    # again: somebody may have put files there meanwhile
        _swap(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        if isinstance(error, InputError) and str(temporary) in str(error):    # of a folder inside it
            raise InputError(str(error).replace(str(temporary), str(path))) from error
        raise


def _swap(new: Path, target: Path) -> None:
    if not target.exists():
        os.rename(new, target)
        return
    old = sibling(target)
    try:
        os.rename(target, old)
        os.rename(new, target)
    finally:    # whichever of the renames failed or was interrupted
        if old.exists():
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.rename(old, target)


def new_hdf5(path: Path) -> Any:
    """A new HDF5 file (h5py.File) for chunks that are each written whole, hence without a cache of chunks: where the disk is
    full, HDF5 would crash on what is left in it."""
    import h5py

    return h5py.File(path, "w", rdcc_nbytes=0)


def save_arrays(path: str | Path, **arrays: torch.Tensor) -> None:
    """Writes real tensors as float32 datasets of an HDF5 file, by name: samples (B, S, C, H, W), mean and std
    (B, C, H, W), measurement (B, ...), all without a unit, white being 1. The file is complete or absent.

    Raises ValueError for a complex tensor.
    """
    for name, array in arrays.items():
        if array.is_complex():
            raise ValueError(f"{name}: expected a real tensor (complex as two channels), got {array.dtype}")
    with replacing(path) as temporary, new_hdf5(temporary) as file:
        file.attrs["format"] = "invdiff result"
        file.attrs["format_version"] = 1
        for name, array in arrays.items():
            packing = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if array.ndim else {}
            data = file.create_dataset(name, data=array.detach().float().cpu().numpy(), **packing)
            data.attrs["units"] = "1"
            if name in _AXES:
                data.attrs["axes"] = _AXES[name]


def load_arrays(path: str | Path, *, max_bytes: int = MAX_BYTES) -> dict[str, torch.Tensor]:
    """Reads what `save_arrays` wrote: name -> float32 tensor.

    Raises InputError for a file that is missing, damaged, not such a file, larger than `max_bytes` once unpacked, or
    that refers to other files.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the result.h5 of an output folder")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != "invdiff result":
                raise InputError(f"{path}: is HDF5 but no result of invdiff; give the result.h5 of an output folder")
            datasets = {name: _plain_dataset(path, file, name) for name in file}
            total = sum(4 * math.prod(dataset.shape) for dataset in datasets.values())
            if total > max_bytes:
                raise InputError(f"{path}: unpacks to {total:,} bytes, over max_bytes = {max_bytes:,}; raise that")
            return {name: torch.as_tensor(dataset[()]) for name, dataset in datasets.items()}
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no readable HDF5 file, or damaged ({error}); write it again") from error


def _plain_dataset(path: Path, file: Any, name: str) -> Any:
    """The dataset, if it is float32 and lies in the file: links and external storage could reach any other file."""
    import h5py

    if isinstance(file.get(name, getlink=True), h5py.HardLink):
        item = file[name]
        stored_here = isinstance(item, h5py.Dataset) and not (item.is_virtual or item.external)
        if stored_here and item.dtype == "<f4" and item.shape is not None:
            return item
    raise InputError(f"{path}: {name} is no float32 array stored in the file; write it with save_arrays")


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Writes strict JSON, in the order given: NaN and infinities become null. The file is complete or absent."""
    text = json.dumps(_plain(data, finite=True), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_yaml(path: str | Path, data: Mapping[str, Any]) -> None:
    """Writes YAML, in the order given. The file is complete or absent."""
    write_text(path, _yaml(data))


def holds_result(path: str | Path, config: Mapping[str, Any]) -> bool:
    """Is `path` a finished output folder of one picture, with just this config, every default filled in, in its config.yaml?"""
    folder = Path(path)
    try:
        same = (folder / "config.yaml").read_text(encoding="utf-8") == _yaml(config)
    except (OSError, UnicodeDecodeError):
        return False
    return same and all((folder / name).is_file() for name in ("restored.png", "result.h5", "report.json"))


def _yaml(data: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(_plain(data, finite=False), sort_keys=False, allow_unicode=True)


def _plain(value: Any, finite: bool) -> Any:
    """Mappings, sequences and scalars of NumPy or torch as dicts, lists and Python's numbers."""
    if isinstance(value, Mapping):
        return {key: _plain(item, finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, finite) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), finite)
    if isinstance(value, float):
        return None if finite and not math.isfinite(value) else value
    return value
