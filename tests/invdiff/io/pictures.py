"""Files of images, made by hand."""

import struct
import zlib

import numpy as np


def png(width, height, depth=8, colour=2, pixels=b"", clear=()):
    """A PNG built by hand, so that its header may say anything. `colour`: 0 grey, 2 RGB, 4 grey+alpha, 6 RGBA. `clear`: the
    grey level, or the RGB, that is transparent."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    key = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    data = chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def png16(array, clear=()):
    """(H, W, C) uint16 -> PNG bytes."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[array.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return png(array.shape[1], array.shape[0], 16, colour, rows, clear)


def random(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
