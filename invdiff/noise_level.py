"""The noise level of an image, as it tells it itself."""

from torch import Tensor

import operators
from invdiff.evaluation.consistency import WHITE
from invdiff.io.jpeg import jpeg_luminance

FLOOR = 0.015
IN_LUMINANCE = (0.299**2 + 0.587**2 + 0.114**2) ** 0.5      # of the level of noise that is white in R, G and B


def noise_level(y: Tensor, inverts: bool = True, path: str | None = None) -> float:
    """The standard deviation of noise in an image y (1, C, H, W), white = 1: `operators.estimate_sigma`; of a JPEG, whose file
    `path` is, `operators.estimate_jpeg_sigma`, that of white noise before it was compressed. FLOOR at least of a JPEG, and
    where else the noise has lost its finest detail.

    JPEG takes detail of photograph and noise alike, and what it leaves in flat areas tells neither: of blur 2, noise 0.02 and
    0.005, and JPEG of quality 60 and 90 the first estimate was 0.0008 to 0.006, of which deblurring made 8 to 24 dB, and of any
    level from 0.01 to 0.03 21 to 34. Of 0.015, at most 0.7 dB less than of the best. inverts: is an operator to be inverted?
    Else too small a number does no harm, and the floor would smooth what has so much texture that no noise shows: of noise
    0.005 and without a blur 18 % of photographs, with one none.
    Raises ValueError as `operators.estimate_sigma` does.
    """
    found = None if path is None else of_jpeg(path, y.shape[1])
    estimate = float(operators.estimate_sigma(y)) if found is None else found
    compressed = found is not None or (inverts and float(operators.noise_whiteness(y)) < WHITE)
    return max(estimate, FLOOR) if inverts and compressed else estimate


def of_jpeg(path: str, channels: int) -> float | None:
    """The noise level before compression of a JPEG file that is read as an image of so many channels, white = 1; None of other
    files, and of those that are too small or too much clipped to tell."""
    read = jpeg_luminance(path)
    try:
        return None if read is None else operators.estimate_jpeg_sigma(*read) / 255 / (IN_LUMINANCE if channels == 3 else 1.0)
    except ValueError:
        return None
