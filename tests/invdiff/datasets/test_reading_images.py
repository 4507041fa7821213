"""Images of folders and files, as they are read."""


import h5py
import numpy as np
import pytest
import tifffile
from photo_files import encoded, picture
from PIL import Image

from invdiff.datasets.images import Cache, decode, open_images
from invdiff.datasets.pixels import load_whole
from invdiff.errors import InputError
from invdiff.io.images import load_image, to_uint8


def write_hdf5(path, items, key="train_jpeg"):
    with h5py.File(path, "w") as file:
        data = file.create_dataset(key, len(items), dtype=h5py.vlen_dtype(np.uint8))
        for i, item in enumerate(items):
            data[i] = np.frombuffer(item, np.uint8)


def load(path, key="train_jpeg"):
    return list(open_images(path, key, Cache(0)))


def test_a_folder_is_read_in_order_with_its_subfolders(tmp_path):
    a, b, grey = picture(5, 7), picture(6, 4, 1), picture(3, 3, 2)[..., 0]
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.PNG").write_bytes(encoded(a))
    (tmp_path / "sub" / "b.tif").write_bytes(encoded(b, "TIFF"))
    (tmp_path / "z.png").write_bytes(encoded(grey))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "sub" / "._b.tif").write_bytes(b"a note of macOS on b.tif")
    got = load(tmp_path)
    for image, expected in zip(got, (a, b, np.repeat(grey[..., None], 3, 2)), strict=True):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected)


def test_floats_and_wider_integers_are_refused(tmp_path):
    grey = picture(5, 7)[..., 0]
    (tmp_path / "float.tif").write_bytes(encoded(grey.astype(np.float32) / 255, "TIFF"))
    with pytest.raises(InputError, match=r"float.tif: holds floats; save 8 or 16 bits"):
        load(tmp_path)
    tifffile.imwrite(tmp_path / "float.tif", grey.astype(np.uint32))
    with pytest.raises(InputError, match=r"float.tif: holds numbers of 32 bits; save 8 or 16 bits"):
        load(tmp_path)


def test_planes_one_after_another_are_colours(tmp_path):
    image = picture(5, 7)
    tifffile.imwrite(tmp_path / "planes.tif", np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.uint16) * 257,
                     photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(load(tmp_path)[0], np.float32(image) / np.float32(255))


def test_of_several_pages_none_is_taken_and_of_an_animation_the_first(tmp_path):
    pages = [Image.fromarray(picture(5, 7, seed)) for seed in range(2)]
    for name in ("a.png", "b.webp"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], lossless=True)
    for image in load(tmp_path):
        np.testing.assert_array_equal(image, picture(5, 7, 0))
    pages[0].save(tmp_path / "c.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"c\.tif: holds 2 pages; save the one you want as a file of its own"):
        load(tmp_path)


def test_encoded_bytes_may_be_of_any_format_that_pillow_knows(tmp_path):
    image, grey = picture(5, 7), picture(5, 7)[..., 0]
    lossless = [encoded(image, "PPM"), encoded(image, "JPEG2000"), encoded(image[..., :1].repeat(3, 2), "GIF")]
    write_hdf5(tmp_path / "x.h5", lossless)
    for i, got in enumerate(load(tmp_path / "x.h5")):
        np.testing.assert_array_equal(got, image if i < 2 else grey[..., None].repeat(3, 2))
    write_hdf5(tmp_path / "x.h5", [b"P5 7 5 65535\n" + (grey.astype(">u2") * 257).tobytes()])
    np.testing.assert_array_equal(load(tmp_path / "x.h5")[0], grey[..., None].repeat(3, 2) / np.float32(255))


def test_threads_that_decode_leave_the_filter_of_warnings_alone(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("warnings.catch_warnings", None)
        assert decode(encoded(picture(5, 7)), "x").shape == (5, 7, 3)


def test_transparent_pixels_are_white_as_where_images_are_restored(tmp_path):
    pixels = np.concatenate([picture(5, 7), np.zeros((5, 7, 1), np.uint8)], 2)
    pixels[:2, :, 3] = 255
    Image.fromarray(pixels, "RGBA").save(tmp_path / "cut.png")
    (image,) = load(tmp_path)
    np.testing.assert_array_equal(image[:2], pixels[:2, :, :3])
    assert (image[2:] == 255).all()
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 4), dtype=np.uint8)
    pixels[..., 3] = np.arange(256)
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    (image,) = load(tmp_path)
    np.testing.assert_array_equal(image, to_uint8(load_image(tmp_path / "cut.png")))


def test_whole_images_are_of_the_folder_that_is_named(tmp_path):
    """And not all of those below, in which the test images would be among those that are trained on."""
    for name, value in (("train", 10), ("test", 200)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / name / "a.png")
    assert [load_whole(tmp_path, name, 1).max() for name in ("train", "test", str(tmp_path / "test"))] == [10, 200, 200]
    with pytest.raises(InputError, match="data: no idx file or folder of images called tset in"):
        load_whole(tmp_path, "tset", 1)


def test_a_network_of_one_channel_sees_the_brightness_of_whole_images(tmp_path):
    """Of 8-bit colours the nearest level, of grey pixels the pixels; three channels are left as they are stored."""
    colours, grey = picture(6, 5), np.repeat(picture(6, 5, 1)[..., :1], 3, 2)
    write_hdf5(tmp_path / "x.h5", [encoded(colours), encoded(grey)])
    seen = load_whole(tmp_path / "x.h5", "train_jpeg", 1)
    assert seen.shape == (2, 1, 6, 5)
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen[0, 0], np.asarray(Image.fromarray(colours).convert("F")).round())
    np.testing.assert_array_equal(seen[1, 0], grey[..., 0])
    np.testing.assert_array_equal(load_whole(tmp_path / "x.h5", "train_jpeg", 3)[0], colours.transpose(2, 0, 1))
    with h5py.File(tmp_path / "floats.h5", "w") as file:
        file["train_jpeg"] = np.float32([[[[0.5, 0.25, 1.0]]]])
    floats = load_whole(tmp_path / "floats.h5", "train_jpeg", 1)
    np.testing.assert_allclose(floats, 0.299 * 0.5 + 0.587 * 0.25 + 0.114, rtol=1e-6)


def test_encoded_bytes_in_hdf5(tmp_path):
    images = [picture(5, 7), picture(6, 4, 1)]
    write_hdf5(tmp_path / "x.h5", [encoded(i) for i in images], "pictures")
    for got, expected in zip(load(tmp_path / "x.h5", "pictures"), images, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_input_errors_name_what_is_wrong(tmp_path):
    def refused(path, message, key="train_jpeg"):
        with pytest.raises(InputError, match=message) as caught:
            load(path, key)
        assert str(path) in str(caught.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(encoded(picture(20, 20))[:100])
    (tmp_path / "text.h5").write_text("not HDF5")
    write_hdf5(tmp_path / "ok.h5", [encoded(picture(4, 4)), b"no image"])
    write_hdf5(tmp_path / "none.h5", [])
    refused(tmp_path / "absent", "expected a folder of images or an HDF5 file")
    refused(tmp_path / "text.h5", "expected a folder of images or an HDF5 file")
    refused(tmp_path / "empty", "no images found")
    refused(tmp_path / "none.h5", "no images found")
    refused(tmp_path / "bad", "x.png: cannot be decoded, it is damaged or incomplete")
    refused(tmp_path / "ok.h5", r"\[train_jpeg\]\[1\]: not a readable image; its first bytes are those of none")
    refused(tmp_path / "ok.h5", "no dataset 'test'; it holds train_jpeg", "test")


def test_a_truncated_hdf5_file_is_an_input_error(tmp_path):
    write_hdf5(tmp_path / "x.h5", [encoded(picture(40, 40, i)) for i in range(4)])
    data = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"x\.h5"):
        load(tmp_path / "x.h5")
