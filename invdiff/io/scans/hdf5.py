"""HDF5 opened with suspicion: no link or layout that leads out of the file, and no more declared than is stored."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import h5py
import numpy as np

from invdiff.errors import InputError
from invdiff.io.scans.checks import LIMIT, MAX_RATIO, guarded

_MAX_OBJECTS = 10_000


@contextmanager
def open_hdf5(path: str) -> Iterator[h5py.File]:
    """The file, open for reading, after every link in it was looked at. Raises InputError, as does the body of the with."""
    with guarded(path), h5py.File(path, "r") as file:
        _walk(path, file)
        yield file


def _walk(path: str, file: h5py.File) -> None:
    """Raises InputError for soft and external links, virtual datasets and external storage."""
    seen, pending = set(), [file["/"]]
    while pending:
        group = pending.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise InputError(f"{path}: {group.name.rstrip('/')}/{name} is a link to elsewhere; copy what it points to into "
                                 "the file")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > _MAX_OBJECTS:
                raise InputError(f"{path}: holds more than {_MAX_OBJECTS} objects; expected a file of one scan")
            if isinstance(item, h5py.Group):
                pending.append(item)
            elif isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
                raise InputError(f"{path}: {item.name} keeps its values in other files; store them in this one")


def get_dataset(path: str, group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset; raises InputError where it is missing, is a group, or declares more than the file stores."""
    item = group.get(name)
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        raise InputError(f"{path}: {name} is no array; expected a dataset of that name")
    if not _sound(item.dtype):
        raise InputError(f"{path}: the fields of {name} overlap, which no program writes; it is damaged, copy it again")
    declared, stored = item.size * item.id.get_type().get_size(), item.id.get_storage_size()
    lacking = stored < declared
    if item.chunks is not None:
        chunks = math.prod(math.ceil(n / c) for n, c in zip(item.shape, item.chunks, strict=True))
        lacking = item.id.get_num_chunks() < chunks or declared > MAX_RATIO * stored
        if math.prod(item.chunks) * item.id.get_type().get_size() > LIMIT:
            raise InputError(f"{path}: {name} is stored in chunks of {item.chunks}, over the {LIMIT >> 30} GiB that are read "
                             "at once; store it in chunks of a slice")
    if lacking:
        raise InputError(f"{path}: {name} declares an array {item.shape} and stores only {stored:,} bytes of it; it was not "
                         "written to the end, export it again")
    return item


def _sound(dtype: np.dtype) -> bool:
    """Whether no field of a compound reaches into the next: libhdf5 would write over its own memory converting it."""
    if dtype.subdtype is not None:
        return _sound(dtype.subdtype[0])
    fields = sorted(((field[1], field[0]) for field in (dtype.fields or {}).values()), key=lambda field: field[0])
    ends = [*(offset for offset, _ in fields), dtype.itemsize][1:]
    return all(offset + kind.itemsize <= end and _sound(kind) for (offset, kind), end in zip(fields, ends, strict=True))


def read_small(path: str, group: h5py.Group, name: str) -> np.ndarray:
    """All of a dataset that is no bulk data. Raises InputError where it is over 1 GiB."""
    item = get_dataset(path, group, name)
    if item.nbytes > 1 << 30:
        raise InputError(f"{path}: {name} has shape {item.shape}, over the 1 GiB that is read of it; it is damaged")
    if item.dtype.kind == "O" and h5py.check_string_dtype(item.dtype) is None:
        raise InputError(f"{path}: {name} holds neither numbers nor text; it is damaged, export it again")
    return np.asarray(item[()])
