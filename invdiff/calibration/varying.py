"""Settings that differ from image to image while a record is measured, so that it speaks of a run with any of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from yaml import YAMLError

from invdiff.config import RunConfig
from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import InputError
from invdiff.validation import assign, nearest, parse


class Range(BaseModel):
    """Numbers from `low` to `high`, by their logarithm where all are above zero: as many from 0.01 to 0.1 as from 0.1 to 1.

    whole: of a setting that is a whole number, which they are then, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    whole: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"expected a lower number before a higher one, got {self.low:g}:{self.high:g}")
        return self

    def draw(self, rng: np.random.Generator) -> float:
        if self.low <= 0:
            return self._made(rng.uniform(self.low, self.high))
        return self._made(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))

    def holds(self, value: Any) -> bool:
        room = [0.0 if self.whole else 0.02 * abs(end) for end in (self.low, self.high)]
        return isinstance(value, int | float) and self.low - room[0] <= value <= self.high + room[1]

    def _made(self, value: float) -> float:
        return round(value) if self.whole else float(value)

    @property
    def ends(self) -> list[Any]:
        return [self._made(self.low), self._made(self.high)]

    def place(self, value: Any) -> list[float]:
        """From -1 to 1, where in the range a number is; 0 for what is none."""
        if not isinstance(value, int | float):
            return [0.0]
        value = min(max(value, self.low), self.high)
        low, high, value = map(math.log, (self.low, self.high, value)) if self.low > 0 else (self.low, self.high, value)
        return [2 * (value - low) / (high - low) - 1]

    def words(self) -> str:
        return _from_to(self.low, self.high)

    @property
    def parts(self) -> list[str]:
        """Its halves."""
        return [_from_to(self.low, self._middle), _from_to(self._middle, self.high)]

    def part(self, value: Any) -> str:
        return self.parts[int(value >= self._middle)]

    @property
    def _middle(self) -> float:
        return math.sqrt(self.low * self.high) if self.low > 0 else (self.low + self.high) / 2


def _from_to(low: float, high: float) -> str:
    return f"from {low:.4g} to {high:.4g}"


class Choice(BaseModel):
    """One of several values, each as often as another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: list[Any] = Field(min_length=2)

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def holds(self, value: Any) -> bool:
        return value in self.values

    @property
    def ends(self) -> list[Any]:
        return self.values

    def place(self, value: Any) -> list[float]:
        """Of numbers, as of a range of them; else one entry for each value, which are 0 on average."""
        if all(type(known) in (int, float) and math.isfinite(known) for known in self.values) and len(set(self.values)) > 1:
            return Range(low=min(self.values), high=max(self.values)).place(value)
        return [float(value == known) - 1 / len(self.values) for known in self.values] if self.holds(value) else \
            [0.0] * len(self.values)

    def words(self) -> str:
        return f"{', '.join(map(str, self.values[:-1]))} or {self.values[-1]}"

    @property
    def parts(self) -> list[str]:
        return [str(value) for value in self.values]

    def part(self, value: Any) -> str:
        return str(value)


Law = dict[str, Range | Choice]


def read_law(config: RunConfig, texts: Sequence[str]) -> Law:
    """What is to vary: "sigma_y=0.005:0.1", "operator.boundary=circular,valid". Raises InputError."""
    known, law = settings_of(config), Law()
    for text in texts:
        key, equals, said = (part.strip() for part in text.partition("="))
        if not equals or key not in known or key in law:
            again = "it is said twice" if key in law else nearest(key, known)
            raise InputError(f"--vary: expected KEY=LOW:HIGH or KEY=A,B,... got {text!r}; {again}")
        try:
            low, colon, high = said.partition(":")
            law[key] = (Range(low=float(low), high=float(high), whole=type(known[key]) is int) if colon else
                        Choice(values=[_number(value) for value in parse(f"[{said}]", f"--vary {key}")]))
        except (ValueError, YAMLError) as error:
            raise InputError(f"--vary {key}: expected two numbers LOW:HIGH in order, or values A,B,... got {said!r}") from error
    if "sigma_y" in law and not all(type(end) in (int, float) and end >= 0 for end in law["sigma_y"].ends):
        raise InputError(f"--vary sigma_y: expected noise levels of at least 0, got {law['sigma_y'].words()}")
    return law


def _number(value: Any) -> Any:
    """1e-1 is a text to YAML."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def settings_of(config: RunConfig) -> dict[str, Any]:
    """What may vary, by dotted key: the noise level, and the parameters of operator and sampler."""
    parts = (("operator", config.operator), ("sampler", config.sampler))
    return {"sigma_y": config.sigma_y} | {f"{part}.{name}": value for part, given in parts for name, value in given.items()
                                          if name != "name"}


def at_ends(config: RunConfig, law: Law) -> list[RunConfig]:
    """Configs with each setting at its ends."""
    return [with_settings(config, {key: end}) for key, what in law.items() for end in what.ends]


def drawn(config: RunConfig, law: Law, number: int) -> dict[str, Any]:
    """The settings of one image."""
    rng = np.random.default_rng(stream_seed(config.seed, number, 2))
    return {key: what.draw(rng) for key, what in law.items()}


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The config with some of its settings replaced."""
    now = {"operator": config.operator, "sampler": config.sampler}
    return config.model_copy(update=assign(now, settings.items(), "--vary "))


def told(law: Mapping[str, Range | Choice]) -> str:
    """In words, for a report."""
    parts = [f"{key} {what.words()}" for key, what in law.items()]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
