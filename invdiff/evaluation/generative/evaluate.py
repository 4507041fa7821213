"""All scores of a set of images against a reference, and the floor: the same scores of real images that were kept apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.evaluation.generative.features import Looked
from invdiff.evaluation.generative.scores import (
    Statistics,
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
    torchmetrics,
)

METRICS = {
    "fid": "Fréchet distance of the features", "kid": "kernel distance of the features, × 1000", "is": "Inception score",
    "pr": "precision and recall", "dc": "density and coverage", "accuracy": "classified as their class",
}
LABELS = {
    "fid": "Fréchet distance ↓", "kid": "KID × 1000 ↓", "inception_score": "Inception score ↑", "precision": "precision ↑",
    "recall": "recall ↑", "density": "density ↑", "coverage": "coverage ↑", "class_accuracy": "classified as their class ↑",
}
ALL = tuple(METRICS)
LEAST = 10                  # images to score, or to score against
_FLOORS = 5                 # sets of real images whose scores are averaged, where there are more than a set takes
_NEIGHBOURS = 10_000        # images of each kind, at most, for what compares all pairs


def chosen_metrics(text: str) -> tuple[str, ...]:
    """"fid,kid" as names. Raises InputError for one that is unknown, or that needs a package that is not installed."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or set(names) - set(METRICS):
        raise InputError(f"metrics: expected some of {', '.join(METRICS)}, separated by commas, got {text!r}")
    if {"kid", "is"} & set(names):
        torchmetrics("kid")
    return names


@dataclass(frozen=True)
class Reference:
    """Real images to compare with, their statistics computed once, and others of the same kind for the floor, if there are."""

    images: Looked
    statistics: Statistics
    kept_apart: Looked | None = None

    @classmethod
    def of(cls, images: Looked, kept_apart: Looked | None = None) -> "Reference":
        """Raises InputError for fewer than 10 images."""
        if len(images) < LEAST:
            raise InputError(f"reference: expected at least {LEAST} images, got {len(images)}")
        return cls(images, Statistics.of(images.features), kept_apart)


def evaluate(samples: Looked, reference: Reference, metrics: Sequence[str] = ALL, seed: int = 0) -> dict[str, float]:
    """Scores of samples: fid, kid and inception_score with their spreads (kid_spread ..., where it is known), precision,
    recall, density, coverage, class_accuracy.

    The last one needs the samples' classes, and is left out without. What compares neighbours takes the same number of each
    kind. Raises InputError for fewer than 10 samples, or samples of another size.
    """
    if len(samples) < LEAST:
        raise InputError(f"samples: expected at least {LEAST} images, got {len(samples)}")
    real, found = reference.images, {}
    if samples.size and real.size and samples.size != real.size:
        raise InputError(f"samples: expected images of {real.size[0]} x {real.size[1]}, as the real ones, got "
                         f"{samples.size[0]} x {samples.size[1]}")
    if "fid" in metrics:
        found["fid"] = frechet_distance(Statistics.of(samples.features), reference.statistics)
    if "kid" in metrics:
        mean, spread = kernel_distance(real.features, samples.features, seed=seed)
        found |= {"kid": 1000 * mean} | ({} if spread is None else {"kid_spread": 1000 * spread})
    if "is" in metrics:
        mean, spread = inception_score(samples.log_probs, seed=seed)
        found |= {"inception_score": mean} | ({} if spread is None else {"inception_score_spread": spread})
    if {"pr", "dc"} & set(metrics):
        count = min(len(samples), len(real), _NEIGHBOURS)
        a, b = some(real, count, seed).features, some(samples, count, seed + 1).features
        if "pr" in metrics:
            found["precision"], found["recall"] = precision_recall(a, b)
        if "dc" in metrics:
            found["density"], found["coverage"] = density_coverage(a, b)
    if "accuracy" in metrics and samples.classes is not None:
        known = samples.classes >= 0
        if known.any():
            right = samples.log_probs[known].argmax(1) == samples.classes[known]
            found["class_accuracy"] = float(right.double().mean())
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def floor(reference: Reference, count: int, metrics: Sequence[str] = ALL, seed: int = 0,
          classes: Tensor | None = None) -> dict[str, float]:
    """The scores of real images that are not in the reference, as many as there are samples if there are so many; {} if there
    are none. No set of samples from the true distribution does better, but for chance.

    classes: the samples' (N,). Real images are then taken of each class alike, since samples whose classes take turns are
    nearer than a random set. Several sets are scored, where there are more images than one takes: their mean, and for fid
    the spread of one.
    """
    apart = reference.kept_apart
    if apart is None:
        return {}
    if classes is not None and apart.classes is not None and (classes >= 0).all():
        wanted = torch.bincount(classes)
        pools = [(apart.classes == number).nonzero()[:, 0] for number in range(len(wanted))]
        groups = [(pool, min(int(n), len(pool))) for pool, n in zip(pools, wanted, strict=True) if n]
    else:
        groups = [(torch.arange(len(apart)), min(count, len(apart)))]
    if sum(n for _, n in groups) < LEAST:
        return {}
    sets = _FLOORS if any(n < len(pool) for pool, n in groups) else 1
    found = [evaluate(apart.take(_drawn_from(groups, seed + i)), reference, metrics, seed + i) for i in range(sets)]
    spread = {"fid_spread": float(np.std([each["fid"] for each in found], ddof=1))} if sets > 1 and "fid" in metrics else {}
    mean = {name: sum(each[name] for each in found) / sets for name in found[0]} | spread
    return {name: float(f"{value:.6g}") for name, value in mean.items()}


def _drawn_from(groups: Sequence[tuple[Tensor, int]], seed: int) -> Tensor:
    """So many numbers of each pool, at random, in order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([pool[torch.randperm(len(pool), generator=generator)[:n]] for pool, n in groups]).sort().values


def some(images: Looked, count: int, seed: int) -> Looked:
    """A random `count` of them, all in their order where there are no more."""
    if count >= len(images):
        return images
    return images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count])


def shown(value: float | None) -> str:
    """Three significant digits, or nothing."""
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
