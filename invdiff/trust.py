"""What can be said of a restoration without its truth: does it explain the measurement, what of it is the prior's, is the prior
out of its depth, and is the noise what it is taken for?"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from torch import Tensor

import operators
from invdiff.evaluation.consistency import EXPLAINED, Consistency, consistency
from invdiff.evaluation.intervals import unexplained
from invdiff.evaluation.novelty import Reference, features
from invdiff.evaluation.provenance import Provenance, provenance
from invdiff.machine import out_of_memory
from invdiff.priors.facts import channels_of, own_sampling
from invdiff.priors.latent import latent_of
from invdiff.problem import Problem

EFFORT = 200            # iterations of the solves behind the map of what is measured
UNJUDGED = "Whether the image is like those the prior was tried on is not said: the memory that is left does not suffice."
FEW_STEPS = ("This prior makes images in a few steps and is no denoiser, which samplers take it for: a denoiser of such images "
             "restores better.")


@dataclass(frozen=True)
class Appraisal:
    """The judgement of a restoration of one measurement.

    report: plain values, with a sentence each: few_steps, of a prior that is no denoiser; consistency; provenance, of linear
        operators; novelty, where there is a reference, or `unjudged` where the memory did not suffice for it. provenance: the
        mean's three parts, (1, C, H, W). features: what the prior makes of the first sample, for `novelty.Reference`, where it
        was asked for.
    """

    report: dict[str, Any]
    provenance: Provenance | None
    features: Tensor | None


@torch.no_grad()
def appraise(problem: Problem, prior: Denoiser, samples: Tensor, reference: Reference | None = None, *, look: bool = False,
             probes: int = 16, explained: tuple[Problem, Tensor] | None = None, scale: float = 1.0,
             inner: Callable[[Tensor], Tensor] | None = None, compressed: bool = False) -> Appraisal:
    """Appraise posterior samples (1, S, C, H, W) of a problem with one measurement.

    reference: what restorations look like to the prior when all is in order. look: find the features without one, too.
    probes: see `provenance`, which 0 leaves out. explained: the problem that was drawn of, and its samples, if it is another.
    scale: what the measurement's own unit was multiplied by, in which the noise level is told. inner: takes the part of an
    image that the provenance is to be of. compressed: has JPEG taken a part of the noise, as `jpeg_thins` tells?
    """
    problem = Problem(problem.physics, problem.y, problem.sigma_y)             # its own count of calls
    consistent = _judged_by_its_noise(*(explained or (problem, samples)))
    consistent = replace(consistent, sigma_y=consistent.sigma_y / scale, compressed=compressed)
    report: dict[str, Any] = {"consistency": {**asdict(consistent), "verdict": consistent.verdict, "words": consistent.words()}}
    if own_sampling(prior):
        report["few_steps"] = {"words": FEW_STEPS}
    parts = None
    if probes and isinstance(problem.physics, LinearPhysics):
        parts = provenance(problem, samples.mean(1), probes=probes, effort=EFFORT)
        parts = counted = parts.of_part(inner) if inner else parts
        if (support := getattr(prior, "support", None)) is not None:        # of a scan: where its coils see nothing, nothing is
            parts, counted = parts.within(support)
        report["provenance"] = {**counted.shares, "words": counted.words()}
    row = None
    if reference is not None and not reference.speaks_of(samples.shape[2], channels_of(prior)):
        reference = None
    if (reference is not None or look) and latent_of(prior) is None:
        where = next((weights.device for weights in prior.parameters()), samples.device)
        try:
            row = features(prior, samples[:, 0].to(where))[0]
        except (RuntimeError, MemoryError) as error:
            if look or not out_of_memory(error):
                raise
            report["unjudged"] = {"words": UNJUDGED}        # rather than lose a finished run
    if reference is not None and row is not None:
        judged = reference.judge(row)
        report["novelty"] = {**asdict(judged), "words": judged.words(consistent.is_explained)}
    return Appraisal(report, parts, row)


def _judged_by_its_noise(problem: Problem, samples: Tensor) -> Consistency:
    """`consistency`, and where it is amiss, whether the noise of a measurement that is an image is white at all."""
    found = consistency(problem, samples)
    return found if found.verdict == "explained" else replace(found, finest=finest_noise(problem))


def finest_noise(problem: Problem) -> float | None:
    """`operators.noise_whiteness` of measurements that are images without missing pixels, the least of them; None of others,
    and of those too small or too much clipped to tell."""
    y = problem.y
    if y.ndim != 4 or y.shape[1] not in (1, 3) or not getattr(problem.physics, "measures_images", True):
        return None
    try:
        return float(operators.noise_whiteness(y).min()) if bool(problem.observed().all()) else None
    except ValueError:
        return None


def assumed_of(problem: Problem) -> str:
    """What is taken for known where a measurement comes from a file, for the words of an interval."""
    return "the noise is" if isinstance(problem.physics, operators.Denoising) else "the operator and the noise are"


def as_far_as_explained(interval: dict[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """An interval's entry, by an appraisal's report: no promise holds where the measurement is not explained."""
    return interval if report["consistency"]["verdict"] in EXPLAINED else unexplained(interval)
