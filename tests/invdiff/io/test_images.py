import os
import stat
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import png, png16, random
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from invdiff.datasets.images import Cache, open_images
from invdiff.errors import InputError
from invdiff.io.images import SAMPLES, load_image, sample_image, save_image


def as_tensor(array, white):
    """(H, W) or (H, W, C) -> (1, C, H, W)"""
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy((array / white).astype(np.float32)).permute(2, 0, 1)[None]


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
    assert (load_image(tmp_path / "x.jpg", as_grey=False) - 128 / 255).abs().max() < 0.01
    assert load_image(tmp_path / "cmyk.tif")[0, :, 0, 0].tolist() == [0, 1, 1]


def test_transparency_is_laid_over_white(tmp_path):
    rgba = random((4, 5, 4))
    colour, alpha = rgba[..., :3] / 255, rgba[..., 3:] / 255
    want = as_tensor(colour * alpha + 1 - alpha, 1)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    torch.testing.assert_close(load_image(tmp_path / "x.png"), want, atol=1e-6, rtol=0)
    torch.testing.assert_close(load_image(tmp_path / "x.png", unit_range=False), want * 255, atol=1e-4, rtol=0)
    over_black = as_tensor(colour * alpha, 1)
    torch.testing.assert_close(load_image(tmp_path / "x.png", background=0.0), over_black, atol=1e-6, rtol=0)
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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_colour_that_stands_for_transparent_is_white(tmp_path, channels, dtype):
    array = random((3, 5, channels), dtype)
    white = np.iinfo(dtype).max
    clear = array[1, 2].tolist()
    rows = b"".join(b"\0" + row.tobytes() for row in array)
    (tmp_path / "x.png").write_bytes(png16(array, clear) if white > 255 else png(5, 3, 8, channels - 1, rows, clear))
    array[1, 2] = white
    torch.testing.assert_close(load_image(tmp_path / "x.png"), as_tensor(array, white), atol=1e-6, rtol=0)


def test_signed_tiff_keeps_its_signs(tmp_path):
    for dtype in (np.int8, np.int16):
        array = random((6, 7), np.uint16).astype(dtype)
        tifffile.imwrite(tmp_path / "x.tif", array)
        assert torch.equal(load_image(tmp_path / "x.tif"), as_tensor(array, np.iinfo(dtype).max))


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


def test_a_png_says_how_it_lies_in_several_ways_and_places(tmp_path):
    array = random((5, 7, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    notes = {"raw": PngInfo(), "xmp": PngInfo()}
    hexadecimal = exif.tobytes().hex()      # as older versions of ImageMagick write it
    notes["raw"].add_text("Raw profile type exif", f"\nexif\n{len(hexadecimal) // 2:8d}\n{hexadecimal}\n", zip=True)
    notes["xmp"].add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    for name, note in notes.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png", pnginfo=note)
    Image.fromarray(array).save(tmp_path / "plain.png")
    plain = (tmp_path / "plain.png").read_bytes()
    tag = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(tag) - 4) + tag + struct.pack(">I", zlib.crc32(tag))
    (tmp_path / "behind.png").write_bytes(plain[:-12] + chunk + plain[-12:])
    upright = as_tensor(np.rot90(array, -1), 255)
    for name in ("raw", "xmp", "behind"):
        assert torch.equal(load_image(tmp_path / f"{name}.png"), upright), name
    seen = open_images(tmp_path, "", Cache(0))      # which does not look behind the pixels, neither for shapes
    assert seen.shapes == [image.shape[:2] for image in seen] == [(5, 7), (5, 7), (7, 5), (7, 5)]


def test_a_file_is_told_by_its_content(tmp_path):
    array = random((4, 4))
    for suffix in ("png", "bmp"):
        Image.fromarray(array).save(tmp_path / "x", format=suffix)
        assert torch.equal(load_image(str(tmp_path / "x")), as_tensor(array, 255))


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


@pytest.mark.parametrize("suffix", ["png", "jpg", "npy", "tiff"])
def test_equal_channels_are_one_and_that_is_said(tmp_path, suffix):
    """A grey scan that was stored in colour: its noise is one, too."""
    grey, path = random((9, 8)), tmp_path / f"scan.{suffix}"
    colour = np.stack([grey] * 3, -1)
    if suffix == "npy":
        np.save(path, colour)
    else:
        Image.fromarray(colour).save(path)
    with pytest.warns(UserWarning, match=f"scan.{suffix}: its three channels are equal, so it is taken for grey"):
        got = load_image(path)
    assert got.shape == (1, 1, 9, 8)
    kept = load_image(path, as_grey=False)
    assert kept.shape == (1, 3, 9, 8)
    assert torch.equal(kept[:, :1], got)


def test_one_value_that_differs_makes_a_colour_image(tmp_path, recwarn):
    colour = np.stack([random((5, 6))] * 3, -1)
    colour[2, 3, 1] ^= 1
    Image.fromarray(colour).save(tmp_path / "x.png")
    assert load_image(tmp_path / "x.png").shape == (1, 3, 5, 6)
    assert not recwarn
