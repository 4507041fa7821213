"""The probability flow dx / dsigma = (x - D) / sigma by one-step methods at given levels."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from invdiff.diffusion.stepping import Denoise, DrawNoise, Integrator, Step


class Heun(Integrator):
    """Second-order Heun steps of the probability-flow ODE, two denoiser calls each (Karras et al. 2022, Algorithm 1)."""

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x, x0 = heun(denoise, x, sigma, after)
            yield Step(after, x, x0)

    @property
    def calls_per_step(self) -> int:
        return 2


class DPMSolver(Integrator):
    """DPM-Solver-1, -2 and -3, as many calls a step (Lu et al. 2022a, Eq. 3.7, Algorithms 1 and 2).

    Of the flow d(x) = -eps d(sigma) with eps = (x - D) / sigma, expanded in lambda = -log sigma. The first is Euler's method.
    """

    order: Literal[1, 2, 3] = 3

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            x = dpm_solver(denoise, x, x0, sigma, after, self.order if after > 0 else 1)[-1]
            yield Step(after, x, x0)

    @property
    def calls_per_step(self) -> int:
        return self.order


def heun(denoise: Denoise, x: Tensor, sigma: float, after: float) -> tuple[Tensor, Tensor]:
    """A Heun step, of Euler's to zero: the state and the last clean estimate."""
    x0 = denoise(x, sigma)
    slope = (x - x0) / sigma
    ahead = x + (after - sigma) * slope
    if after > 0:
        x0 = denoise(ahead, after)
        ahead = x + (after - sigma) / 2 * (slope + (ahead - x0) / after)
    return ahead, x0


def dpm_solver(denoise: Denoise, x: Tensor, x0: Tensor, sigma: Any, after: Any, order: int) -> list[Tensor]:
    """DPM-Solver steps from sigma to after, with x0 = D(x, sigma), up to an order: the results of each order that the calls
    made also give. Levels are floats, or (B, 1, 1, 1) for a step of its own for each chain.

    2: the intermediate level is half way in lambda. 3: at one and two thirds, and the second order is with that at a third.
    """
    eps = (x - x0) / sigma
    first = x + (after - sigma) * eps
    if order == 1:
        return [first]
    r = 1 / order
    h = _log(sigma / after)
    middle = sigma ** (1 - r) * after**r
    change = _eps(denoise, x + (middle - sigma) * eps, middle) - eps
    second = first - (sigma - after) / (2 * r) * change
    if order == 2:
        return [first, second]
    late = sigma ** (1 - 2 * r) * after ** (2 * r)
    ahead = x + (late - sigma) * eps - 2 * ((sigma - late) / (2 * r * h) - late) * change
    change = _eps(denoise, ahead, late) - eps
    return [first, second, first - ((sigma - after) / h - after) / (2 * r) * change]


def _eps(denoise: Denoise, x: Tensor, sigma: Any) -> Tensor:
    return (x - denoise(x, sigma)) / sigma


def _log(ratio: Any) -> Any:
    return torch.log(ratio) if isinstance(ratio, Tensor) else math.log(ratio)
