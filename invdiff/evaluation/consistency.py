"""Does a restoration explain its measurement: is y - A x what noise leaves?

A draw x of the exact posterior has, with y, the joint law that the true image has with y. So y - A x is exactly N(0, sigma_y^2)
and white over what was measured, whatever the prior and the operator, also one that is not linear: a test of a restoration
that needs no truth (Cook, Gelman & Rubin 2006, for simulated data; here y is the real one). The law holds for a *sample*. A
posterior mean takes part of the noise for image, and leaves less.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.problem import Problem

# By the size of what is wrong, not by p-values: with 10^5 measured values a sampler that is off by 1 % has p < 10^-5.
TOO_SMALL, TOO_LARGE = 0.85, 1.15       # levels beyond which a restoration fits the noise, or leaves data unexplained
STRUCTURED = 0.1                        # correlation of neighbours from which a residual is no noise
MISFIT = 0.01                           # of noiseless data: the relative residual that counts as none
EXPLAINED = ("explained", "overfitted")         # verdicts by which operator and noise may be as assumed, or there is less noise
CHANCE = 3.0                            # standard errors that few values may miss these by
WHITE = 0.6     # of `operators.noise_whiteness`, below which an image's noise has lost its finest detail: of 97 % of photos
                # after JPEG of quality 60 to 90, of 6 % of blurred ones of noise 0.002 and none of more, and, by their
                # texture, of 18 % of unblurred ones of noise 0.005


@dataclass(frozen=True)
class Consistency:
    """What a restoration leaves of its measurement.

    Attributes:
        level: root mean square of y - A x over what was measured, in units of sigma_y; without noise, in units of y's own.
        sigma_y: the noise level that was assumed.
        values: measured values, of all B measurements.
        chi2: sum of squares of the residual over sigma_y^2, mean over samples; chi-squared with `values` degrees of freedom
            for a sample of the exact posterior. None without noise.
        p_value: of chi2, two-sided. For several samples, which share y and so are not independent, twice the mean of theirs,
            which is valid however they depend on each other (Vovk & Wang 2020). None without noise.
        whiteness: correlation of residuals one apart, along the last or the last but one axis, whichever is the larger, with
            its `whiteness_error` under white noise. None without noise, and for measurements that are flat vectors.
        finest: of a measurement that is an image, where it was asked for, how much of its noise's finest detail there is, see
            `operators.noise_whiteness`: JPEG and enlarging leave less than half, which is not white, and of another size.
        compressed: is it known that JPEG has taken a part of the noise?
    """

    level: float
    sigma_y: float
    values: int
    chi2: float | None
    p_value: float | None
    whiteness: float | None
    whiteness_error: float | None
    finest: float | None = None
    compressed: bool = False

    @property
    def verdict(self) -> str:
        """"explained", "structured" (the right size, but not white), "unexplained" or "overfitted"."""
        if self.sigma_y == 0:
            return "explained" if self.level <= MISFIT else "unexplained"
        chance = CHANCE / math.sqrt(2 * self.values)            # the level's standard error is 1 / sqrt(2 n)
        if self.level > max(TOO_LARGE, 1 + chance):
            return "unexplained"
        if self.level < min(TOO_SMALL, 1 - chance):
            return "overfitted"
        return "structured" if self.is_structured else "explained"

    @property
    def is_structured(self) -> bool:
        """Whether neighbours correlate, by more than chance."""
        if self.whiteness is None or self.whiteness_error is None:
            return False
        return abs(self.whiteness) > max(STRUCTURED, CHANCE * self.whiteness_error)

    @property
    def is_explained(self) -> bool:
        """Whether its verdict is one of EXPLAINED."""
        return self.verdict in EXPLAINED

    def words(self) -> str:
        """One sentence, or two."""
        lost = self.compressed or (self.finest is not None and self.finest < WHITE)
        if lost and (self.verdict == "overfitted" or (self.is_structured and (self.whiteness or 0) > 0)):
            return self._words_of_coloured()
        if self.sigma_y == 0:
            misfit = f"{100 * self.level:.2g} % of a measurement said to be noiseless"
            return (f"The restoration explains the measurement: it leaves {misfit}." if self.verdict == "explained" else
                    f"The restoration leaves {misfit}: the measurement may have noise, or the operator is another one.")
        level, structure = f"{self.level:.2f}", f"neighbours correlate by {self.whiteness or 0:.2f}"
        if self.verdict == "explained":
            return f"The restoration explains the measurement: the residual is {level} of what noise alone would leave."
        if self.verdict == "overfitted":
            return (f"The restoration fits the noise: the residual is {level} of what noise alone would leave; the noise level "
                    f"may be smaller than {self.sigma_y:.2g}.")
        noise = f"the noise level may be larger than {self.sigma_y:.2g}"
        sharpened = (self.whiteness or 0) < 0       # where noise passed for image; another operator leaves smooth structure
        if self.verdict == "structured":
            cause = (f"{noise}, or the operator slightly another one." if sharpened else
                     "the operator may be slightly another one, or the restoration too smooth.")
            return f"The residual has the size of the noise ({level} of it) but also structure ({structure}): {cause}"
        cause = f"; {noise}, or the operator another one."
        if self.is_structured:
            cause = f", and has structure ({structure})" + (
                cause if sharpened else "; the operator may be another one, or the restoration too smooth.")
        return ("The restoration does not explain the measurement: the residual is "
                f"{level} of what noise alone would leave{cause}")

    def _words_of_coloured(self) -> str:
        """Those of noise whose finest detail is gone: less of it is left than was said, and neighbours are alike."""
        level, sigma_y = f"{self.level:.2f}", f"{self.sigma_y:.2g}"
        if self.verdict == "overfitted":
            return (f"The residual is {level} of what white noise of {sigma_y} would leave, as is to be expected: JPEG or "
                    "enlarging has taken the noise's finest detail. A smaller noise level would make worms of the rest.")
        begins = (f"The residual has the size of the noise ({level} of it) but also" if self.verdict == "structured" else
                  "The restoration does not explain the measurement: the residual is "
                  f"{level} of what noise alone would leave, and has")
        return (f"{begins} structure (neighbours correlate by {self.whiteness or 0:.2f}), as noise has after JPEG or "
                f"enlarging: the noise level may be larger than {sigma_y}, or the operator another one.")


@torch.no_grad()
def consistency(problem: Problem, x: Tensor) -> Consistency:
    """Weigh what restorations leave of the measurement against the noise.

    Args:
        problem: any operator with white Gaussian noise, or none.
        x: posterior samples (B, S, C, H, W), or one for each measurement, (B, C, H, W).

    Raises InputError where x does not fit the problem, or the operator reaches none of y's entries.
    """
    samples = x[:, None] if x.ndim == 4 else x
    if samples.ndim != 5 or len(samples) != len(problem.y) or samples.shape[1] == 0:
        raise InputError(f"x: expected restorations (B, C, H, W) or samples (B, S, C, H, W) of {len(problem.y)} measurements, "
                         f"got {tuple(x.shape)}")
    seen = problem.observed().expand_as(problem.y)
    values = int(seen.sum())
    if values == 0:
        raise InputError(f"y: {type(problem.physics).__name__} reaches none of its entries; expected some that are measured")
    sums, correlations = [], []
    for i in range(samples.shape[1]):
        residual = (problem.y - problem.A(samples[:, i].to(problem.y))).double() * seen
        sums.append(float(residual.square().sum()))
        correlations.append(_neighbours(residual, seen))
    level = math.sqrt(sum(sums) / len(sums) / values)
    if problem.sigma_y == 0:
        size = float((problem.y.double() * seen).square().sum() / values) ** 0.5
        return Consistency(level / size if size else level, 0.0, values, None, None, None, None)
    chi2 = [total / problem.sigma_y**2 for total in sums]
    whiteness, error = _largest(correlations)
    return Consistency(level / problem.sigma_y, problem.sigma_y, values, sum(chi2) / len(chi2), _p_value(chi2, values),
                       whiteness, error)


def _p_value(chi2: list[float], values: int) -> float:
    from scipy.stats import chi2 as law

    each = [2 * min(law.cdf(value, values), law.sf(value, values)) for value in chi2]
    return float(each[0] if len(each) == 1 else min(1.0, 2 * sum(each) / len(each)))


def _neighbours(residual: Tensor, seen: Tensor) -> list[tuple[float, int]]:
    """For each of the last two axes, the correlation of neighbours that are both measured, and how many such pairs there are.

    Not around their mean: a residual that is the same everywhere has structure.
    """
    found = []
    for dim in (-2, -1) if residual.ndim >= 4 else ():
        n = residual.shape[dim] - 1
        a, b = residual.narrow(dim, 0, n), residual.narrow(dim, 1, n)
        both = seen.narrow(dim, 0, n) & seen.narrow(dim, 1, n)
        size = float(((a.square() + b.square()) / 2 * both).sum())
        if size > 0:
            found.append((float((a * b * both).sum()) / size, int(both.sum())))
    return found


def _largest(correlations: list[list[tuple[float, int]]]) -> tuple[float, float] | tuple[None, None]:
    """Means over samples for each axis, and the larger of the axes' with its standard error."""
    axes = [(sum(value for value, _ in axis) / len(axis), 1 / math.sqrt(axis[0][1]))
            for axis in zip(*correlations, strict=True)]
    return max(axes, key=lambda axis: abs(axis[0])) if axes else (None, None)
