"""What a restored volume is worth, and what its slices' reports come to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.evaluation.mri_metrics import WINDOW, VolumeScores, head_mask
from invdiff.mri.uncertainty import magnitudes
from invdiff.mri.volume import MAPS, Slices


def estimates(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Magnitudes (h, w) of a slice by name: zero_filled, each baseline, restored, sample."""
    known = {name: value for name, value in tensors.items() if name not in ("samples", "truth", *MAPS)}
    restored = {"restored": magnitudes(tensors["samples"])[0], "sample": magnitudes(tensors["samples"][:1])[0]}
    return {name: value.numpy() for name, value in (known | restored).items()}


def score_volume(slices: Slices, factor: float) -> dict[str, Any]:
    """fastMRI's scores of each estimate over the volume, and of several samples the share of the head's pixels whose truth is
    within the interval of that factor; {} without a truth, or where slices are too small for SSIM."""
    truths = [tensors["truth"].numpy() for tensors, _ in slices if "truth" in tensors]
    peak = max((float(truth.max()) for truth in truths), default=0.0)
    if peak <= 0 or min(truths[0].shape) < WINDOW:
        return {}
    heads = _heads(np.stack(truths))
    scores: dict[str, VolumeScores] = {}
    inside, pixels = 0, 0
    for (tensors, _), head in zip(slices, heads, strict=True):
        for name, image in estimates(tensors).items():
            scores.setdefault(name, VolumeScores(peak)).add(image, tensors["truth"], head)
        if head is not None and len(tensors["samples"]) > 1:
            magnitude, deviation = magnitudes(tensors["samples"])
            within = (tensors["truth"] - magnitude).abs() <= factor * deviation
            inside, pixels = inside + int(within[torch.from_numpy(head)].sum()), pixels + int(head.sum())
    made = {name: score.result() for name, score in scores.items()}
    own = {name: made.pop(name) for name in ("zero_filled", "restored", "sample")}
    covered = {"covered": inside / pixels} if pixels else {}
    return {"measurement": own.pop("zero_filled"), **own, **covered, "baselines": made}


def _heads(truths: np.ndarray) -> Sequence[np.ndarray | None]:
    """The part (h, w) of the head in each slice, of the volume (D, h, w), which tells a head from the noise beyond it; none of
    a volume that is the same everywhere."""
    return list(head_mask(truths)) if truths.min() < truths.max() else [None] * len(truths)


def report_of(slices: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> dict[str, Any]:
    """The runs of all slices as one: seconds in all, from reading to appraisal, calls a sample, the residual in the mean, and
    each slice's own; of empty ones, that they are. Raises InputError where all are."""
    every = [about for _, about in slices]
    abouts = [about for about in every if "empty" not in about]
    if not abouts:
        raise InputError("slices: all that were chosen are zero everywhere; choose others")
    runs = [about["run"] for about in abouts]
    shared = {key: runs[0][key] for key in ("samples", "antithetic", "device", "precision", "versions")}
    residual = {key: _mean([run["residual"][key] for run in runs]) for key in ("value", "expected")}
    calls = {key: _mean([run[key] for run in runs]) for key in ("network_calls", "network_gradients", "operator_calls")}
    own = [about if "empty" in about else
           {"slice": about["slice"], "seconds": about["seconds"], "residual": about["run"]["residual"]["value"],
            **about["preparation"], **about["appraisal"]} for about in every]
    spectrum = {"error_spectrum": runs[0]["error_spectrum"]} if "error_spectrum" in runs[0] else {}
    return {**shared, "seconds": round(sum(about["seconds"] for about in abouts), 3), **calls, "residual": residual, **spectrum,
            **_telling([about["appraisal"] for about in abouts]), "slices": own}


def _telling(appraisals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the slices' appraisals, the one that says most: the worst residual, the most that is filled in, the strangest."""
    worst: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "consistency": lambda found: abs(found["level"] - 1), "provenance": lambda found: found["prior"],
        "novelty": lambda found: found["score"]}
    telling = {name: max((found[name] for found in appraisals), key=key) for name, key in worst.items()
               if all(name in found for found in appraisals)}
    several = {} if len(appraisals) == 1 else {"of": "the slice where it is worst"}
    return {name: {**found, **several} for name, found in telling.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
