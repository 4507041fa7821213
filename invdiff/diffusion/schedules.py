"""Noise schedules in the variance-exploding frame, x = x0 + sigma n, sigma in image units. A schedule is data.

Each is called with (steps, sigma_min, sigma_max) and gives steps + 1 levels: sigma_max, ..., sigma_min, 0.
"""

import math

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat
from torch import Tensor

from invdiff.diffusion.rates import LinearRate, SigmoidRate
from invdiff.diffusion.sdes import UNIT, VP, Flow, even_in_time


class Schedule(BaseModel):
    """Base of the schedules: a frozen set of parameters, callable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __call__(self, steps: int, sigma_min: float, sigma_max: float) -> Tensor:
        """Decreasing levels (steps + 1,), float64, the last one 0. Raises ValueError for an empty or inverted range."""
        if steps < 1 or not 0 < sigma_min <= sigma_max:
            raise ValueError(f"schedule: expected steps >= 1 and 0 < sigma_min <= sigma_max, "
                             f"got {steps}, {sigma_min}, {sigma_max}")
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        return torch.cat([self.levels(ramp, sigma_min, sigma_max), torch.zeros(1, dtype=torch.float64)])

    def levels(self, ramp: Tensor, low: float, high: float) -> Tensor:
        """Levels at `ramp` in [0, 1], from high at 0 to low at 1."""
        raise NotImplementedError


class Karras(Schedule):
    """sigma^(1/rho) falls linearly (Karras et al. 2022, Eq. 5)."""

    rho: PositiveFloat = 7.0

    def levels(self, ramp: Tensor, low: float, high: float) -> Tensor:
        a, b = high ** (1 / self.rho), low ** (1 / self.rho)
        return (a + ramp * (b - a)) ** self.rho


class DDPMLinear(Schedule):
    """beta_t rises linearly from 1e-4 to 0.02 over 1000 steps (Ho et al. 2020); time runs evenly between the ends."""

    def levels(self, ramp: Tensor, low: float, high: float) -> Tensor:
        return even_in_time(VP(rate=LinearRate()), ramp, low, high)


class Cosine(Schedule):
    """alpha_bar = cos^2 of an angle that falls linearly (Nichol & Dhariwal 2021, Eq. 17)."""

    def levels(self, ramp: Tensor, low: float, high: float) -> Tensor:
        a, b = math.atan(high / UNIT), math.atan(low / UNIT)
        return UNIT * torch.tan(a + ramp * (b - a))


class Sigmoid(Schedule):
    """alpha_bar falls along a sigmoid (Jabri et al. 2022; Chen 2023, Algorithm 1); time runs evenly between the ends."""

    start: float = -3.0
    end: float = 3.0
    tau: PositiveFloat = 1.0

    def levels(self, ramp: Tensor, low: float, high: float) -> Tensor:
        return even_in_time(VP(rate=SigmoidRate(start=self.start, end=self.end, tau=self.tau)), ramp, low, high)


class FlowMatching(Schedule):
    """sigma = t / (1 - t) of images in [-1, 1], t evenly spaced (Lipman et al. 2023; Liu et al. 2023)."""

    def levels(self, ramp: Tensor, low: float, high: float) -> Tensor:
        return even_in_time(Flow(), ramp, low, high)


class LogLinear(Schedule):
    """sigma falls geometrically: even in log sigma, as in NCSN (Song & Ermon 2019, Section 4; Song et al. 2021, Eq. 30)."""

    def levels(self, ramp: Tensor, low: float, high: float) -> Tensor:
        return (math.log(high) + ramp * (math.log(low) - math.log(high))).exp()


class Linear(Schedule):
    """sigma falls evenly, EDM's process in time (Karras et al. 2022, Section 3, before rho)."""

    def levels(self, ramp: Tensor, low: float, high: float) -> Tensor:
        return high + ramp * (low - high)


def linear_chain(steps: int = 1000) -> Tensor:
    """alpha_bar (steps,) of DDPM's discrete chain, float64: beta from 1e-4 to 0.02 over 1000 steps, larger by 1000 / steps
    over fewer, at most 0.999 (Ho et al. 2020, Section 4)."""
    beta = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * (1000 / steps)
    return (1 - beta.clamp_max(0.999)).cumprod(0)


def cosine_chain(steps: int = 1000) -> Tensor:
    """alpha_bar (steps,) of the cosine chain, float64, beta at most 0.999 (Nichol & Dhariwal 2021, Eq. 17)."""
    f = ((torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (f[1:] / f[:-1]).clamp_min(0.001).cumprod(0)


def chain_sigmas(alpha_bar: Tensor) -> Tensor:
    """Noise levels of a chain's steps, in image units."""
    return UNIT * ((1 - alpha_bar) / alpha_bar).sqrt()
