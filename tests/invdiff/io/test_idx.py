"""idx files: what was written is read, and what is damaged is refused."""

import gzip
import struct

import numpy as np
import pytest

from invdiff.errors import InputError
from invdiff.io.idx import read_idx

TYPES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx(shape, data, code=0x08):
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_every_type_comes_back_in_native_order(tmp_path, kind, pack):
    array = (np.random.default_rng(0).standard_normal((3, 5, 2)) * 50).astype(kind)
    path = tmp_path / "file"        # told by content: no suffix
    path.write_bytes(pack(idx(array.shape, array.tobytes(), TYPES[kind])))
    got = read_idx(path)
    assert got.dtype.isnative
    assert got.dtype == np.dtype(kind).newbyteorder("=")
    np.testing.assert_array_equal(got, array)
    got[0] = 0                      # writable, as torch.from_numpy wants it


def test_labels_and_an_empty_file_s_worth_of_images(tmp_path):
    (tmp_path / "labels").write_bytes(idx((4,), bytes([0, 9, 3, 255])))
    assert read_idx(tmp_path / "labels").tolist() == [0, 9, 3, 255]
    (tmp_path / "none").write_bytes(idx((0, 28, 28), b""))
    assert read_idx(tmp_path / "none").shape == (0, 28, 28)


WHOLE = idx((2, 3), bytes(6))
DAMAGED = {
    "empty": (b"", "not an idx file"),
    "text": (b"hello, world", "not an idx file"),
    "unknown type": (idx((2,), bytes(2), code=0x0A), "not an idx file"),
    "no axes": (bytes([0, 0, 8, 0]), "not an idx file"),
    "short header": (WHOLE[:9], "truncated within its header"),
    "short": (WHOLE[:-1], "holds 5"),
    "long": (WHOLE + b"\0", "holds more"),
    "gzip cut": (gzip.compress(idx((999,), np.random.default_rng(0).bytes(999)))[:-40], "damaged or truncated"),
    "gzip with a wrong checksum": (gzip.compress(WHOLE)[:-8] + bytes(8), "damaged or truncated"),
    "gzip of nothing": (b"\x1f\x8b", "damaged or truncated"),
    "gzip short": (gzip.compress(WHOLE[:-1]), "holds 5"),
    "huge": (idx((2**32 - 1,) * 4, bytes(9)), "over the limit"),
    "many axes": (idx((1,) * 255, bytes(1)), "over the limit"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, name):
    data, words = DAMAGED[name]
    path = tmp_path / "x-idx1-ubyte"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as error:
        read_idx(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_idx(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    """40 MB of zeros behind a header that promises 6 bytes, and the same with a header that is over the limit."""
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(WHOLE + bytes(40_000_000)))
    with pytest.raises(InputError, match="holds more"):
        read_idx(path)
    path.write_bytes(gzip.compress(idx((40_000_000,), bytes(40_000_000))))
    with pytest.raises(InputError, match="over the limit"):
        read_idx(path, max_bytes=1_000_000)
