"""The probability flow with steps as long as the error allows, for each chain apart: what is drawn beside it never matters.

`sigmas` gives the first level and the last positive one, between which the steps are chosen, and a last step to zero. As for
any integrator there is a step to yield for each interval: once no chain is above its level, with the denoiser calls so far
in `info`. A chain at the end waits for the slowest of the batch, and its calls are counted like the others.
"""

import math
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from invdiff.diffusion.ode import dpm_solver
from invdiff.diffusion.sdes import UNIT
from invdiff.diffusion.stepping import Denoise, DrawNoise, Integrator, Step

FIRST = 0.05            # step in lambda = -log sigma
SHORTEST = 1e-3         # is taken whatever its error: rounding may leave no better
SAFETY, LEAST, MOST = 0.9, 0.2, 5.0

# (x, sigma, after, memory) to (x at after, its error in units of the tolerance, x0, memory for the next), with levels
# (B, 1, 1, 1) and memory a tensor like x
Attempt = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]

# Dormand & Prince 1980, Table 2: rows of a, of which the last are the weights of order 5; and those less the ones of order 4
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = ((1 / 5,), (3 / 40, 9 / 40), (44 / 45, -56 / 15, 32 / 9),
          (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
          (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
          (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84))
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class RK45(Integrator):
    """Dormand & Prince's pair of orders 5 and 4 (1980), of dx / dsigma; as Song et al. 2021b, Sec. 4.3. Six calls a step.

    rtol, atol: an error of a step is one, root mean square over the values, if it is atol + rtol |x|.
    """

    adaptive: ClassVar[bool] = True
    rtol: PositiveFloat = 1e-3
    atol: PositiveFloat = 1e-3

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        counted = _Counted(denoise)

        def attempt(x: Tensor, sigma: Tensor, after: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            length, slopes, ahead = after - sigma, [slope], x
            for node, row in zip(NODES, STAGES, strict=True):
                level = sigma + node * length
                ahead = x + length * _weighted(row, slopes)
                x0 = counted(ahead, level)
                slopes.append((ahead - x0) / level)
            error = length * _weighted(ERROR, slopes) / (self.atol + self.rtol * torch.maximum(x.abs(), ahead.abs()))
            return ahead, error, x0, slopes[-1]

        first = float(sigmas[0])
        level = torch.full((len(x), *[1] * (x.ndim - 1)), first).to(x)
        yield from _controlled(attempt, counted, sigmas, x, lambda: (x - counted(x, level)) / first, order=5)


class DPMSolverAdaptive(Integrator):
    """DPM-Solver-12 and -23, an order controlled by the one below (Lu et al. 2022a, Appendix C), as many calls a step.

    rtol, atol: a step's error is one, root mean square over the values, if it is max(atol, rtol max(|x|, |x before|)), both of
    the lower order, and all in their variance-preserving frame, where noise shrinks x to the size of images: in ours what came
    before would allow any error. atol is theirs, 0.0078, in image units.
    """

    adaptive: ClassVar[bool] = True
    order: Literal[2, 3] = 3
    rtol: PositiveFloat = 0.05
    atol: PositiveFloat = 0.0039

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        counted = _Counted(denoise)

        def attempt(x: Tensor, sigma: Tensor, after: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            x0 = counted(x, sigma)
            *_, low, high = dpm_solver(counted, x, x0, sigma, after, self.order)
            preserving = (1 + (after / UNIT) ** 2).rsqrt()
            low, error = preserving * low, preserving * (high - low)
            return high, error / (self.rtol * torch.maximum(low.abs(), before.abs())).clamp_min(self.atol), x0, low

        first = float(sigmas[0])
        yield from _controlled(attempt, counted, sigmas, x, lambda: x / math.hypot(1, first / UNIT), order=self.order)


class _Counted:
    """A denoiser for levels (B, 1, 1, 1), that counts its calls. It is given a float where there is but one chain."""

    def __init__(self, denoise: Denoise):
        self.denoise, self.calls = denoise, 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self.denoise(x, float(sigma) if len(x) == 1 else sigma.flatten())


def _controlled(attempt: Attempt, counted: _Counted, sigmas: Tensor, x: Tensor, begin: Callable[[], Tensor],
                order: int) -> Iterator[Step]:
    """Steps by an attempt, whose error is of the order `order` in the step: done again where it exceeds one.

    begin: the memory of the first attempt.
    """
    levels = sigmas.tolist()
    end = min(level for level in levels if level > 0)
    now = torch.full((len(x),), levels[0], dtype=torch.float64)        # on the CPU, of each chain
    length = torch.full_like(now, FIRST)
    x0, passed, memory = x, 1, begin() if end < levels[0] else x
    while bool((live := now > end).any()):
        after = torch.where(live, (now * (-length).exp()).clamp_min(end), 0.99 * end)      # a chain that has ended makes none
        ahead, error, estimate, kept = attempt(x, _like(now, x), _like(after, x), memory)
        # not a number: no step would help
        size = error.float().square().flatten(1).mean(1).sqrt().cpu().nan_to_num(0.0, posinf=torch.inf)
        good = live & ((size <= 1) | (length <= SHORTEST))
        where = _like(good, x, torch.bool)
        x, x0, memory = torch.where(where, ahead, x), torch.where(where, estimate, x0), torch.where(where, kept, memory)
        now = torch.where(good, after, now)
        length = (length * (SAFETY * size ** (-1 / order)).clamp(LEAST, MOST)).clamp_min(SHORTEST)
        while passed < len(levels) and levels[passed] > 0 and levels[passed] >= float(now.max()):
            yield Step(levels[passed], x, x0, {"calls": counted.calls})
            passed += 1
    if levels[-1] == 0:
        x0 = counted(x, _like(now, x))
        yield Step(0.0, x0, x0, {"calls": counted.calls})


def _like(values: Tensor, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(B,) for x's chains, (B, 1, ..., 1), of x's type."""
    return values.to(x.device, dtype or x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def _weighted(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """The sum of weights times as many slopes."""
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total + weight * slope
    return total
