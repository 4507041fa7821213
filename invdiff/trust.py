"""What can be said of a restoration without its truth: does it explain the measurement, what of it is the prior's, and is the
prior out of its depth?"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from torch import Tensor

from invdiff.evaluation.consistency import consistency
from invdiff.evaluation.novelty import Reference, features
from invdiff.evaluation.provenance import Provenance, provenance
from invdiff.priors.latent import latent_of
from invdiff.problem import Problem


@dataclass(frozen=True)
class Appraisal:
    """The judgement of a restoration of one measurement.

    report: plain values, with a sentence each: consistency; provenance, of linear operators; novelty, where there is a
        reference. provenance: the mean's three parts, (1, C, H, W). features: what the prior makes of the first sample, for
        `novelty.Reference`, where it was asked for.
    """

    report: dict[str, Any]
    provenance: Provenance | None
    features: Tensor | None


@torch.no_grad()
def appraise(problem: Problem, prior: Denoiser, samples: Tensor, reference: Reference | None = None, *, look: bool = False,
             probes: int = 16, explained: tuple[Problem, Tensor] | None = None, scale: float = 1.0) -> Appraisal:
    """Appraise posterior samples (1, S, C, H, W) of a problem with one measurement.

    reference: what restorations look like to the prior when all is in order. look: find the features without one, too.
    probes: see `provenance`, which 0 leaves out. explained: the problem that was drawn of, and its samples, if it is another.
    scale: what the measurement's own unit was multiplied by, in which the noise level is told.
    """
    problem = Problem(problem.physics, problem.y, problem.sigma_y)             # its own count of calls
    consistent = consistency(*(explained or (problem, samples)))
    consistent = replace(consistent, sigma_y=consistent.sigma_y / scale)
    report: dict[str, Any] = {"consistency": {**asdict(consistent), "verdict": consistent.verdict, "words": consistent.words()}}
    parts = None
    if probes and isinstance(problem.physics, LinearPhysics):
        parts = provenance(problem, samples.mean(1), probes=probes)
        report["provenance"] = {**parts.shares, "words": parts.words()}
    row = None
    if (reference is not None or look) and latent_of(prior) is None:
        where = next((weights.device for weights in prior.parameters()), samples.device)
        row = features(prior, samples[:, 0].to(where))[0]
    if reference is not None and row is not None:
        judged = reference.judge(row)
        report["novelty"] = {**asdict(judged), "words": judged.words()}
    return Appraisal(report, parts, row)
