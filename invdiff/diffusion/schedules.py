"""Noise schedules in the variance-exploding frame, x = x0 + sigma n, sigma in image units. A schedule is data.

Each is called with (steps, sigma_min, sigma_max) and gives steps + 1 levels: sigma_max, ..., sigma_min, 0.
"""

import math

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat
from torch import Tensor

# DDPM's schedules were made for images in [-1, 1]; ours are in [0, 1]
_DDPM_UNITS = 0.5


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
        # continuous-time form: -log alpha_bar(t) = int_0^t beta, solved for t at the two ends
        first, rise = 0.1, 19.9

        def time(sigma: float) -> float:
            integral = math.log1p((sigma / _DDPM_UNITS) ** 2)
            return (math.sqrt(first**2 + 2 * rise * integral) - first) / rise

        t = time(high) + ramp * (time(low) - time(high))
        return _DDPM_UNITS * torch.expm1(first * t + rise * t**2 / 2).sqrt()


class Cosine(Schedule):
    """alpha_bar = cos^2 of an angle that falls linearly (Nichol & Dhariwal 2021, Eq. 17)."""

    def levels(self, ramp: Tensor, low: float, high: float) -> Tensor:
        a, b = math.atan(high / _DDPM_UNITS), math.atan(low / _DDPM_UNITS)
        return _DDPM_UNITS * torch.tan(a + ramp * (b - a))


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
    return _DDPM_UNITS * ((1 - alpha_bar) / alpha_bar).sqrt()
