import contextlib
import io
import os
import stat
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from invdiff.errors import InputError
from invdiff.io.images import SAMPLES, load_image, sample_image, save_image


def png(width, height, depth=8, colour=2, pixels=b""):
    """A PNG built by hand, so that its header may say anything. `colour`: 0 grey, 2 RGB, 4 grey+alpha, 6 RGBA."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def png16(array):
    """(H, W, C) uint16 -> PNG bytes."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[array.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return png(array.shape[1], array.shape[0], 16, colour, rows)


def random(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def as_tensor(array, white):
    """(H, W) or (H, W, C) -> (1, C, H, W)"""
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy((array / white).astype(np.float32)).permute(2, 0, 1)[None]


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


# Round trips


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9))
def test_saving_and_loading_moves_a_value_by_half_a_level_at_most(tmp_path_factory, seed, channels, height, width):
    path = tmp_path_factory.mktemp("round") / "x.png"
    x = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
    save_image(path, x)
    got = load_image(path)
    assert got.shape == x.shape
    assert got.dtype == torch.float32
    assert (got - x).abs().max() <= 1 / 510 + 1e-6


def test_save_clips_takes_any_float_type_and_leaves_one_file_with_usual_permissions(tmp_path):
    path = tmp_path / "x.png"
    save_image(path, torch.tensor([[[-1.0, 0.5, 2.0]]], dtype=torch.bfloat16, requires_grad=True))
    assert (load_image(path) * 255).flatten().tolist() == [0, 128, 255]
    assert os.listdir(tmp_path) == ["x.png"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("x", [torch.zeros(2, 3, 4, 4), torch.zeros(4, 4), torch.zeros(2, 4, 4), torch.zeros(1, 0, 4),
                               torch.full((1, 4, 4), torch.nan)])
def test_save_refuses_what_is_no_image_and_keeps_the_file_that_was_there(tmp_path, x):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="x: "):
        save_image(path, x)
    assert path.read_bytes() == b"old"


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def full_disk(self, file, **_):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_image(path, torch.zeros(1, 4, 4))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.png"]


# What formats mean


@pytest.mark.parametrize(("suffix", "channels"), [("png", 1), ("png", 3), ("bmp", 1), ("bmp", 3), ("tif", 1),
                                                  ("tif", 3), ("webp", 3)])    # WebP has no grey
def test_eight_bit_lossless_formats(tmp_path, suffix, channels):
    array = random((5, 7, channels))
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(array.squeeze()).save(path, lossless=True)
    assert torch.equal(load_image(path), as_tensor(array, 255))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_png_keeps_its_bits(tmp_path, channels):
    array = random((9, 7, channels), np.uint16)
    path = tmp_path / "x.png"
    path.write_bytes(png16(array))
    assert torch.equal(load_image(path), as_tensor(array, 65535))
    assert torch.equal(load_image(path, unit_range=False), as_tensor(array, 1))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True}, {"planarconfig": "separate"},
                                     {"byteorder": ">"}, {"bigtiff": True}])
def test_sixteen_bit_rgb_tiff_keeps_its_bits(tmp_path, options):
    array = random((9, 7, 3), np.uint16)
    stored = array.transpose(2, 0, 1) if "planarconfig" in options else array
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="rgb", **options)
    assert torch.equal(load_image(tmp_path / "x.tif"), as_tensor(array, 65535))


def test_sixteen_bit_grey_tiff_keeps_its_bits_compressed_too(tmp_path):
    array = random((9, 7), np.uint16)
    Image.fromarray(array).save(tmp_path / "x.tif", compression="tiff_lzw")
    assert torch.equal(load_image(tmp_path / "x.tif"), as_tensor(array, 65535))
    tifffile.imwrite(tmp_path / "y.tif", 65535 - array, photometric="miniswhite")
    assert torch.equal(load_image(tmp_path / "y.tif"), as_tensor(array, 65535))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_float_tiff_is_taken_as_it_is(tmp_path, channels, dtype):
    array = (np.random.default_rng(0).standard_normal((5, 6, channels)) * 3).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", array.squeeze(), photometric="rgb" if channels == 3 else "minisblack")
    assert torch.equal(load_image(tmp_path / "x.tif"), as_tensor(array, 1))


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3), (3, 5, 6), (1, 5, 6), (1, 3, 5, 6), (5, 6, 1)])
def test_npy_shapes(tmp_path, shape):
    array = np.random.default_rng(0).standard_normal(shape) * 3
    np.save(tmp_path / "x.npy", array)
    want = {(5, 6): array[None], (5, 6, 3): array.transpose(*range(array.ndim))[None]}.get(shape, array)
    if shape in ((5, 6, 3), (5, 6, 1)):
        want = array.transpose(2, 0, 1)
    got = load_image(tmp_path / "x.npy")
    assert got.shape == (1, want.shape[-3], 5, 6)
    assert torch.equal(got[0], torch.from_numpy(want.reshape(got.shape[1:])).float())


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.int16, 32767), (np.bool_, 1)])
def test_npy_integers_are_divided_by_their_largest_value(tmp_path, dtype, white):
    array = np.array([[0, 1], [white, white // 2]]).astype(dtype)
    np.save(tmp_path / "x.npy", array)
    assert torch.equal(load_image(tmp_path / "x.npy"), as_tensor(array, white))
    assert torch.equal(load_image(tmp_path / "x.npy", unit_range=False), as_tensor(array, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_thumbnail_in_a_tiff_is_no_second_page(tmp_path, dtype):
    array = random((16, 16, 3), dtype)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(array, photometric="rgb")
        file.write(array[::4, ::4], photometric="rgb", subfiletype=1)
    assert torch.equal(load_image(tmp_path / "x.tif"), as_tensor(array, np.iinfo(dtype).max))


def test_jpeg_and_cmyk(tmp_path):
    grey = np.full((16, 16, 3), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "x.jpg", quality=95)
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "cmyk.tif")
    assert (load_image(tmp_path / "x.jpg") - 128 / 255).abs().max() < 0.01
    assert load_image(tmp_path / "cmyk.tif")[0, :, 0, 0].tolist() == [0, 1, 1]


def test_transparency_is_laid_over_white(tmp_path):
    rgba = random((4, 5, 4))
    colour, alpha = rgba[..., :3] / 255, rgba[..., 3:] / 255
    want = as_tensor(colour * alpha + 1 - alpha, 1)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    torch.testing.assert_close(load_image(tmp_path / "x.png"), want, atol=1e-6, rtol=0)
    torch.testing.assert_close(load_image(tmp_path / "x.png", unit_range=False), want * 255, atol=1e-4, rtol=0)
    Image.fromarray(np.array([[[0, 0], [0, 255]]], np.uint8), mode="LA").save(tmp_path / "la.png")
    assert load_image(tmp_path / "la.png").tolist() == [[[[1, 0]]]]


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_transparency(tmp_path, channels, suffix):
    array = random((3, 5, channels), np.uint16)
    path = tmp_path / f"x.{suffix}"
    if suffix == "png":
        path.write_bytes(png16(array))
    else:
        tifffile.imwrite(path, array, photometric="rgb" if channels == 4 else "minisblack", extrasamples=["unassalpha"],
                         planarconfig="contig")
    colour, alpha = array[..., :-1] / 65535, array[..., -1:] / 65535
    torch.testing.assert_close(load_image(path), as_tensor(colour * alpha + 1 - alpha, 1), atol=1e-6, rtol=0)


def test_palette_and_one_bit(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    palette.save(tmp_path / "p.png")
    palette.save(tmp_path / "pt.png", transparency=0)
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "one.png")
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "one.tif", compression="group4")
    assert load_image(tmp_path / "p.png")[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert load_image(tmp_path / "pt.png")[0, :, 0].T.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert load_image(tmp_path / "one.png").tolist() == load_image(tmp_path / "one.tif").tolist() == [[[[1, 0]]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_alike_by_every_decoder(tmp_path, orientation):
    array = random((5, 7, 3))
    upright = array.swapaxes(0, 1) if orientation > 4 else array    # EXIF 2.3, table of the tag Orientation
    upright = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright,
               6: upright[:, ::-1], 7: upright[::-1, ::-1], 8: upright[::-1]}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(tmp_path / "x.png", exif=exif)
    Image.fromarray(array).save(tmp_path / "x.tif", tiffinfo={0x0112: orientation})
    tags = [(0x0112, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "deep.tif", array.astype(np.uint16) * 257, photometric="rgb", extratags=tags)
    deep = png16(array.astype(np.uint16) * 257)
    tag = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(tag) - 4) + tag + struct.pack(">I", zlib.crc32(tag))
    (tmp_path / "deep.png").write_bytes(deep[:33] + chunk + deep[33:])
    for name in ("x.png", "x.tif", "deep.tif", "deep.png"):
        assert torch.equal(load_image(tmp_path / name), as_tensor(upright, 255)), name


def test_a_file_is_told_by_its_content(tmp_path):
    array = random((4, 4))
    for suffix in ("png", "bmp"):
        Image.fromarray(array).save(tmp_path / "x", format=suffix)
        assert torch.equal(load_image(str(tmp_path / "x")), as_tensor(array, 255))


# Bad input


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
    for name in ("x.png", "x.zip", "x.gif"):
        assert "is not a PNG" in error_of(tmp_path / name)


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


def test_the_limit_counts_pixels(tmp_path):
    save_image(tmp_path / "x.png", torch.zeros(3, 8, 10))
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
    error_of(tmp_path / "x.npy")
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


# The sample photos


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_photos_are_natural_colour_images(name):
    x = sample_image(name)
    assert x.shape == (1, 3, 256, 256)
    assert x.dtype == torch.float32
    assert x.min() >= 0
    assert 0.8 < x.max() <= 1
    assert x.std() > 0.1


def test_sample_photos_need_no_download():
    code = (
        "import socket, sys\n"
        "sys.modules['pooch'] = None\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from invdiff.io.images import sample_image, SAMPLES\n"
        "[sample_image(name) for name in SAMPLES]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_sample_is_refused():
    with pytest.raises(InputError, match="expected one of chelsea"):
        sample_image("lena")
