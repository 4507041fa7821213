"""Forward models as a config describes them: functions of the image's size, and of numbers, words and file names."""

from collections.abc import Sequence

from deepinv.physics import Physics

import operators
from invdiff.io.images import load_image


def gaussian_blur(img_size: Sequence[int], sigma: float | tuple[float, float] = 2.0, angle: float = 0.0,
                  boundary: str = "circular") -> Physics:
    if boundary == "circular":      # the only one whose kernel may be wider than the image
        return operators.GaussianBlur(img_size, sigma, angle)
    return operators.blur(img_size, operators.gaussian_kernel(sigma, angle), boundary)


def motion_blur(img_size: Sequence[int], size: int = 21, intensity: float = 0.5, seed: int = 0,
                boundary: str = "circular") -> Physics:
    return operators.blur(img_size, operators.motion_kernel(size, intensity, seed), boundary)


def uniform_blur(img_size: Sequence[int], size: int | tuple[int, int] = 9, boundary: str = "circular") -> Physics:
    return operators.blur(img_size, operators.uniform_kernel(size), boundary)


def defocus_blur(img_size: Sequence[int], radius: float = 3.0, boundary: str = "circular") -> Physics:
    return operators.blur(img_size, operators.disc_kernel(radius), boundary)


def kernel_blur(img_size: Sequence[int], kernel: str, boundary: str = "circular") -> Physics:
    """The kernel is an image, a .npy or .mat array, or FILE.npz:NAME; it is made to sum to one."""
    return operators.blur(img_size, operators.load_kernel(kernel), boundary)


def random_inpainting(img_size: Sequence[int], keep: float = 0.5, seed: int = 0) -> Physics:
    return operators.Inpainting(img_size, operators.random_mask(img_size, keep, seed))


def row_inpainting(img_size: Sequence[int], keep: float = 0.5, seed: int = 0) -> Physics:
    return operators.Inpainting(img_size, operators.row_mask(img_size, keep, seed))


def half_inpainting(img_size: Sequence[int], missing: str = "right") -> Physics:
    return operators.Inpainting(img_size, operators.half_mask(img_size, missing))


def box_inpainting(img_size: Sequence[int], top: int | None = None, left: int | None = None,
                   height: int | None = None, width: int | None = None) -> Physics:
    return operators.Inpainting(img_size, operators.box_mask(img_size, top, left, height, width))


def mask_inpainting(img_size: Sequence[int], mask: str) -> Physics:
    """White pixels of the mask image are measured, black and transparent ones are missing."""
    drawn = load_image(mask, background=0.0, as_grey=False)[0].clamp(0, 1)
    if not (drawn.mean(0) > 0.5).any() and (load_image(mask, as_grey=False)[0].mean(0) > 0.5).any():
        raise ValueError(f"{mask}: expected white where pixels are measured, got black and transparent ones alone; "
                         "lay it over white")
    return operators.Inpainting(img_size, operators.image_mask(drawn))
