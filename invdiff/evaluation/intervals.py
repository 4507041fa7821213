"""Intervals around a restoration that cover what they say: the samples' spread, calibrated on images that are known.

An interval is the mean of the samples, plus and minus a factor times their spread. The factor covers the wanted share of the
pixels of calibration images on the average (split conformal prediction, Vovk et al. 2005), or, with `delta`, such that the
expected share on a fresh image is at least that with probability 1 - delta over the calibration set (risk-controlling
prediction sets, Bates et al. 2021; image-to-image regression, Angelopoulos et al. 2022).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from scipy.stats import binom
from scipy.stats import t as student
from torch import Tensor

from invdiff.diffusion.randomness import sample_variance

LEVEL = 0.9             # of the interval
POOL = 1.0              # pixels: a handful of samples says little of the variance at one pixel, its neighbours help
FEW = 8                 # samples; of fewer, Student's t of a spread that is pooled covers more than it says
FLOOR = 1e-4            # of image units, the least spread: no interval is a point
UNEXPLAINED = "not to be relied on, as the residual is not what noise alone would leave"


def centre_and_spread(samples: Tensor, pool: float = POOL) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C, H, W) of samples (S, C, H, W), S > 1; the variance is pooled over a Gaussian window of
    `pool` pixels."""
    variance = sample_variance(samples.double(), 0).cpu().numpy()
    smooth = gaussian_filter(variance, (0, pool, pool)) if pool else variance
    return samples.mean(0), torch.from_numpy(np.maximum(np.sqrt(smooth), FLOOR)).to(samples)


def ends(centre: Tensor, spread: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """The interval's lower and upper end, of the shape of both."""
    return centre - factor * spread, centre + factor * spread


def bounds_of(samples: Tensor, interval: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The ends (C, H, W) of the interval at each pixel, of samples (S, C, H, W), S > 1; its mean half-width is added to its
    entry in the report."""
    centre, spread = centre_and_spread(samples)
    interval["half_width"] = interval["factor"] * float(spread.mean())
    return ends(centre, spread, interval["factor"])


def words_of(interval: dict[str, Any]) -> list[str]:
    """A sentence of an interval's entry, if there is one."""
    if not interval.get("factor"):
        return []
    width = f", ±{interval['half_width']:.3f} on average" if "half_width" in interval else ""
    return [f"The {interval['level']:.0%} interval is the mean ±{interval['factor']:.2f} std, pooled over neighbouring pixels"
            f"{width} ({interval['source']})."]


def conformal_factor(ratios: Sequence[np.ndarray], level: float = LEVEL, delta: float | None = None) -> float:
    """The least factor that covers `level` of the pixels.

    Args:
        ratios: |error| / spread at the pixels of each calibration image; every image counts as much as another.
        level: in (0, 1).
        delta: None: the images' mean coverage is `level`; a fresh image's expected one then falls short of it by 1 / (n + 1) at
            most. Else in (0, 1): the expected coverage is at least `level` with probability 1 - delta over the n images, by
            the Hoeffding-Bentkus bound (Bates et al. 2021, Sec. 3.1), which wants log(1 / delta) / -log(level) images.

    Raises:
        ValueError: no images, or one without finite ratios, numbers out of range, or too few images for the bound.
    """
    if any(np.size(r) == 0 or not np.isfinite(r).all() for r in ratios):
        raise ValueError("ratios: expected finite numbers for each image")
    if not len(ratios) or not 0 < level < 1 or (delta is not None and not 0 < delta < 1):
        raise ValueError(f"expected images, a level and a delta in (0, 1), got {len(ratios)}, {level} and {delta}")
    risk = 1 - level if delta is None else _affordable_risk(len(ratios), 1 - level, delta)
    values = np.concatenate([np.asarray(r, float).ravel() for r in ratios])
    weights = np.concatenate([np.full(np.size(r), 1 / (np.size(r) * len(ratios))) for r in ratios])
    order = np.argsort(values)
    beyond = 1 - np.cumsum(weights[order])                       # the images' mean share of pixels above each value
    return float(values[order][int(np.argmax(beyond <= risk + 1e-12))])


def _affordable_risk(count: int, risk: float, delta: float) -> float:
    """The largest mean risk of `count` images that leaves the true one below `risk` with probability 1 - delta."""
    def excess(seen: float) -> float:
        return hoeffding_bentkus(seen, count, risk) - delta

    if excess(0.0) > 0:
        least = int(np.ceil(np.log(1 / delta) / -np.log1p(-risk)))
        raise ValueError(f"expected at least {least} images for a guarantee of {1 - delta:g}, got {count}")
    return float(brentq(excess, 0.0, risk, xtol=1e-9)) - 1e-9 if excess(risk) > 0 else risk


def hoeffding_bentkus(seen: float, count: int, risk: float) -> float:
    """A p-value for "the expected risk is more than `risk`", from a mean of `count` risks in [0, 1] (Bates et al. 2021, Eq. 9
    and 10), continuous in `seen` between the binomial's steps."""
    if seen >= risk:
        return 1.0
    divergence = seen * np.log(max(seen, 1e-300) / risk) + (1 - seen) * np.log((1 - seen) / (1 - risk))
    return float(min(np.exp(-count * divergence), np.e * binom.cdf(np.ceil(count * seen), count, risk)))


def coverage(ratios: Sequence[np.ndarray], factor: float) -> list[float]:
    """The share of pixels inside the interval, image by image."""
    return [float((np.asarray(r) <= factor).mean()) for r in ratios]


def coverage_curve(ratios: Sequence[np.ndarray], samples: int, levels: Sequence[float],
                   antithetic: bool = False) -> list[float]:
    """What intervals of these levels cover in the mean without calibration, by Student's t: of Gaussian errors with the
    samples' spread, the level. Below it, the samples are too sure of themselves. ratios: as above, but of spreads that are not
    pooled, which would have more degrees of freedom."""
    factor = paired_factor if antithetic else gaussian_factor
    return [float(np.mean(coverage(ratios, factor(samples, level)))) for level in levels]


def gaussian_factor(samples: int, level: float = LEVEL) -> float:
    """The factor for Gaussian errors, on the standard deviation of so many samples around their mean: Student's t."""
    return float(student.ppf(0.5 + level / 2, samples - 1)) * (1 + 1 / samples) ** 0.5


def paired_factor(samples: int, level: float = LEVEL) -> float:
    """The same for antithetic pairs around a mean that they all share, as those of a Gaussian posterior do: Student's t by
    pairs. One pair's standard deviation, around its own mean, is sqrt(2) too large; an odd number counts as independent."""
    if samples % 2:
        return gaussian_factor(samples, level)
    return float(student.ppf(0.5 + level / 2, samples // 2)) / (2 if samples == 2 else 1) ** 0.5


def for_samples(factor: float, measured_with: int, samples: int, antithetic: bool = False) -> float:
    """A factor measured with so many samples, for others, both in antithetic pairs or neither: wider for fewer, and never
    narrower, in units of a spread without bias."""
    expected = paired_factor if antithetic else gaussian_factor
    biases = [_excess(count) if antithetic else 1.0 for count in (measured_with, samples)]
    wider = expected(samples) * biases[1] / (expected(measured_with) * biases[0])
    return factor * (biases[0] / biases[1] * max(wider, 1.0))


def _excess(samples: int) -> float:
    """By how much the standard deviation of antithetic samples is too large, see `sample_variance`."""
    return (samples / (samples - 1)) ** 0.5 if samples == 2 or samples % 2 else 1.0


def uncalibrated(samples: int, antithetic: bool = False, assumed: str = "") -> dict[str, Any]:
    """The interval's entry in a report without a calibration. Of few exact samples it covers more than it says, as the spread
    that it multiplies is pooled: of eight up to 94 %, in pairs 96 %, of two pairs 99 %. assumed: what is taken for known of a
    measurement, as in "the noise is", and makes it too narrow where that is not so."""
    if samples < 2:
        return {"level": LEVEL, "factor": 0.0, "calibrated": False, "source": "a single sample has none"}
    factor = paired_factor if antithetic else gaussian_factor
    wide = "too wide for so few samples, " if samples < FEW else ""
    return {"level": LEVEL, "factor": factor(samples), "calibrated": False,
            "source": f"Student's t, not calibrated; {wide}too narrow where a prior errs"
                      + (f", or {assumed} not as assumed" if assumed else "")}


def unexplained(interval: dict[str, Any]) -> dict[str, Any]:
    """The entry where the residual tells that operator or noise are others than was assumed, and so is what an interval covers:
    of four photographs whose blur was taken for twice as wide, 55 to 82 % in place of 88 to 98 %."""
    if not interval["factor"]:
        return interval
    promised = "images" in interval             # by a record, which then has nothing to say
    return {**interval, "calibrated": False, "source": UNEXPLAINED if promised else f"{interval['source']}; {UNEXPLAINED}"}
