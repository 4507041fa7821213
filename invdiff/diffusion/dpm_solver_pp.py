"""DPM-Solver++: the linear part of the flow solved exactly, and the clean estimate D extrapolated in lambda = -log sigma.

    x' = (after / sigma) x + integral of exp(lambda - lambda') D dlambda       (Lu et al. 2022b, Prop. 4.1, in this frame)
"""

import math
from collections.abc import Iterator
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from invdiff.diffusion.stepping import Denoise, DrawNoise, Integrator, Step, towards


class DPMSolverPP(Integrator):
    """DPM-Solver++(2M): second order from one call a step, by reusing the last one (Lu et al. 2022b, Algorithm 2).

    eta = 1 is the SDE version, SDE-DPM-Solver++(2M) (ibid., Eq. 19); between, part of the noise is drawn anew as in DDIM.
    Above, Langevin dynamics are run on the way, which mend what a wrong score at higher levels did, in more steps.
    """

    eta: float = Field(0.0, ge=0, le=100)

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        levels = sigmas.log().neg().tolist()       # half the log-SNR
        before: Tensor | None = None
        for i, (sigma, after) in enumerate(pairwise(sigmas.tolist())):
            x0 = denoise(x, sigma)
            ahead = x0
            if before is not None and after > 0:
                ratio = (levels[i] - levels[i - 1]) / (levels[i + 1] - levels[i])
                ahead = x0 + (x0 - before) / (2 * ratio)
            x = towards(ahead, x, sigma, after, self.eta, noise)
            before = x0
            yield Step(after, x, x0)


class DPMSolverPP2S(Integrator):
    """DPM-Solver++(2S): second order from D half way in lambda, two calls a step (Lu et al. 2022b, Algorithm 1)."""

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            x = _single(denoise, x, x0, sigma, after)
            yield Step(after, x, x0)

    @property
    def calls_per_step(self) -> int:
        return 2


class DPMSolverPP3M(Integrator):
    """DPM-Solver++(3M): third order from one call a step, by the parabola through the last three estimates.

    In Prop. 4.1 of Lu et al. 2022b, and integrated exactly. A first step like 2S, of two calls, and a second like 2M keep the
    order, which a first one of Euler's would bring down to two.
    """

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        past: list[tuple[Tensor, float]] = []              # up to two estimates before this one, and their levels
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            estimates = [(x0, sigma), *past]
            x = _multistep(estimates, x, after) if past and after > 0 else _single(denoise, x, x0, sigma, after)
            past = estimates[:2]
            yield Step(after, x, x0)


def _single(denoise: Denoise, x: Tensor, x0: Tensor, sigma: float, after: float) -> Tensor:
    """A step with the estimate half way, or to zero."""
    if after == 0:
        return x0
    middle = (sigma * after) ** 0.5
    x0 = denoise(x0 + middle / sigma * (x - x0), middle)
    return x0 + after / sigma * (x - x0)


def _multistep(estimates: list[tuple[Tensor, float]], x: Tensor, after: float) -> Tensor:
    """A step with the polynomial through two or three estimates, the last one first, integrated in closed form."""
    (x0, sigma), (before, level), *rest = estimates
    h, back = math.log(sigma / after), math.log(level / sigma)
    rise = (x0 - before) / back
    gain = math.expm1(-h)
    x = x0 + after / sigma * (x - x0)
    if not rest:
        return x + rise * (h + gain)                                # of t, the time in lambda since sigma, times exp(t - h)
    older, oldest = rest[0]
    further = math.log(oldest / level)
    bend = (rise - (before - older) / further) / (back + further)
    return x + (rise + back * bend) * (h + gain) + bend * (h**2 - 2 * (h + gain))      # D = x0 + rise t + bend t (t + back)
