"""Which noise levels a step trains on. Each kind draws them from its distribution over [low, high], evenly over the
distribution's quantiles (one in each of `count` equal shares), which lowers the variance of a step.
"""

import math
from statistics import NormalDist
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from invdiff.diffusion import elbo
from invdiff.diffusion.schedules import chain_sigmas, cosine_chain, linear_chain

BANDS = 24                      # bands of log sigma in which the running loss is kept
_FORGET = 0.005                 # share of a new item in its band's running mean
_NORMAL = NormalDist()


class Noise(BaseModel):
    """Base of the distributions: a frozen set of parameters, the range they keep to, and the denoiser's preconditioning."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: PositiveFloat = 0.002
    high: PositiveFloat = 40.0
    sigma_data: PositiveFloat = 0.25
    centre: float = 0.5

    @model_validator(mode="after")
    def _has_a_range(self) -> "Noise":
        if self.low >= self.high:
            raise ValueError(f"expected low < high, got {self.low:g} and {self.high:g}")
        return self

    def trained_range(self) -> tuple[float, float]:
        """The lowest and the highest level that there are in training."""
        return self.low, self.high

    def draw(self, count: int, rng: np.random.Generator, step: int, losses: "RunningLoss") -> tuple[np.ndarray, np.ndarray]:
        """Noise levels (count,) for a step, and the weight of each in the loss, (count,), of mean one."""
        return self.levels(count, rng, step).clip(self.low, self.high), np.ones(count)

    def levels(self, count: int, rng: np.random.Generator, step: int) -> np.ndarray:
        raise NotImplementedError

    def between(self, share: np.ndarray) -> np.ndarray:
        """The level at a share, 0 to 1, of the way from low to high, in logarithms."""
        return np.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))


class LogNormal(Noise):
    """Log-normal (Karras et al. 2022, Table 1), clipped to the range, and a share drawn log-uniformly from all of it."""

    kind: Literal["log_normal"] = "log_normal"
    log_mean: float = -1.9
    log_std: PositiveFloat = 1.3
    uniform_share: float = Field(0.15, ge=0, le=1)

    def levels(self, count: int, rng: np.random.Generator, step: int) -> np.ndarray:
        log_normal = _normal(quantiles(count, rng), self.log_mean, self.log_std)
        log_uniform = rng.uniform(math.log(self.low), math.log(self.high), count)
        return np.exp(np.where(rng.random(count) < self.uniform_share, log_uniform, log_normal))


class LogUniform(Noise):
    """Uniform in log sigma."""

    kind: Literal["log_uniform"]

    def levels(self, count: int, rng: np.random.Generator, step: int) -> np.ndarray:
        return self.between(quantiles(count, rng))


class Curriculum(Noise):
    """From easy to hard: the log-normal distribution above a floor, which falls evenly in log sigma from `start` at the first
    step to `low` at step `ramp`, and stays. High noise is easy: little of the image can be known (Kim et al. 2024)."""

    kind: Literal["curriculum"]
    log_mean: float = -1.9
    log_std: PositiveFloat = 1.3
    start: PositiveFloat = 1.0
    ramp: PositiveInt = 5000

    @model_validator(mode="after")
    def _starts_in_the_range(self) -> "Curriculum":
        if not self.low < self.start <= self.high:
            raise ValueError(f"start: expected more than {self.low:g} and at most {self.high:g}, got {self.start:g}")
        return self

    def floor(self, step: int) -> float:
        share = min(1.0, step / self.ramp)
        return math.exp((1 - share) * math.log(self.start) + share * math.log(self.low))

    def levels(self, count: int, rng: np.random.Generator, step: int) -> np.ndarray:
        below = _NORMAL.cdf((math.log(self.floor(step)) - self.log_mean) / self.log_std)
        return np.exp(_normal(below + (1 - below) * quantiles(count, rng), self.log_mean, self.log_std))


class Chain(Noise):
    """The levels of a discrete chain of `steps` steps, each as likely as the others; of them, those in [low, high].

    linear: DDPM's beta, from 1e-4 to 0.02 over 1000 steps (Ho et al. 2020), larger by 1000 / steps over fewer.
    cosine: alpha_bar = cos^2 of an angle that rises evenly, beta at most 0.999 (Nichol & Dhariwal 2021, Eq. 17).
    """

    kind: Literal["linear", "cosine"]
    steps: int = Field(1000, ge=20)

    @model_validator(mode="after")
    def _holds_levels(self) -> "Chain":
        if len(self.inside()) < 2:
            raise ValueError(f"fewer than two levels of the chain lie in [{self.low:g}, {self.high:g}]")
        return self

    def trained_range(self) -> tuple[float, float]:
        first, *_, last = self.inside().tolist()
        return first, last

    def inside(self) -> np.ndarray:
        """The chain's levels in [low, high], rising."""
        sigma = chain_sigmas(_CHAINS[self.kind](self.steps)).numpy()
        return sigma[(sigma >= self.low) & (sigma <= self.high)]

    def bound(self) -> elbo.MarkovChain:
        """The same levels, as the variational bound takes them."""
        return elbo.MarkovChain(torch.from_numpy(self.inside()))

    def levels(self, count: int, rng: np.random.Generator, step: int) -> np.ndarray:
        inside = self.inside()
        return inside[(quantiles(count, rng) * len(inside)).astype(int).clip(max=len(inside) - 1)]


class Adaptive(Noise):
    """Levels where the loss is large are drawn more often, and weighted less, so that the objective stays the log-uniform
    one and its estimate varies least: a band's probability follows its running root mean square loss (importance
    sampling, Nichol & Dhariwal 2021, Eq. 18).

    It is a learned schedule, too: with t uniform, the levels are a monotone, piecewise linear map from t to log sigma along
    which the loss is constant, the schedule of least variance (VDM, Kingma et al. 2021, Sec. 5).

    unbiased: False leaves the weights out, so that hard levels are also trained more.
    floor: share of the draws that stays log-uniform.
    """

    kind: Literal["adaptive"]
    unbiased: bool = True
    floor: float = Field(0.1, gt=0, le=1)

    def probabilities(self, losses: "RunningLoss") -> np.ndarray:
        """Of the bands, (BANDS,)."""
        size = losses.sizes()
        return (1 - self.floor) * size / size.sum() + self.floor / BANDS

    def draw(self, count: int, rng: np.random.Generator, step: int, losses: "RunningLoss") -> tuple[np.ndarray, np.ndarray]:
        p = self.probabilities(losses)
        ends = np.concatenate([[0.0], np.cumsum(p)]) / p.sum()
        t = quantiles(count, rng)
        band = (np.searchsorted(ends, t, side="right") - 1).clip(0, BANDS - 1)
        sigma = self.between(np.interp(t, ends, np.linspace(0, 1, BANDS + 1))).clip(self.low, self.high)
        return sigma, 1 / (BANDS * p[band]) if self.unbiased else np.ones(count)


def _kind(value: Any) -> str:
    return value.get("kind", "log_normal") if isinstance(value, dict) else getattr(value, "kind", "log_normal")


NoiseSettings = Annotated[
    Annotated[LogNormal, Tag("log_normal")] | Annotated[LogUniform, Tag("log_uniform")] | Annotated[Chain, Tag("linear")]
    | Annotated[Chain, Tag("cosine")] | Annotated[Curriculum, Tag("curriculum")] | Annotated[Adaptive, Tag("adaptive")],
    Discriminator(_kind)]


class RunningLoss:
    """The mean square of the loss in bands of log sigma, part of the state of a run.

    `squares` (BANDS,) is the mean of what a band has seen, and once that is much, of its last items; `seen` (BANDS,) is how
    many.
    """

    def __init__(self, low: float, high: float):
        self.edges = np.linspace(math.log(low), math.log(high), BANDS + 1)[1:-1]
        self.squares, self.seen = np.ones(BANDS), np.zeros(BANDS)

    def update(self, losses: np.ndarray, sigmas: np.ndarray) -> None:
        """Take in the losses (B,) of a step, at sigmas (B,)."""
        band = np.searchsorted(self.edges, np.log(sigmas), side="right")
        count = np.bincount(band, minlength=BANDS)
        total = np.bincount(band, losses.astype(float) ** 2, BANDS)
        self.seen += count
        new = count > 0
        share = np.maximum(count / self.seen.clip(min=1), 1 - (1 - _FORGET) ** count)[new]
        self.squares[new] += share * (total[new] / count[new] - self.squares[new])

    def sizes(self) -> np.ndarray:
        """Root mean square loss of each band, (BANDS,); of those that have seen nothing yet, that of all others."""
        known = self.seen > 0
        return np.sqrt(np.where(known, self.squares, self.squares[known].mean() if known.any() else 1.0))


def quantiles(count: int, rng: np.random.Generator) -> np.ndarray:
    """One in each of `count` equal shares of [0, 1], in random order: (count,)."""
    return (rng.permutation(count) + rng.random()) / count


def _normal(share: np.ndarray, mean: float, std: float) -> np.ndarray:
    return mean + std * np.array([_NORMAL.inv_cdf(min(max(q, 1e-9), 1 - 1e-9)) for q in share])


_CHAINS = {"linear": linear_chain, "cosine": cosine_chain}
