"""Integrators of the reverse diffusion. They know a denoiser and noise levels, and nothing of problems.

Each is called with (denoise, sigmas, x, noise): `denoise(x, sigma)` gives E[x0 | x] (or E[x0 | x, y]), `sigmas` falls to
0, x (B, C, H, W) is the state at sigmas[0], and `noise()` draws standard normal noise of x's shape. Each yields one `Step`
for each interval.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
DrawNoise = Callable[[], Tensor]


@dataclass(frozen=True)
class Step:
    """The state after a step: x at noise level sigma, and the clean estimate x0 that led there.

    info: what a sampler has to say besides, plain values by name; those of the last step go into the report.
    """

    sigma: float
    x: Tensor
    x0: Tensor
    info: dict[str, Any] = field(default_factory=dict)


class Integrator(BaseModel):
    """Base of the integrators: a frozen set of parameters, callable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        raise NotImplementedError


class DDIM(Integrator):
    """DDIM; eta = 0 is the probability-flow ODE by Euler steps, eta = 1 is DDPM (Song et al. 2021, Eqs. 12 and 16)."""

    eta: float = Field(0.0, ge=0, le=1)

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            x = _towards(x0, x, sigma, after, self.eta, noise)
            yield Step(after, x, x0)


class Renoise(Integrator):
    """Keep a share 1 - zeta of the noise's variance and draw the rest anew (Zhu et al. 2023, Eq. 14)."""

    zeta: float = Field(0.3, ge=0, le=1)

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            x = x0 + after * (1 - self.zeta) ** 0.5 / sigma * (x - x0)
            if after > 0 and self.zeta > 0:
                x = x + after * self.zeta**0.5 * noise()
            yield Step(after, x, x0)


class Heun(Integrator):
    """Second-order Heun steps of the probability-flow ODE, two denoiser calls each (Karras et al. 2022, Algorithm 1)."""

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            slope = (x - x0) / sigma
            ahead = x + (after - sigma) * slope
            if after > 0:
                x0 = denoise(ahead, after)
                ahead = x + (after - sigma) / 2 * (slope + (ahead - x0) / after)
            x = ahead
            yield Step(after, x, x0)


class DPMSolverPP(Integrator):
    """DPM-Solver++(2M): second order from one call a step, by reusing the last one (Lu et al. 2022, Algorithm 2).

    eta = 1 is the SDE version, SDE-DPM-Solver++(2M) (ibid., Eq. 19); between, part of the noise is drawn anew as in DDIM.
    """

    eta: float = Field(0.0, ge=0, le=1)

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        levels = sigmas.log().neg().tolist()       # half the log-SNR
        before: Tensor | None = None
        for i, (sigma, after) in enumerate(pairwise(sigmas.tolist())):
            x0 = denoise(x, sigma)
            ahead = x0
            if before is not None and after > 0:
                ratio = (levels[i] - levels[i - 1]) / (levels[i + 1] - levels[i])
                ahead = x0 + (x0 - before) / (2 * ratio)
            x = _towards(ahead, x, sigma, after, self.eta, noise)
            before = x0
            yield Step(after, x, x0)


def _towards(x0: Tensor, x: Tensor, sigma: float, after: float, eta: float, noise: DrawNoise) -> Tensor:
    """From sigma to after along the line to x0, with a share of the noise drawn anew (Song et al. 2021, Eq. 16)."""
    fresh = eta**2 * after**2 * (1 - (after / sigma) ** 2)
    x = x0 + ((after**2 - fresh) ** 0.5 / sigma) * (x - x0)
    return x + fresh**0.5 * noise() if fresh > 0 else x
