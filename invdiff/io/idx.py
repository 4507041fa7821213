"""idx files, the format of MNIST and its successors: a header of the type and the sizes, then the numbers, often gzipped."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from invdiff.errors import InputError

MAX_BYTES = 2 * 1024**3
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 20


def read_idx(path: str | Path, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array of an idx file, plain or gzipped (told by its content), in native byte order.

    Format: http://yann.lecun.com/exdb/mnist. Not more than the header promises is read or unpacked, and memory grows with what
    the file really holds.

    Raises:
        InputError: missing, of another kind, truncated, longer than its header says, or over `max_bytes`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an idx file, such as train-images-idx3-ubyte.gz")
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not packed:
                return _parse(path, raw, max_bytes)
            with gzip.GzipFile(fileobj=raw) as file:
                return _parse(path, file, max_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip file is damaged or truncated ({error}); copy it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); give a file you may read") from error


def _parse(path: Path, file: BinaryIO | gzip.GzipFile, max_bytes: int) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or head[3] == 0:
        raise InputError(f"{path}: not an idx file; expected one to begin with two zero bytes, a type and a number of axes")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise InputError(f"{path}: truncated within its header; copy it again")
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    kind = np.dtype(_TYPES[head[2]])
    expected = math.prod(shape) * kind.itemsize
    shown = " x ".join(map(str, shape))
    if expected > max_bytes or len(shape) > 8:
        raise InputError(f"{path}: its header says {shown} values, {expected:,} bytes, over the limit of {max_bytes:,}")
    data = bytearray()
    while len(data) < expected and (chunk := file.read(min(_CHUNK, expected - len(data)))):
        data += chunk
    if len(data) < expected or file.read(1):
        found = "more" if len(data) == expected else f"{len(data):,}"
        raise InputError(f"{path}: its header says {shown} values, {expected:,} bytes, and it holds {found}; copy it again")
    array = np.frombuffer(data, kind).reshape(shape)        # writable: it is a view of a bytearray
    return array.astype(kind.newbyteorder("="), copy=False)
