"""The noise level of an image, as it tells it itself."""

from torch import Tensor

import operators
from invdiff.evaluation.consistency import WHITE

FLOOR = 0.015


def noise_level(y: Tensor, inverts: bool = True) -> float:
    """`operators.estimate_sigma` of y (1, C, H, W), and where the noise has lost its finest detail, FLOOR at least.

    JPEG takes detail of photograph and noise alike, and what it leaves in flat areas tells neither: of blur 2, noise 0.02 and
    0.005, and JPEG of quality 60 and 90 the estimate was 0.0008 to 0.006, of which deblurring made 8 to 24 dB, and of any level
    from 0.01 to 0.03 21 to 34. Of 0.015, at most 0.7 dB less than of the best. inverts: is an operator to be inverted? Else too
    small a number does no harm, and the floor would smooth what has so much texture that no noise shows: of noise 0.005 and
    without a blur 18 % of photographs, with one none.
    Raises ValueError as `operators.estimate_sigma` does.
    """
    estimate = float(operators.estimate_sigma(y))
    return max(estimate, FLOOR) if inverts and float(operators.noise_whiteness(y)) < WHITE else estimate
