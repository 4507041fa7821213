"""Files that are no image, damaged, enormous or of a kind that is not read: one message, and nothing unpickled."""

import contextlib
import io
import os
import warnings

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import png, png16, random
from PIL import Image

from invdiff.errors import InputError
from invdiff.io.images import load_array, load_image, save_image


def error_of(path, **options):
    """The message, which names the file, and nothing else: no warning, no other exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            load_image(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message




def test_not_a_file(tmp_path):
    (tmp_path / "empty.png").touch()
    assert "no such file" in error_of(tmp_path / "missing.png")
    assert "is a folder" in error_of(tmp_path)
    assert "is empty" in error_of(tmp_path / "empty.png")
    assert "no regular file" in error_of("/dev/null" if os.path.exists("/dev/null") else tmp_path / "empty.png")


def test_no_image(tmp_path):
    (tmp_path / "x.png").write_text("hello, I am a text")
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    Image.new("L", (4, 4)).save(tmp_path / "x.gif")
    for name in ("x.png", "x.zip"):
        assert "is not a PNG" in error_of(tmp_path / name)
    assert error_of(tmp_path / "x.gif").endswith("is a GIF, and GIFs are not read; convert it to PNG")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.bmp", "x.tif", "deep.tif", "deep.png", "x.npy"])
def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path, name):
    path = tmp_path / name
    if name == "x.npy":
        np.save(path, random((40, 40)))
    elif name == "deep.tif":
        tifffile.imwrite(path, random((40, 40, 3), np.uint16), photometric="rgb")
    elif name == "deep.png":
        path.write_bytes(png16(random((40, 40, 3), np.uint16)))
    else:
        Image.fromarray(random((40, 40, 3))).save(path)
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(InputError, match="damaged"):
            load_image(path)


@pytest.mark.parametrize("side", [9000, 12_000, 30_000])
def test_an_enormous_image_is_refused_by_its_header(tmp_path, side):
    (tmp_path / "x.png").write_bytes(png(side, side, pixels=bytes(100)))
    assert "pixels; crop or downscale it" in error_of(tmp_path / "x.png")


def test_enormous_tiff_and_npy_are_refused_by_their_headers(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", shape=(30_000, 30_000), dtype=np.uint16, data=None)
    with (tmp_path / "x.tif").open("r+b") as file:
        file.truncate(4096)
    assert "30000 x 30000" in error_of(tmp_path / "x.tif")
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (30_000, 30_000)).flush()    # sparse
    assert "30000 x 30000" in error_of(tmp_path / "x.npy")


def test_twelve_bits_are_refused_as_such(tmp_path):
    """And not as damage; nor read as 16, which would be a dark image."""
    tifffile.imwrite(tmp_path / "x.tif", random((16, 16), np.uint16))
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+b") as file:
        file.pages[0].tags["BitsPerSample"].overwrite(12)
    assert "expected 8 or 16 bits a sample, got 12" in error_of(tmp_path / "x.tif")


def test_the_limit_counts_pixels(tmp_path):
    save_image(tmp_path / "x.png", torch.eye(3)[:, :1, None].expand(3, 8, 10))
    assert load_image(tmp_path / "x.png", max_pixels=80).shape == (1, 3, 8, 10)
    assert "10 x 8, over the limit of 79 pixels" in error_of(tmp_path / "x.png", max_pixels=79)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite(tmp_path, value):
    np.save(tmp_path / "x.npy", np.array([[0.0, value]]))
    assert "holds 1 NaN or infinite" in error_of(tmp_path / "x.npy")


@pytest.mark.parametrize("shape", [(4,), (4, 4, 4), (2, 4, 4), (2, 3, 4, 4), (), (5, 4, 2)])
def test_npy_of_another_shape(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape))
    assert f"got {shape}" in error_of(tmp_path / "x.npy")


def test_no_pixels(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 4)))
    (tmp_path / "x.png").write_bytes(png(0, 4))
    assert "no pixels" in error_of(tmp_path / "x.npy")
    error_of(tmp_path / "x.png")


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.complex64, "U3"])
def test_types_without_a_white_level(tmp_path, dtype):
    np.save(tmp_path / "x.npy", np.zeros((4, 4), dtype))
    assert "save as float32" in error_of(tmp_path / "x.npy")


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "x.npy", np.array([[Trap()]], dtype=object), allow_pickle=True)
    said = "expected an array of 8- or 16-bit integers or floats, got dtype object; save it as float32"
    assert error_of(tmp_path / "x.npy").endswith(said)
    with pytest.raises(InputError, match=said):
        load_array(tmp_path / "x.npy")
    assert not (tmp_path / "sprung").exists()


def test_pages_frames_and_channels(tmp_path):
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((4, 8, 8), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "bands.tif", np.zeros((8, 8, 5), np.uint16), planarconfig="contig")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:])
    assert "holds 4 pages" in error_of(tmp_path / "pages.tif")
    assert "5 channels" in error_of(tmp_path / "bands.tif")
    assert "holds 2 frames" in error_of(tmp_path / "x.webp")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "BMP"]), st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_give_an_image_or_an_input_error(tmp_path_factory, format, seed):
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    Image.fromarray(random((12, 12, 3))).save(buffer, format=format)
    data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
    where = rng.integers(0, min(len(data), 200), 4)
    data[where] = rng.integers(0, 256, 4)
    path = tmp_path_factory.mktemp("damaged") / "x"
    path.write_bytes(data.tobytes())
    with contextlib.suppress(InputError):
        assert torch.isfinite(load_image(path, max_pixels=10_000)).all()
