"""Calibrating: restore images that are known, and find how wide intervals must be, and what is usual.

Every other image calibrates; the rest are kept apart, and tell what the intervals cover on fresh ones. How the factor changes
with settings that vary is learned of all, but for each of the others.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from invdiff.calibration.cases import Case, fewer_than, restored
from invdiff.calibration.finding import reference_of
from invdiff.calibration.known import Known
from invdiff.calibration.record import Calibration, in_pairs
from invdiff.calibration.trend import Trend, fitted
from invdiff.calibration.varying import Law, at_ends, drawn
from invdiff.config import RunConfig, build_sampler, faults_told
from invdiff.errors import InputError
from invdiff.evaluation.intervals import LEVEL, conformal_factor, coverage, coverage_curve
from invdiff.evaluation.novelty import Reference
from invdiff.evaluation.ranks import expected_coverage
from invdiff.machine import versions
from invdiff.mri.job import complex_prior
from invdiff.posing import pose_image
from invdiff.priors import load_prior
from invdiff.priors.facts import fingerprint, measured_errors

LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))        # of the curves
FEWEST = 19                                                     # images for a reference of what is usual


def calibrate(config: RunConfig, images: Known, *, level: float = LEVEL, delta: float | None = None,
              law: Law | None = None, checkpoint: str | Path | None = None,
              on_image: Callable[[int, int], object] = lambda done, of: None) -> Calibration:
    """Restore each image as the config says, and make the record of it.

    level, delta: of the interval, see `conformal_factor`. law: settings that differ from image to image, with which the factor
    changes, see `trend`; not with a `delta`, whose guarantee is for one factor. checkpoint: a folder that keeps the finished
    images; the next call with it goes on from there. on_image: called with how many are done, of how many.

    Raises:
        InputError: fewer than two samples or images, too few of them for `delta`, numbers out of range, or as the restorations
            do.
    """
    if config.samples < 2 or len(images) < 2:
        raise InputError(f"calibrate: expected at least 2 samples of at least 2 images, got {config.samples} of {len(images)}")
    if not 0 < level < 1 or (delta is not None and not 0 < delta < 1):
        raise InputError(f"calibrate: expected a level and a delta between 0 and 1, got {level} and {delta}")
    _check_count(len(images), level, delta)
    prior = complex_prior(config.prior) if config.is_scan else load_prior(config.prior)
    law = law or {}
    if law and config.is_scan:
        raise InputError("--vary: scans bring their own noise and mask; what can vary is a photograph's")
    for ends in at_ends(config, law):
        with faults_told("--vary"):
            pose_image(ends, images.crops[0][None], 0)
            build_sampler(ends.sampler)
    cases = restored(config, prior, images, checkpoint, on_image, law)
    trend, cases = _by_trend(cases, config, law, level) if law and delta is None else ({}, cases)
    half, rest = cases[::2], cases[1::2]
    factor = conformal_factor([case["ratio"].numpy() for case in half], level, delta)
    fewer = {count: conformal_factor([case[f"ratio of {count}"].numpy() for case in half], level, delta)
             for count in fewer_than(config.samples)}
    rows = [case["features"] for case in half if "features" in case]
    reference = Reference.fit(torch.stack(rows), images.channels) if len(rows) >= FEWEST else None
    return Calibration(task=config.task, operator=config.operator, sigma_y=float(config.sigma_y or 0), sampler=config.sampler,
                       samples=config.samples, prior=_name(config.prior), weights=fingerprint(prior),
                       errors=measured_errors(prior), precision=config.precision,
                       images=f"every other of {images.source}", count=len(half), level=level, factor=factor, fewer=fewer,
                       delta=delta, antithetic=in_pairs(config), varied=law, trend=trend,
                       check=_check(rest, factor, config, reference) | _with_fewer(rest, fewer)
                       | _by_setting(rest, factor, config, law),
                       novelty=reference.to_dict() if reference else None, versions=versions())


def _by_trend(cases: Sequence[Case], config: RunConfig, law: Law, level: float) -> tuple[Trend, list[Case]]:
    """How the factor changes with what varied; and the cases relative to that, each to what the others alone tell."""
    settings = [drawn(config, law, i) for i in range(len(cases))]
    needed = np.array([np.quantile(case["ratio"].numpy(), level) for case in cases])
    trend, relative = fitted(law, settings, needed)
    return trend, [_relative_to(case, float(times)) for case, times in zip(cases, relative, strict=True)]


def _relative_to(case: Case, times: float) -> Case:
    """The case of a spread that many times as large."""
    ratios = {name: values / times for name, values in case.items() if name.startswith("ratio")}
    return {**case, **ratios, "spread": case["spread"] * times}


def _check_count(images: int, level: float, delta: float | None) -> None:
    """Raises InputError if half of so many images are too few for the guarantee, before any is restored."""
    try:
        conformal_factor([np.zeros(1)] * len(range(0, images, 2)), level, delta)
    except ValueError as error:
        raise InputError(f"calibrate: {error}, every other of {images}") from error


def check_unlike(images: Known) -> None:
    """Raises InputError if these images, once restored, are too few to learn what is usual, as `detected` has to know."""
    if len(range(0, len(images), 2)) < FEWEST:
        raise InputError(f"--unlike: expected at least {2 * FEWEST} images, from which to learn what is usual, got "
                         f"{len(images)}")


def _name(prior: str) -> str:
    """Without the folder of its file, and with its options."""
    where, mark, options = prior.partition("?")
    return Path(where).name + mark + options


def detected(record: Calibration, config: RunConfig, images: Known,
             on_image: Callable[[int, int], object] = lambda done, of: None) -> float:
    """The share of images of another kind that are called unusual, restored as the config says, a sample of each.

    Raises InputError if the record does not know what is usual.
    """
    reference = reference_of(record)
    if reference is None:
        raise InputError("calibrate: too few images were restored to learn what is usual; expected at least "
                         f"{2 * FEWEST} of them")
    prior = complex_prior(config.prior) if config.is_scan else load_prior(config.prior)
    cases = restored(config.model_copy(update={"samples": 1}), prior, images, None, on_image, record.varied)
    return float(np.mean([reference.judge(case["features"]).unusual for case in cases]))


def _check(cases: Sequence[Case], factor: float, config: RunConfig, reference: Reference | None) -> dict[str, Any]:
    """What is seen on images kept apart: coverage in the mean and its standard error; mean half-width (sharpness) and error;
    how well spread ranks error; curves of coverage by level, without the factor, of pixels and of patches (TARP); alarms."""
    ratios, plain = ([case[name].numpy() for case in cases] for name in ("ratio", "plain"))
    paired = in_pairs(config)
    independent = (config.samples + 1) // 2 if paired else config.samples
    shares = np.array(coverage(ratios, factor))
    ranks = [float(spearmanr(case["error"], case["spread"]).statistic) for case in cases]
    found = {
        "images": len(cases), "covered": float(shares.mean()),
        "standard_error": float(shares.std(ddof=1) / len(shares) ** 0.5) if len(shares) > 1 else None,
        "half_width": factor * float(np.mean([case["spread"].mean() for case in cases])),
        "error": float(np.mean([case["error"].mean() for case in cases])), "spearman": float(np.mean(ranks)),
        "levels": list(LEVELS), "uncalibrated": coverage_curve(plain, config.samples, LEVELS, paired),
        "tarp": expected_coverage(torch.cat([case["ranks"] for case in cases]), independent, LEVELS),
    }
    rows = [case["features"] for case in cases if "features" in case]
    if reference and rows:
        found["alarms"] = float(np.mean([reference.judge(row).unusual for row in rows]))
    return found


def _with_fewer(cases: Sequence[Case], fewer: Mapping[int, float]) -> dict[str, Any]:
    """The coverage of images kept apart by intervals of fewer samples."""
    covered = {str(count): float(np.mean(coverage([case[f"ratio of {count}"].numpy() for case in cases], factor)))
               for count, factor in fewer.items()}
    return {"fewer": covered} if covered else {}


def _by_setting(cases: Sequence[Case], factor: float, config: RunConfig, law: Law) -> dict[str, Any]:
    """The coverage of images kept apart by what varied: each choice, and either half of a range, with how many they are."""
    shares = coverage([case["ratio"].numpy() for case in cases], factor)
    settings = [drawn(config, law, 2 * i + 1) for i in range(len(cases))]
    by: dict[str, Any] = {}
    for key, what in law.items():
        parts: dict[str, list[float]] = {part: [] for part in what.parts}
        for share, setting in zip(shares, settings, strict=True):
            parts[what.part(setting[key])].append(share)
        by[key] = {part: {"covered": float(np.mean(found)), "images": len(found)} for part, found in parts.items() if found}
    return {"by": by} if by else {}
