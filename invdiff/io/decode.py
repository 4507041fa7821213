"""Pixel arrays, (H, W) or (H, W, C) as stored, out of image files; images.py gives them their meaning."""

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from invdiff.errors import InputError
from invdiff.io.colour import in_srgb

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")    # Pillow tries no other decoder
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GIF_MAGIC = (b"GIF87a", b"GIF89a")
_KNOWN = "a PNG, JPEG, TIFF, WebP or BMP image or a .npy array"

Source = Path | bytes       # an image file, or what is in one; each function is told the name that messages call it by


def read_array(path: Path, max_pixels: int) -> np.ndarray:
    """The one image in the file, told by its content and not by its extension: upright, grey or RGB, alpha kept.

    Raises InputError where the file cannot be read, is damaged, is no image, or has more than `max_pixels` pixels.
    """
    head = _head(path)
    if head.startswith(b"\x93NUMPY"):
        return _guarded(str(path), lambda: _npy(path, max_pixels))
    if head.startswith(_GIF_MAGIC):
        raise InputError(f"{path}: is a GIF, and GIFs are not read; convert it to PNG")
    return _guarded(str(path), lambda: _decoded(path, str(path), head, max_pixels))


def decode_bytes(data: bytes, name: str, max_pixels: int) -> np.ndarray:
    """Likewise what is in an image file, which messages call `name`: any format that Pillow knows, an animation's first frame,
    upright as far as the header says. Threads may call it at once."""
    return _guarded(name, lambda: _decoded(data, name, data[:32], max_pixels))


def _guarded(name: str, decode: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        return decode()
    except (InputError, ImportError, MemoryError):
        raise
    except Exception as error:    # on damaged bytes a decoder raises nearly anything
        raise InputError(
            f"{name}: cannot be decoded, it is damaged or incomplete ({_brief(error)}); copy or export it again"
        ) from error


def _decoded(source: Source, name: str, head: bytes, max_pixels: int) -> np.ndarray:
    if head.startswith(_TIFF_MAGIC):
        return _tiff(source, name, max_pixels)
    return _pillow(source, name, max_pixels, deep_png=head.startswith(b"\x89PNG") and head[24:25] == b"\x10")


def _opened(source: Source) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file in it")
        if not path.exists():
            raise InputError(f"{path}: no such file; give {_KNOWN}")
        if not path.is_file():
            raise InputError(f"{path}: is no regular file; give {_KNOWN}")
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file you may read") from error
    if not head:
        raise InputError(f"{path}: is empty; give {_KNOWN}")
    return head


def _brief(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:120] or type(error).__name__


def _check_size(name: str | Path, width: int, height: int, max_pixels: int) -> None:
    if width * height == 0:
        raise InputError(f"{name}: the image is {width} x {height}, it has no pixels; give an image that has some")
    if width * height > max_pixels:
        raise InputError(
            f"{name}: the image is {width} x {height}, over the limit of {max_pixels:,} pixels; crop or downscale it"
        )


def _npy(path: Path, max_pixels: int) -> np.ndarray:
    array = numbers(path, mmap_mode="r")    # mapped: nothing is read before its shape is known
    shape = array.shape[1:] if array.ndim == 4 and array.shape[0] == 1 else array.shape
    if len(shape) == 3 and shape[0] in (1, 3):
        array = array.reshape(shape).transpose(1, 2, 0)
    elif not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))):
        raise InputError(f"{path}: expected an array (H, W), (H, W, 3), (3, H, W) or (1, H, W), got {array.shape}")
    _check_size(path, array.shape[1], array.shape[0], max_pixels)
    return np.array(array)    # a copy, so that the file is not kept open


def numbers(path: str | Path, mmap_mode: Literal["r"] | None = None) -> Any:
    """`np.load` of a .npy file. Raises InputError where it holds Python objects, which are never unpickled."""
    try:
        return np.load(path, mmap_mode, allow_pickle=False)
    except ValueError as error:
        if "object" not in str(error).lower():
            raise
        raise InputError(f"{path}: expected an array of 8- or 16-bit integers or floats, got dtype object; save it as "
                         "float32") from error


def _tiff(source: Source, name: str, max_pixels: int) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(_opened(source)) as tiff:
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and not page.is_reduced]
        if len(pages) != 1:
            raise InputError(f"{name}: holds {len(pages)} pages; save the one you want as a file of its own")
        page = pages[0]
        _check_size(name, page.imagewidth, page.imagelength, max_pixels)
        if page.samplesperpixel > 4 or page.imagedepth > 1:
            raise InputError(f"{name}: expected grey or RGB, got {page.samplesperpixel} channels; save those you want")
        if page.dtype is None or (page.dtype.itemsize == 1 and page.dtype.kind != "i"):
            return _pillow(source, name, max_pixels)    # it knows the 8-bit colour models and more compressions, but no signs
        return _deep_tiff(source, name, page, max_pixels)


def _deep_tiff(source: Source, name: str, page: Any, max_pixels: int) -> np.ndarray:
    """More than 8 bits, or signed ones, or floats."""
    from tifffile import EXTRASAMPLE, PHOTOMETRIC

    colours = PHOTOMETRIC(page.photometric)
    if colours not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB):
        raise InputError(f"{name}: expected grey or RGB, got {colours.name}; convert it to RGB")
    if page.bitspersample != 8 * page.dtype.itemsize:
        raise InputError(f"{name}: expected 8 or 16 bits a sample, got {page.bitspersample}; save it with 16")
    if page.samplesperpixel in (2, 4) and page.extrasamples != (EXTRASAMPLE.UNASSALPHA,):
        raise InputError(f"{name}: its channel {page.samplesperpixel} is no plain alpha; save it without it")
    try:
        array = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        if page.samplesperpixel == 1 and page.dtype.itemsize > 1:
            return _pillow(source, name, max_pixels)
        raise InputError(
            f"{name}: its compression needs imagecodecs for {page.dtype}; pip install imagecodecs, or save it"
            " uncompressed"
        ) from error
    if page.axes.startswith("S"):    # one plane after another
        array = np.moveaxis(array, 0, -1)
    if colours is PHOTOMETRIC.MINISWHITE and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
    return _upright(array, int(page.tags.valueof("Orientation", default=1)))


def _pillow(source: Source, name: str, max_pixels: int, deep_png: bool = False) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        image = _open(source)
    except UnidentifiedImageError as error:
        known = _KNOWN if isinstance(source, Path) else "an image"
        raise InputError(f"{name}: is not {known}, or its first bytes are damaged; convert it to PNG") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(f"{name}: the image has more than {limit:,} pixels; crop or downscale it") from error
    with image:
        _check_size(name, image.width, image.height, max_pixels)
        if isinstance(source, Path):
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format not in ("MPO", "TIFF"):    # MPO: a JPEG and its previews; TIFF: see _tiff
                raise InputError(f"{name}: holds {frames} frames; save the one you want as a file of its own")
            image.load()    # a PNG may say behind its pixels how it lies
        turn = orientation(image)
        if deep_png and image.mode != "I;16":    # Pillow cuts 16-bit colour down to 8 bits
            return _upright(_deep_png(source, image), turn)
        if image.mode == "LAB":
            raise InputError(f"{name}: expected grey or RGB, got LAB; convert it to RGB")
        array = np.asarray(_plain_mode(in_srgb(image)))
        if image.format == "PPM" and image.mode == "I":     # 16 bits, which Pillow makes 32
            array = array.astype(np.uint16)
        return _upright(_with_alpha(array, image) if image.mode == "I;16" else array, turn)


def _open(source: Source) -> Any:
    from PIL import Image

    if isinstance(source, bytes):    # in threads, which share the filter of warnings
        return Image.open(io.BytesIO(source))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)    # _check_size speaks for it
        return Image.open(source, formats=_FORMATS)


def _plain_mode(image):
    if image.mode in ("LA", "RGBA", "I", "F") or image.mode.startswith("I;16"):
        return image
    if image.has_transparency_data:    # a palette's, or one colour that stands for transparent
        return image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _deep_png(source: Source, image) -> np.ndarray:
    """16-bit PNG with colour or alpha. Pillow keeps a sample's first byte; read as little-endian, its second."""
    from PIL import Image

    other: Any = Image.open(_opened(source), formats=("PNG",))
    with other:
        codec, box, offset, layout = other.tile[0]
        grey = layout == "LA;16B"    # stored like 8-bit RGBA: the bytes of L, then those of A
        other.tile = [(codec, box, offset, "RGBA" if grey else layout.replace("16B", "16L"))]
        low = np.asarray(other).astype(np.uint16)
    deep = low[..., ::2] * 256 + low[..., 1::2] if grey else np.asarray(image) * np.uint16(256) + low
    return _with_alpha(deep, image)


def _with_alpha(deep: np.ndarray, image) -> np.ndarray:
    """16-bit pixels with an alpha channel, where a PNG says that one colour stands for transparent."""
    colour = image.info.get("transparency")
    if colour is None:
        return deep
    pixels = deep.reshape(*deep.shape[:2], -1)
    opaque = (pixels != np.array(colour)).any(-1, keepdims=True)
    return np.concatenate([pixels, opaque * np.uint16(65535)], -1)


def orientation(image) -> int:
    """EXIF's, as far as it is still to be undone (1 to 8; 1 is upright) and has been read: of a PNG, what stands behind the
    pixels is once they are loaded. Pillow turns a TIFF itself."""
    from PIL import Image

    if image.format == "TIFF":
        return 1
    try:
        return Image.Image.getexif(image).get(0x0112, 1)    # a PNG's own would decode the pixels to look behind them
    except (SyntaxError, TypeError, ValueError):        # a damaged note beside an image that may be whole
        return 1


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF / TIFF orientation (1 to 8; anything else is taken for 1)."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
