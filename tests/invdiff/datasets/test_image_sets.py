"""Images read on demand: the same ones, however little memory they may take."""

import io

import h5py
import numpy as np
import pytest
from photo_files import picture
from PIL import ExifTags, Image, ImageOps

from invdiff.datasets.complex_images import open_complex
from invdiff.datasets.images import Cache, ImageSet, open_images
from invdiff.errors import InputError
from invdiff.training.complex_patches import ComplexPatches
from invdiff.training.patches import Patches


def load(path, key):
    return list(open_images(path, key, Cache(0)))


@pytest.fixture
def folder(tmp_path):
    for k in range(5):
        Image.fromarray(picture(40 + k, 60 - k, k)).save(tmp_path / f"{k}.png")
    return tmp_path


@pytest.fixture
def write(tmp_path):
    def to(array):
        with h5py.File(tmp_path / "arrays.h5", "w") as file:
            file["x"] = array
        return tmp_path / "arrays.h5"
    return to


@pytest.mark.parametrize("limit", [0, 8000, 30_000, 10**9])
def test_patches_are_the_same_whatever_is_kept_in_memory(folder, limit):
    cache = Cache(limit)
    patches = Patches(open_images(folder, "", cache), 20, (1.0, 0.6), grey=0.3)
    whole = Patches([picture(40 + k, 60 - k, k) for k in range(5)], 20, (1.0, 0.6), grey=0.3)
    for step in range(6):
        got, same = (p.batch(6, 16, np.random.default_rng(step))[0] for p in (patches, whole))
        assert got.equal(same)
        assert cache.size == sum(item.nbytes for item in cache.items.values()) <= limit
    assert patches.images.shapes == whole.images.shapes


def test_a_cache_keeps_what_was_used_last():
    cache, made = Cache(30), []

    def get(key):
        return cache.get(key, lambda: made.append(key) or np.zeros(10, np.uint8))

    for key in "abcabcad":
        get(key)
    assert made == list("abcd")
    assert set(cache.items) == set("cad")
    assert cache.get("large", lambda: np.zeros(31, np.uint8)).size == 31
    assert set(cache.items) == set("cad")


def test_a_share_of_a_batch_is_those_items_of_it_and_reads_no_others(folder):
    read = []
    images = open_images(folder, "", Cache(0))
    seen = ImageSet(images.shapes, lambda i: read.append(i) or images[i], Cache(0), 3)
    whole, grey = Patches(images, 20, grey=0.4).batch(9, 16, np.random.default_rng(1))
    share, share_grey = Patches(seen, 20, grey=0.4).batch(9, 16, np.random.default_rng(1), slice(1, None, 3))
    assert share.equal(whole[1::3])
    assert share_grey.equal(grey[1::3])
    assert len(read) == 3
    phases = ComplexPatches([np.full((30, 30), 1j, np.complex64)], [], 16)
    all_of_it, mine = (phases.batch(5, 16, np.random.default_rng(1), part)[0] for part in (slice(None), slice(0, None, 2)))
    assert mine.equal(all_of_it[::2])


@pytest.mark.parametrize("shape", [(3, 20, 30), (3, 20, 30, 1), (3, 20, 30, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.float32, np.float64])
def test_arrays_in_hdf5(write, shape, dtype):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    stored = (values / 255).astype(dtype) if np.dtype(dtype).kind == "f" else values.astype(dtype) * np.array(
        257 if np.dtype(dtype).itemsize == 2 else 1, dtype)
    got = load(write(stored), "x")
    expected = np.broadcast_to(values.reshape(3, 20, 30, -1), (3, 20, 30, 3))
    assert [image.dtype for image in got] == [np.uint8 if dtype == np.uint8 else np.float32] * 3
    np.testing.assert_allclose(np.stack(got), expected if dtype == np.uint8 else expected / 255, atol=1e-6)
    batch, _ = Patches(got, 12, (1.0, 0.7)).batch(4, 12, np.random.default_rng(0))
    assert batch.shape == (4, 3, 12, 12)
    assert 0 <= batch.min() < 0.3
    assert 0.7 < batch.max() <= 1


@pytest.mark.parametrize(("array", "said"), [
    (np.zeros((2, 8, 8, 4), np.uint8), r"expected encoded images, or uint8, uint16 or float arr.* got uint8 \(2, 8, 8, 4\)"),
    (np.zeros((2, 8, 8), np.int16), "got int16"),
    (np.zeros((2, 8, 8), np.uint32), "got uint32"),
    (np.zeros((2, 8, 8), np.complex64), "got complex64"),
    (np.full((2, 8, 8), 200.0), r"x\]\[0\]: expected floats in \[0, 1\], got 200 to 200"),
    (np.full((2, 8, 8), np.nan), r"expected floats in \[0, 1\], got nan"),
    (np.zeros(5), "one variable-length uint8 array each, got float64"),
])
def test_arrays_of_another_kind_are_refused(write, array, said):
    with pytest.raises(InputError, match=said):
        load(write(array), "x")


def test_a_damaged_image_is_named_when_it_is_read(folder):
    data = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(data[: len(data) // 2])
    images = open_images(folder, "", Cache(0))
    assert images[2].shape == (42, 58, 3)
    with pytest.raises(InputError, match=r"3\.png: cannot be decoded, it is damaged or incomplete"):
        images[3]


def test_complex_images_are_read_one_by_one(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 2, 20, 24)).astype(np.float32)
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file["train"] = values
    images = open_complex(tmp_path / "z.h5", "train", Cache(0))
    assert images.nbytes == 4 * 20 * 24 * 8
    np.testing.assert_array_equal(images[-1], values[3, 0] + 1j * values[3, 1])
    np.testing.assert_array_equal(images[1:3][1], images[2])


def test_an_encoded_image_may_be_of_any_kind(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", 3, dtype=h5py.vlen_dtype(np.uint8))
        for i, kind in enumerate(("PNG", "JPEG", "WEBP")):
            buffer = io.BytesIO()
            Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(buffer, kind)
            data[i] = np.frombuffer(buffer.getvalue(), np.uint8)
    assert all(abs(int(image.mean()) - 90) <= 1 for image in load(tmp_path / "x.h5", "x"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_images_stand_as_the_camera_was_held(tmp_path, kind, orientation):
    """Nine is none, and is taken for one."""
    note = Image.Exif()
    note[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"x.{kind.lower()}"
    Image.fromarray(picture(16, 24)).save(path, exif=note, **({"lossless": True} if kind == "WEBP" else {}))
    images = open_images(tmp_path, "", Cache(0))
    assert images.shapes == [images[0].shape[:2]] == [(24, 16) if orientation in (5, 6, 7, 8) else (16, 24)]
    with Image.open(path) as image:
        np.testing.assert_array_equal(images[0], np.asarray(ImageOps.exif_transpose(image)))


def test_a_damaged_note_does_not_make_an_image_unreadable(tmp_path):
    Image.fromarray(picture(16, 24)).save(tmp_path / "x.png", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(open_images(tmp_path, "", Cache(0))[0], picture(16, 24))
