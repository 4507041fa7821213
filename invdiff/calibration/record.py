"""What was measured of a prior, a task and a sampler together, and its file."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from deepinv.models import Denoiser
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from invdiff.calibration.trend import Trend, relative_factor
from invdiff.calibration.varying import Law, Range, settings_of, told
from invdiff.config import RunConfig, build_sampler
from invdiff.errors import InputError
from invdiff.evaluation.intervals import for_samples, uncalibrated
from invdiff.io.files import unwritable, write_text
from invdiff.priors.facts import fingerprint, measured_errors
from invdiff.validation import validate

FORMAT: Literal["invdiff-calibration-2"] = "invdiff-calibration-2"
CHANCE = 3.0                            # standard errors
SEEDS = ("seed", "mask_seed")          # operators of one law


class Calibration(BaseModel):
    """The record of `invdiff calibrate`.

    interval: of `level`, the mean of the samples plus and minus `factor` times their spread; `delta` as in
    `invdiff.evaluation.intervals.conformal_factor`. check: what it did on images kept apart. novelty: what restorations of
    images like these look like to the prior, as `invdiff.evaluation.novelty.Reference` has it. weights: the prior's
    fingerprint. errors: its `measured_errors`, where they were noted. images: what it was measured on. varied: settings that
    differed from image to image. fewer: the factors for the first so many of the samples alone. trend: how the factors change
    with what varied, see `relative_factor`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["invdiff-calibration-2"] = FORMAT
    task: str
    operator: dict[str, Any]
    sigma_y: float = Field(ge=0, allow_inf_nan=False)
    varied: Law = {}
    trend: Trend = {}
    sampler: dict[str, Any]
    samples: int = Field(ge=2)
    antithetic: bool = False
    prior: str
    weights: str
    errors: str | None = None
    precision: str
    images: str
    count: PositiveInt
    level: float = Field(gt=0, lt=1)
    factor: PositiveFloat
    fewer: dict[int, PositiveFloat] = {}
    delta: float | None = Field(None, gt=0, lt=1)
    check: dict[str, Any] = {}
    novelty: dict[str, Any] | None = None
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _trend_of_what_varied(self) -> "Calibration":
        for key, slopes in self.trend.items():
            known = self.varied.get(key)
            if known is None or len(slopes) != len(known.place(None)) or not all(map(math.isfinite, slopes)):
                raise ValueError(f"trend: expected finite slopes of what varied, got {key}: {slopes}")
        return self

    def refusal(self, config: RunConfig, prior: Denoiser) -> str | None:
        """Why this says nothing of a run, if it does not."""
        for name, mine, theirs in (("operator", self.operator["name"], config.operator["name"]),
                                   ("sampler", self.sampler["name"], config.sampler["name"])):
            if mine != theirs:
                return f"{name}, {mine} and not {theirs}"
        return self.of_another(prior)

    def of_another(self, prior: Denoiser) -> str | None:
        """What another prior this was measured with, if it was."""
        if self.weights != fingerprint(prior):
            return f"prior, called {self.prior}"
        return None if self.errors in (None, measured_errors(prior)) else "error spectrum of the prior"

    def differences(self, config: RunConfig, sigma_y: float | None) -> list[str]:
        """What was otherwise when it was measured, one entry each. Scans bring their own noise, and many their own mask."""
        theirs = settings_of(config)

        def of(part: str, mine: dict[str, Any], silent: bool = False) -> list[str]:
            """silent: what was not said of a scan may be anything."""
            found = []
            for key, value in ((f"{part}.{name}", value) for name, value in mine.items() if name not in ("name", *SEEDS)):
                if key in self.varied:
                    found += [] if self.varied[key].holds(theirs.get(key)) else [f"{key} {self.varied[key].words()}"]
                elif theirs.get(key) != value and not (silent and value is None):
                    found.append(f"{key}={value}")
            return found

        found = of("operator", self.operator, config.is_scan) + self.drawing_differs(sigma_y, in_pairs(config))
        if (asked := self.prior.partition("?")[2]) != config.prior.partition("?")[2]:       # a class, and guidance towards it
            found.append(f"prior={self.prior}" if asked else "a prior without options")
        return found + of("sampler", self.sampler)

    def drawing_differs(self, sigma_y: float | None, paired: bool) -> list[str]:
        """The noise level and the pairing when it was measured, if they were others."""
        found = [] if paired == self.antithetic else [f"antithetic={self.antithetic}"]
        if sigma_y is not None and "sigma_y" in self.varied:
            found += [] if self.varied["sigma_y"].holds(sigma_y) else [f"sigma_y {self.varied['sigma_y'].words()}"]
        elif sigma_y is not None and abs(sigma_y - self.sigma_y) > 0.02 * self.sigma_y:
            found.append(f"sigma_y={self.sigma_y:g}")
        return found

    def interval(self, config: RunConfig, samples: int, sigma_y: float | None = None, assumed: str = "") -> dict[str, Any]:
        """The interval's entry in a report: level, factor, whether it holds for this run, where it comes from, and of how many
        images. assumed: what is taken for known of a measurement, as in "the noise is", and is known of those that are
        simulated alone."""
        settings = settings_of(config) | ({} if sigma_y is None else {"sigma_y": sigma_y})
        return self._entry(self.differences(config, sigma_y), samples, in_pairs(config), settings, assumed)

    def interval_given(self, settings: Mapping[str, Any], samples: int, sigma_y: float, paired: bool,
                       assumed: str = "") -> dict[str, Any]:
        """The same of a run without a config, and what is known of the settings that varied. Raises InputError: others."""
        if others := settings.keys() - self.varied.keys():
            raise InputError(f"settings: expected some of what varied, {', '.join(self.varied) or 'which is nothing'}; got "
                             f"{', '.join(sorted(others))}")
        beyond = [f"{key} {self.varied[key].words()}" for key, value in settings.items() if not self.varied[key].holds(value)]
        return self._entry(self.drawing_differs(sigma_y, paired) + beyond, samples, paired, {**settings, "sigma_y": sigma_y},
                           assumed)

    def _entry(self, others: list[str], samples: int, paired: bool, settings: Mapping[str, Any],
               assumed: str) -> dict[str, Any]:
        """The same for a run of so many samples, with what was otherwise when this was measured, and as much of what varied
        as is known of the run."""
        if samples < 2:
            return uncalibrated(samples)
        factors = self.factors
        others = others + ([] if samples in factors else [f"samples={self.samples}"])
        promise = "on average" if self.delta is None else f"with probability {1 - self.delta:g}"
        promise += f" if {assumed} as assumed" if assumed else ""
        source = f"covers {self.level:.0%} {promise}; measured on {self.count} images, {self.images}"
        if others:
            source += f", with {', '.join(others)}: here{self._otherwise(settings)}"
        elif self.varied:
            source += f", with {told(self.varied)}"
        if "covered" in self.check:
            source += f"; on {self.check['images']} kept apart it covered {self.check['covered']:.0%}"
            source += ", so it is not to be relied on" if self._contradicted else ""
        nearest = min((count for count in factors if count >= samples), default=max(factors))
        factor = for_samples(factors[nearest], nearest, samples, self.antithetic and paired)
        factor *= relative_factor(self.trend, self.varied, settings)
        return {"level": self.level, "factor": factor, "calibrated": not others and not self._contradicted, "source": source,
                "images": self.count}

    def _otherwise(self, settings: Mapping[str, Any]) -> str:
        """What may come of a run that is none of those this was measured with."""
        if self.in_fewer_steps(settings):
            return ", in fewer steps than were tried, it may cover less, and the image have speckles"
        return " it may cover more or less"

    def in_fewer_steps(self, settings: Mapping[str, Any]) -> bool:
        """Does a run of such settings take fewer steps than were tried?"""
        steps = self.varied.get("sampler.steps")
        return isinstance(steps, Range) and settings.get("sampler.steps", steps.low) < steps.low

    @property
    def factors(self) -> dict[int, float]:
        """By the number of samples."""
        return {**self.fewer, self.samples: self.factor}

    @property
    def _contradicted(self) -> bool:
        """Did the images kept apart show less than was promised, by more than chance and few images explain?"""
        error = self.check.get("standard_error") or 0.0
        return self.check.get("covered", 1.0) < self.level - 1 / (self.count + 1) - CHANCE * error


def in_pairs(config: RunConfig) -> bool:
    """Are neighbouring samples antithetic?"""
    return config.antithetic and build_sampler(config.sampler).mirrors


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a record, whole or not at all. Raises InputError where it cannot be written."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(path, calibration.model_dump_json(indent=1))
    except OSError as error:
        raise unwritable(path, error) from error


def read_calibration(path: str | Path) -> Calibration:
    """What `write_calibration` wrote. Raises InputError: missing, damaged, or something else."""
    try:
        if os.path.getsize(path) > 2**24:
            raise ValueError("too large")
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        found = data.get("format") if isinstance(data, Mapping) else None
        if found != FORMAT and str(found).startswith(FORMAT[:-1]):
            raise InputError(f"{path}: was measured by another version of invdiff; measure it again with invdiff calibrate, or "
                             "remove it")
        if found != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        known = validate(Calibration, data, str(path))
        _ = known.operator["name"], known.sampler["name"]
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected what invdiff calibrate writes") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: expected what invdiff calibrate writes ({error})") from error
    return known
