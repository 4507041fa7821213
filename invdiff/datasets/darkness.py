"""Whether images are nearly black, as those of a camera's 12 bits in files of 16 are."""

from collections.abc import Sequence

import numpy as np

from invdiff.datasets.images import in_unit_range

DARK = 1 / 8            # of white: any photograph, and any scan that is scaled, has brighter pixels
_LOOKED_AT = 64         # images


def brightest(images: Sequence[np.ndarray] | np.ndarray, enough: float = np.inf) -> float:
    """The largest value, in [0, 1], of up to 64 images, spread over all of them; the first that reaches `enough` is the last
    that is looked at. images: uint8, or float32 in [0, 1], of any shape, or complex ones, whose magnitudes count."""
    largest = 0.0
    for i in np.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).astype(int).tolist():
        largest = max(largest, float(in_unit_range(np.abs(images[i])).max()))
        if largest >= enough:
            break
    return largest


def said_if_dark(images: Sequence[np.ndarray] | np.ndarray) -> str:
    """What is to be said of images to train on whose brightest value is below `DARK`; "" of others."""
    found = brightest(images, DARK)
    if found >= DARK:
        return ""
    seen = f" of {_LOOKED_AT} of the images" if len(images) > _LOOKED_AT else ""
    factor = f", here by a factor of {1 / found:.3g}" if found else ""
    return (f"data: the brightest value{seen} is {found:.3g}, and white is 1: what is trained on them knows nearly black "
            f"images; scale them, so that white is about 1{factor}, and what is to be restored alike")
