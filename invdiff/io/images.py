"""Images: files in, float tensors in [0, 1] inside, 8-bit PNG out."""

import warnings
from pathlib import Path

import numpy as np
import torch

from invdiff.errors import InputError
from invdiff.io.decode import numbers, read_array
from invdiff.io.files import replacing

MAX_PIXELS = 8192 * 8192
SAMPLES = ("chelsea", "astronaut", "coffee", "rocket")    # photos in scikit-image's wheel: no download


def load_image(path: str | Path, *, max_pixels: int = MAX_PIXELS, unit_range: bool = True,
               background: float = 1.0, as_grey: bool = True) -> torch.Tensor:
    """Reads an image as float32 (1, C, H, W), C = 1 for grey and 3 for RGB.

    Takes PNG, JPEG, TIFF, WebP, BMP and .npy, with 8 or 16 bits, told by content. Integers are divided by the largest value of
    their type, so that white is 1, or kept as counts with `unit_range=False`. Floats (.npy, TIFF) are taken as they are: a
    measurement may leave [0, 1]. 32-bit integers and wider are refused, as their white level is anybody's guess. Transparent
    pixels are laid over `background`, 1 for white and 0 for black, EXIF orientation is applied, and so are the colour profiles
    of 8 bits: what comes back is sRGB. RGB whose three channels are equal is taken for grey, with a warning, unless `as_grey`
    is False: its noise is one, and not three that differ, which a prior of colour images would have it for.

    Raises InputError for a file that is missing, damaged or no image, that has several pages or more than `max_pixels`
    pixels (seen in the header, before anything is decoded), or that holds NaN or infinite values.
    """
    values = opaque(read_array(Path(path), max_pixels), str(path), unit_range, background)
    if as_grey and values.shape[2] == 3 and bool((values[..., 1:] == values[..., :1]).all()):
        warnings.warn(f"{path}: its three channels are equal, so it is taken for grey, and so are the results",
                      stacklevel=2)
        values = values[..., :1]
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))[None])


def opaque(array: np.ndarray, name: str, unit_range: bool = True, background: float = 1.0) -> np.ndarray:
    """Pixels as `read_array` gives them as float32 (H, W, 1 or 3); see `load_image`, also for what InputError is raised."""
    white = _white_level(name, array.dtype)
    if array.ndim == 2:
        array = array[..., None]
    with np.errstate(over="ignore"):    # too large for float32 becomes inf, which is refused below
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: holds {(~np.isfinite(values)).sum()} NaN or infinite values; replace or mask them")
    if unit_range:
        values, white = values / np.float32(white), 1.0
    if values.shape[2] in (2, 4):
        colour, alpha = values[..., :-1], values[..., -1:] / np.float32(white)
        values = colour * alpha + np.float32(background * white) * (1 - alpha)
    return values


def load_array(path: str | Path) -> torch.Tensor:
    """A measurement that is no image, from a .npy file: float32 (1, ...), real, finite. Raises InputError."""
    try:
        array = numbers(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a .npy array of numbers ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise InputError(f"{path}: expected a .npy array of real floating-point numbers, got "
                         f"{getattr(array, 'dtype', 'an archive')}")
    values = torch.from_numpy(array.astype(np.float32))[None]
    if not values.isfinite().all():
        raise InputError(f"{path}: holds {int((~values.isfinite()).sum())} NaN or infinite values; replace or mask them")
    return values


def _white_level(name: str, dtype: np.dtype) -> float:
    if dtype.kind in "fb":
        return 1.0
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        return float(np.iinfo(dtype).max)
    raise InputError(
        f"{name}: expected 8- or 16-bit integers or floats, got {dtype}; divide by the white level and save as float32"
    )


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """(C, H, W) or (1, C, H, W), C in {1, 3}, white = 1 -> uint8 (H, W) or (H, W, 3), clipped and rounded to nearest.

    Raises ValueError for any other shape and for NaN.
    """
    image = x[0] if x.ndim == 4 and len(x) == 1 else x
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ValueError(f"x: expected (C, H, W) or (1, C, H, W) with C = 1 or 3, got {tuple(x.shape)}")
    image = image.detach().float().cpu()
    if image.isnan().any():
        raise ValueError(f"x: {int(image.isnan().sum())} of its values are NaN; an image has none")
    pixels = image.clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy()


def save_image(path: str | Path, x: torch.Tensor) -> None:
    """Writes (C, H, W) or (1, C, H, W), white = 1, as an 8-bit PNG; the file is complete or absent.

    Raises ValueError as `to_uint8` does, OSError where the file cannot be written.
    """
    from PIL import Image

    image = Image.fromarray(to_uint8(x))
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


def sample_image(name: str = "astronaut", size: int = 256) -> torch.Tensor:
    """A photo that comes with scikit-image, cropped to its central square and downscaled: (1, 3, size, size) in [0, 1].

    Raises InputError for a name that is not in SAMPLES.
    """
    from PIL import Image, ImageOps
    from skimage import data

    if name not in SAMPLES:
        raise InputError(f"sample image: expected one of {', '.join(SAMPLES)}, got {name!r}")
    photo = Image.fromarray(getattr(data, name)())
    photo = ImageOps.fit(photo, (size, size), Image.Resampling.LANCZOS)    # Pillow's filters widen as they downscale
    return torch.from_numpy(np.array(photo, dtype=np.float32) / 255).permute(2, 0, 1)[None].contiguous()
