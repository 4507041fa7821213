"""Images of more than 8 bits: trained on, calibrated with and scored as they are in their files."""

import io
import struct
import zlib

import h5py
import numpy as np
import pytest
import tifffile
import torch
from photo_files import encoded, picture
from PIL import Image

from invdiff.datasets.complex_images import open_magnitudes
from invdiff.datasets.crops import central_crops
from invdiff.datasets.darkness import brightest, said_if_dark
from invdiff.datasets.images import Cache, ImageSet, open_images
from invdiff.datasets.pixels import load_whole, to_grey, to_rgb
from invdiff.evaluation.generative.references import sample_images
from invdiff.io.images import load_image
from invdiff.training.patches import Patches
from invdiff.training.whole import WholeImages

WHITE = 65535


def camera(channels, side=40, seed=0):
    """12 bits in files of 16: (H, W[, C]) uint16 up to 4095."""
    shape = (side, side) if channels == 1 else (side, side, channels)
    return np.random.default_rng(seed).integers(0, 4096, shape, dtype=np.uint16)


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def colour_png(array):
    """(H, W, 3) uint16, which Pillow does not write."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


FILES = {
    "grey.png": (1, encoded), "colour.png": (3, colour_png), "grey.tif": (1, tiff),
    "grey-2.tif": (1, lambda a: tiff(a, byteorder=">")),
    "packed.tif": (1, lambda a: tiff(a, compression="zlib")), "colour.tif": (3, lambda a: tiff(a, photometric="rgb")),
    "planes.tif": (3, lambda a: tiff(np.ascontiguousarray(a.transpose(2, 0, 1)), photometric="rgb", planarconfig="separate")),
    "colour-2.tif": (3, lambda a: tiff(a, photometric="rgb", byteorder=">", compression="zlib")),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_trained_on_has_the_levels_that_are_restored(tmp_path, name):
    """Of 12 bits in 16, of which 8 would leave 17 levels: in folders, as encoded bytes and as arrays."""
    channels, write = FILES[name]
    values = camera(channels)
    (tmp_path / name).write_bytes(write(values))
    exact = load_image(tmp_path / name)[0].expand(3, -1, -1)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_dataset("bytes", 1, h5py.vlen_dtype(np.uint8))[0] = np.frombuffer(write(values), np.uint8)
        file["arrays"] = values[None]
    assert len(exact[0].unique()) > 1000
    for path, key in ((tmp_path, ""), (tmp_path / "all.h5", "bytes"), (tmp_path / "all.h5", "arrays")):
        cache = Cache()
        images = open_images(path, key, cache)
        (image,) = images
        assert image.dtype == np.float32
        assert images.nbytes == image.nbytes == cache.size
        assert torch.equal(to_rgb(image), exact)
        patch, _ = Patches(images, 40, flips=False).batch(1, 40, np.random.default_rng(0))
        whole, _ = WholeImages(images, 3, flips=False).batch(1, 40, np.random.default_rng(0))
        assert torch.equal(patch[0], exact)
        assert torch.equal(whole[0], exact)
        assert np.array_equal(load_whole(path, key, 3)[0], exact.numpy())
        assert torch.equal(torch.from_numpy(load_whole(path, key, 1)[0]), to_grey(image))
        assert torch.equal(central_crops(path, key, 1, 20)[0], exact[:, 10:30, 10:30])
        (magnitudes,) = open_magnitudes(path, key, cache)
        assert np.array_equal(magnitudes, exact[0].numpy())
        assert magnitudes.base is None          # of an image that is not kept along with it


def test_images_made_smaller_keep_more_than_eight_bits(tmp_path):
    """The values of a ramp of 1024 levels, all below 8-bit white / 64, made half as large."""
    ramp = np.arange(1024, dtype=np.uint16)[None].repeat(1024, 0)
    (tmp_path / "x.png").write_bytes(encoded(ramp))
    patches, _ = Patches(open_images(tmp_path, "", Cache()), 512, (0.5,), flips=False).batch(1, 512, np.random.default_rng(0))
    expected = (2 * torch.arange(512) + 0.5) / WHITE
    torch.testing.assert_close(patches[0, 0, 256, 8:-8], expected[8:-8], rtol=0, atol=0.01 / WHITE)


def test_eight_bits_stay_eight_bits_unless_another_image_has_more(tmp_path):
    """Sets are stacked and cut as one type; with a deeper image among them 8 bits are the same values as floats."""
    for name in ("a.png", "b.jpg", "c.tif", "d.webp"):
        Image.fromarray(picture(12, 12)).save(tmp_path / name)
    tifffile.imwrite(tmp_path / "signed.tif", np.arange(-72, 72, dtype=np.int8).reshape(12, 12))
    small = open_images(tmp_path, "", Cache(0))
    assert {image.dtype for image in small} == {np.dtype(np.uint8)}
    assert small.nbytes == sum(image.nbytes for image in small)
    (tmp_path / "deep.png").write_bytes(encoded(camera(1, 12)))
    mixed = open_images(tmp_path, "", Cache(0))
    assert {image.dtype for image in mixed} == {np.dtype(np.float32)}
    assert mixed.nbytes == sum(image.nbytes for image in mixed)
    kept = [image for i, image in enumerate(mixed) if i != 4]
    for image, bits in zip(kept[:4], small, strict=False):
        np.testing.assert_array_equal(image, bits / np.float32(255))
    batch = Patches(mixed, 12).batch(200, 12, np.random.default_rng(0))[0]
    means = {round(float(image.mean()), 4) for image in mixed}
    assert {round(float(patch.mean()), 4) for patch in batch} == means


def test_scores_are_of_pixels_of_eight_bits(tmp_path):
    values = camera(1, 12) * np.uint16(16)
    (tmp_path / "x.png").write_bytes(encoded(values))
    (batch,) = sample_images(tmp_path).batches()
    np.testing.assert_array_equal(batch[0, 0].numpy(), np.rint(values / 257))


# how bright they are


def test_nearly_black_images_are_told_of_with_the_factor_that_would_be_right():
    dark = [np.full((4, 4, 3), 4095 / WHITE, np.float32)] * 3
    assert "the brightest value is 0.0625, and white is 1" in said_if_dark(dark)
    assert "by a factor of 16, " in said_if_dark(dark)
    assert "is 0, and white is 1" in said_if_dark(np.zeros((2, 1, 4, 4), np.uint8))
    assert "factor" not in said_if_dark(np.zeros((2, 1, 4, 4), np.uint8))
    assert "is 0.0784, " in said_if_dark(np.full((2, 1, 4, 4), 20, np.uint8))
    assert "is 0.1, " in said_if_dark([np.full((4, 4), 0.06 + 0.08j, np.complex64)])
    for fine in ([*dark, np.full((4, 4, 3), 0.125, np.float32)], np.full((2, 1, 4, 4), 32, np.uint8),
                 [np.full((4, 4), 0.6j, np.complex64)]):
        assert said_if_dark(fine) == ""


def test_no_more_images_are_read_than_it_takes():
    """The first bright one ends it; of many dark ones 64 are looked at, from the first to the last."""
    read = []

    def images(bright):
        return ImageSet([(2, 2)] * 1000, lambda i: read.append(i) or np.full((2, 2, 3), 200 * (i in bright), np.uint8),
                        Cache(0), 3)

    assert said_if_dark(images({0, 999})) == ""
    assert read == [0]
    assert brightest(images({999})) == pytest.approx(200 / 255)
    assert len(read) == 1 + 64
    assert "the brightest value of 64 of the images is 0, " in said_if_dark(images(set()))
