"""How fast a variance-preserving process forgets: the rate beta(t), and its integral B(t) = -log a(t)^2. Float64 tensors."""

import math
from typing import Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, model_validator
from torch import Tensor


@runtime_checkable
class Rate(Protocol):
    """A rate; those here are frozen sets of parameters, and `LearnedRate` is a network."""

    def beta(self, t: Tensor) -> Tensor:
        """beta(t), the derivative of B."""

    def integral(self, t: Tensor) -> Tensor:
        """B(t)."""

    def time(self, integral: Tensor) -> Tensor:
        """The t where B(t) = integral."""


class LinearRate(BaseModel):
    """beta rises linearly (Ho et al. 2020, Section 4, in continuous time: Song et al. 2021, Eq. 32)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    first: PositiveFloat = 0.1
    last: PositiveFloat = 20.0

    def beta(self, t: Tensor) -> Tensor:
        return self.first + (self.last - self.first) * t

    def integral(self, t: Tensor) -> Tensor:
        return self.first * t + (self.last - self.first) * t.square() / 2

    def time(self, integral: Tensor) -> Tensor:
        # the root that stays finite where last = first
        return 2 * integral / (self.first + (self.first**2 + 2 * (self.last - self.first) * integral).sqrt())


class CosineRate(BaseModel):
    """a = cos(phi(t)) / cos(phi(0)), phi = (t + offset) / (1 + offset) pi / 2 (Nichol & Dhariwal 2021, Eq. 17). a(1) = 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    offset: float = 0.008

    def _angle(self, t: Tensor) -> Tensor:
        return (t + self.offset) / (1 + self.offset) * (math.pi / 2)

    def beta(self, t: Tensor) -> Tensor:
        return math.pi / (1 + self.offset) * self._angle(t).tan()

    def integral(self, t: Tensor) -> Tensor:
        return 2 * (self._angle(torch.zeros_like(t)).cos().log() - self._angle(t).cos().log())

    def time(self, integral: Tensor) -> Tensor:
        cosine = self._angle(torch.zeros_like(integral)).cos() * (-integral / 2).exp()
        return cosine.acos() * (1 + self.offset) / (math.pi / 2) - self.offset


class SigmoidRate(BaseModel):
    """a^2 falls along a sigmoid from start / tau to end / tau, scaled to 1 .. 0 (Jabri et al. 2022; Chen 2023, Algorithm 1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    start: float = -3.0
    end: float = 3.0
    tau: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _rises(self) -> "SigmoidRate":
        if not self.start < self.end:
            raise ValueError(f"expected start < end, got {self.start:g} and {self.end:g}")
        return self

    def _ends(self) -> tuple[float, float]:
        return 1 / (1 + math.exp(-self.start / self.tau)), 1 / (1 + math.exp(-self.end / self.tau))

    def _value(self, t: Tensor) -> Tensor:
        return ((self.start + (self.end - self.start) * t) / self.tau).sigmoid()

    def beta(self, t: Tensor) -> Tensor:
        value = self._value(t)
        return value * (1 - value) * ((self.end - self.start) / self.tau) / (self._ends()[1] - value)

    def integral(self, t: Tensor) -> Tensor:
        low, high = self._ends()
        return math.log(high - low) - (high - self._value(t)).log()

    def time(self, integral: Tensor) -> Tensor:
        low, high = self._ends()
        return ((high - (high - low) * (-integral).exp()).logit() * self.tau - self.start) / (self.end - self.start)
