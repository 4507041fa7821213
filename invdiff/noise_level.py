"""The noise level of an image, as it tells it itself."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

import operators
from invdiff.evaluation.consistency import WHITE
from invdiff.io.jpeg import jpeg_luminance, jpeg_steps

FLOOR = 0.015
SMALL = 100             # pixels, under which it is uncertain
FARTHER = 1.5           # how much more a JPEG's coefficients tell than its pixels where it is JPEG that thinned the noise
IN_LUMINANCE = (0.299**2 + 0.587**2 + 0.114**2) ** 0.5      # of the level of noise that is white in R, G and B
COLOURED = ("In flat areas the finest detail is {:.2f} of coarser, as white noise is not: after JPEG, enlarging or demosaicing "
            "an estimate of the noise is too small; give a number, about as large as the noise there looks.")


class NoiseLevel(NamedTuple):
    """An estimate. sigma: standard deviation, white = 1. whiteness: `operators.noise_whiteness`. before_jpeg: is it that of
    white noise before JPEG took a part of it? side: of the image, the shorter."""

    sigma: float
    whiteness: float
    before_jpeg: bool
    side: int

    @property
    def guess(self) -> bool:
        """Has the noise lost its finest detail, and nothing tells how much of it?"""
        return self.whiteness < WHITE and not self.before_jpeg

    def report(self) -> dict[str, Any]:
        """The entry of a report."""
        words = f"Noise level estimated from the image: {self.sigma:.2g}"
        if self.sigma == FLOOR:
            words += ", the least that is taken of such an image"
        elif self.before_jpeg:
            words += ", of white noise before JPEG took a part of it"
        words += "."
        if self.guess:
            words += " " + COLOURED.format(self.whiteness)
        elif self.side < SMALL:
            words += " Of so small an image that is a guess: texture passes for noise."
        return {"whiteness": self.whiteness, "guess": self.guess, "words": words}


def noise_level(y: Tensor, inverts: bool = True, path: str | None = None) -> NoiseLevel:
    """That of an image y (1, C, H, W), by `operators.estimate_sigma`; of a JPEG, whose file `path` is, by
    `operators.estimate_jpeg_sigma` where that finds more: white noise before it was compressed. Where an operator is to be
    inverted, FLOOR at least of a JPEG, and where else the noise has lost its finest detail.

    JPEG takes detail of photograph and noise alike, and what it leaves in flat areas tells neither: of blur 2, noise 0.02 and
    0.005, and JPEG of quality 60 and 90 the first estimate was 0.0008 to 0.006, of which deblurring made 8 to 24 dB, and of any
    level from 0.01 to 0.03 21 to 34. Of 0.015, at most 0.7 dB less than of the best. Without an operator too small a number
    does no harm, and the floor would smooth what has so much texture that no noise shows: of noise 0.005 and without a blur
    18 % of photographs, with one none. A JPEG that was enlarged, cropped or saved before tells nothing by its last
    coefficients.
    Raises ValueError as `operators.estimate_sigma` does.
    """
    pixels, whiteness = float(operators.estimate_sigma(y)), float(operators.noise_whiteness(y))
    steps = jpeg_steps(path)
    before = _before_jpeg(jpeg_luminance(path), steps, y.shape[1])
    sigma = max(pixels, before)
    if inverts and (steps is not None or whiteness < WHITE):
        sigma = max(sigma, FLOOR)
    return NoiseLevel(sigma, whiteness, before > FARTHER * pixels, min(y.shape[-2:]))


def _before_jpeg(luminance: Tensor | None, steps: Tensor | None, channels: int) -> float:
    """White = 1; 0 of what is no JPEG, or too small or too much clipped to tell."""
    if luminance is None or steps is None:
        return 0.0
    try:
        return operators.estimate_jpeg_sigma(luminance, steps) / 255 / (IN_LUMINANCE if channels == 3 else 1.0)
    except ValueError:
        return 0.0


def jpeg_thins(path: str | None, sigma_y: float) -> bool:
    """Is the file a JPEG whose steps, of the median fine coefficient, are larger than noise of that level in its luminance?
    Then JPEG has taken a part of it, and what is left is smaller, whatever it looks like."""
    steps, order = jpeg_steps(path), torch.arange(8)[:, None] + torch.arange(8)
    return steps is not None and bool(steps[order >= 5].median() > 255 * IN_LUMINANCE * sigma_y)
