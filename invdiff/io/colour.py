"""Colours of files with a profile, as sRGB: what priors have seen, and what a PNG without a profile is shown in."""

import io
from typing import Any


def in_srgb(image: Any) -> Any:
    """A Pillow image of 8 bits, RGB with or without alpha, or CMYK, with its colours in sRGB where its ICC profile says that
    they are in another space; others, and one whose profile is damaged or not for such an image, as it is."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
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
