"""What a restoration made in a script is worth, without its truth: all that the command line says of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.calibration.finding import reference_of
from invdiff.calibration.record import read_calibration
from invdiff.calibration.varying import Law
from invdiff.errors import InputError
from invdiff.evaluation.intervals import bounds_of, uncalibrated, words_of
from invdiff.evaluation.provenance import Provenance
from invdiff.problem import Problem
from invdiff.result import Result
from invdiff.trust import appraise, as_far_as_explained, assumed_of


@dataclass(frozen=True)
class Assessment:
    """The judgement of a restoration of one measurement.

    Attributes:
        report: plain values: consistency, whether it explains the measurement; few_steps, of a prior that is no denoiser; of
            linear operators, provenance; interval; with a calibration that knows what is usual, novelty. All but `interval`
            have their sentence in "words".
        lower, upper: of the interval at each pixel, (C, H, W) in image units; None of a single sample.
        provenance: the mean's parts by where they come from, and how much is measured, (1, C, H, W); None for an operator that
            is not linear.
    """

    report: dict[str, Any]
    lower: Tensor | None
    upper: Tensor | None
    provenance: Provenance | None

    def words(self) -> str:
        """A sentence a line."""
        said = [part["words"] for part in self.report.values() if "words" in part]
        return "\n".join([*said, *words_of(self.report["interval"])])


def assess(result: Result, problem: Problem, prior: Denoiser, *, calibration: str | Path | None = None,
           settings: Mapping[str, Any] | None = None, item: int = 0) -> Assessment:
    """Does a restoration explain its measurement, what of it is the prior's, how far off may a pixel be, and is the prior out
    of its depth? docs/uncertainty.md says how each is found.

    Args:
        result: of `restore`.
        problem, prior: that it was given.
        calibration: a file of `invdiff calibrate`, for the interval and to tell unusual images. That it was measured with this
            operator and sampler is for you to see to: prior, noise level, pairs and number of samples are looked at. Without
            one the interval is Student's t, and whether the image is unusual is not said.
        settings: of what varied while it was measured, what you know of the operator, by the same names, as in
            {"operator.sigma": 1.6}: its factor changes with them. For others the middle of their range is taken; noise level
            and sampler are known.
        item: which of the problem's measurements.

    Raises:
        InputError: results of another problem, an operator with parameters of its own for each of several measurements, or a
            calibration that is damaged or another prior's, or settings that did not vary in it.
    """
    count = len(problem.y)
    if result.samples.shape[0] != count or tuple(result.samples.shape[2:]) != tuple(problem.image_shape):
        raise InputError(f"result: expected samples of {count} images {problem.image_shape}, got {tuple(result.samples.shape)}")
    if not -count <= item < count:
        raise InputError(f"item: expected one of {count} measurements, got {item}")
    if problem.together:
        raise InputError(f"assess: this {type(problem.physics).__name__} has parameters of its own for each of {count} "
                         "measurements; restore and assess them one by one")
    if calibration is None and settings:
        raise InputError("settings: are of what varied while a calibration was measured; give that, too")
    record = None if calibration is None else read_calibration(calibration)
    if record is not None and (other := record.of_another(prior)):
        raise InputError(f"{calibration}: was measured with another {other}")
    one = problem.rows(torch.tensor([item % count], device=problem.y.device))
    samples, paired = result.samples[item % count][None], bool(result.report.get("antithetic"))
    assumed = assumed_of(one)
    known = _sampler_s(result, record.varied) | dict(settings or {}) if record is not None else {}
    interval = (uncalibrated(samples.shape[1], paired, assumed) if record is None else
                record.interval_given(known, samples.shape[1], problem.sigma_y, paired, assumed))
    found = appraise(one, prior, samples, reference_of(record, known))
    interval = as_far_as_explained(interval, found.report)
    lower, upper = (None, None) if samples.shape[1] < 2 else bounds_of(samples[0], interval)
    return Assessment({**found.report, "interval": interval}, lower, upper, found.provenance)


def _sampler_s(result: Result, varied: Law) -> dict[str, Any]:
    """The sampler's settings among those that varied, as far as the result tells them."""
    told = result.report.get("sampler")
    told = told if isinstance(told, Mapping) else result.report.get("config", {}).get("sampler", {})
    return {f"sampler.{name}": value for name, value in told.items() if f"sampler.{name}" in varied}
