"""Colours of files with a profile, as sRGB: what priors have seen, and what a PNG without a profile is shown in."""

import io
from typing import Any

import numpy as np


def in_srgb(image: Any) -> Any:
    """A Pillow image of 8 bits in colour with its colours in sRGB, where its ICC profile says that they are in another space;
    others, such as grey ones, and one whose profile is damaged or not for such an image, as it is."""
    profile = image.info.get("icc_profile")
    if profile and image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK") or _is_grey(image):
        return image
    from PIL import ImageCms

    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return image
        mode = "RGB" if image.mode == "CMYK" else image.mode
        return ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def _is_grey(image: Any) -> bool:
    """Are red, green and blue the same? Rounded after a conversion, they would differ by a level here and there."""
    pixels = np.asarray(image)
    return image.mode != "CMYK" and bool((pixels[..., 1:3] == pixels[..., :1]).all())
