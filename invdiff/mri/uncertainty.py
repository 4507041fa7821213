"""What the samples of a slice say of its magnitude: the best guess, how far off it may be, and an interval."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import t as student
from torch import Tensor

from operators import mri

LEVEL = 0.9             # of the interval
POOL = 2.0              # pixels: a handful of samples says little of the variance at one pixel, its neighbours help


def magnitudes(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Of complex samples (S, 2 M, h, w): the magnitude of their mean, and the standard deviation of their magnitudes, (h, w).

    The variance is pooled over a Gaussian window of POOL pixels; it is zero for a single sample.
    """
    spread = mri.combine_sets(samples)[:, 0]
    mean = mri.combine_sets(samples.mean(0, keepdim=True))[0, 0]
    if len(samples) == 1:
        return mean, torch.zeros_like(mean)
    variance = spread.var(0, correction=1).numpy()
    return mean, torch.from_numpy(np.sqrt(gaussian_filter(variance, POOL))).to(mean)


def interval_of(card: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """The factor on the standard deviation that makes an interval of LEVEL, and where it comes from.

    The prior's card has the one that covered LEVEL of the pixels of held-back images (split conformal prediction, Vovk et al.
    2005); it is made wider for fewer samples than it was measured with. Without one it is what Gaussian errors would need.
    """
    if samples < 2:
        return {"level": LEVEL, "factor": 0.0, "source": "a single sample has none"}
    known = card.get("interval")
    if not known:
        source = "Student's t, not calibrated; too narrow where a prior errs"
        return {"level": LEVEL, "factor": _student(samples), "source": source}
    fewer = max(_student(samples) / _student(known.get("samples", 8)), 1.0)
    return {"level": known["level"], "factor": known["factor"] * fewer, "source": known["source"]}


def _student(samples: int) -> float:
    """The factor for Gaussian errors, on the standard deviation of so many samples."""
    return float(student.ppf(0.5 + LEVEL / 2, samples - 1)) * (1 + 1 / samples) ** 0.5


def bounds(magnitude: Tensor, deviation: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """The interval's ends, (h, w), around what `magnitudes` gave."""
    return (magnitude - factor * deviation).clamp_min(0), magnitude + factor * deviation
