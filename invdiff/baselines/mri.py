"""Classical MR reconstructions under one face, the baselines that a learned prior has to beat.

    x = baseline("l1_wavelet", problem)                                          # (B, 2 M, H, W)
    x, weight = tuned("total_variation", problem, lambda x: psnr(x, truth))      # the weight chosen by the truth

A problem is k-space of MultiCoilMRI, NonCartesianMRI or MRI. All but the first minimise 1/2 |y - A x|² + weight R(x) for

    zero_filled       Aᴴ y over the power of the coil maps, where for NonCartesianMRI the place of Aᴴ y is taken by gridding
                      with its density, or without one by the multiple nearest to y
    sense             R = 1/2 |x|², conjugate gradients (Pruessmann et al. 2001)
    l1_wavelet        R = the complex magnitudes of orthogonal wavelets, summed (Lustig et al. 2007)
    total_variation   R = the lengths of the complex gradient, summed (Block et al. 2007)
    bart_l1_wavelet   as l1_wavelet, by BART, where it is installed; Cartesian, of even sides only

The default weights follow from sigma_y, for images whose magnitude peaks near 1, coil maps whose squares sum to 1 and
Cartesian sampling. Off the grid the centre counts many times over, and they come out too small: 64 spokes of the head
phantom, 256 pixels wide, wanted four times as much, so there they should be tuned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

import operators
from invdiff.baselines.bart import bart_l1_wavelet
from invdiff.baselines.iterations import scaled_adjoint
from invdiff.baselines.mri_sparse import l1_wavelet, total_variation
from invdiff.errors import InputError
from invdiff.problem import Problem, require

Score = Callable[[Tensor], float]
COARSE = (1 / 8, 1 / 2, 2, 8)       # of the default weight
FINE = (2, 2**0.5)                  # of the best one
FURTHEST = 500                      # of the default weight, either way


class Baseline(NamedTuple):
    """run(problem, weight, iterations) -> x; the default weight of a noise level, None for a method that has none."""

    run: Callable[[Problem, float, int], Tensor]
    weight: Callable[[float], float] | None
    iterations: int


def zero_filled(problem: Problem) -> Tensor:
    """Coil images of y, zero where nothing was measured, combined, or what comes nearest off the grid, (B, 2 M, H, W)."""
    physics = problem.physics
    if not isinstance(physics, operators.NonCartesianMRI):
        pulled = problem.pulled
    else:
        pulled = scaled_adjoint(physics, problem.y) if physics.density is None else physics.gridding(problem.y)
    if not hasattr(physics, "coil_maps"):
        return pulled
    power = coil_power(physics)
    return pulled / torch.where(power > 0, power, 1)


def coil_power(physics: operators.MultiCoilMRI | operators.NonCartesianMRI) -> Tensor:
    """The squares of the coil maps summed over coils, for each channel of an image, (1 or B, 2 M, H, W)."""
    return physics.coil_maps.square().sum((2, -1)).repeat_interleave(2, 1)


def sense(problem: Problem, weight: float, iterations: int) -> Tensor:
    """argmin_x 1/2 |y - A x|² + weight/2 |x|², (B, 2 M, H, W), by conjugate gradients that stop at 1e-4."""
    return operators.least_squares(problem.physics, problem.y, z=0.0, gamma=1 / weight, iterations=iterations).x


# The default weights go through the optima that the truth chose for brain scans (8 and 16 coils, 256 and 96 pixels) and the
# head phantom, undersampled 3 to 8 times, sigma_y 0.004 to 0.05. They cost 0 to 0.4 dB there; at worst 1.2 (l1_wavelet and
# total_variation, the small scan at 0.004). That of sense cost 0 to 0.5 dB in eight cases of three brain scans (4 to 16 coils,
# 4 and 8 times, lines and Poisson discs).
BASELINES = {
    "zero_filled": Baseline(lambda problem, weight, iterations: zero_filled(problem), None, 1),
    "sense": Baseline(sense, lambda sigma: max(1.2 * sigma, 1e-4), 100),
    "l1_wavelet": Baseline(l1_wavelet, lambda sigma: max(0.2 * sigma, 1e-4), 150),
    "total_variation": Baseline(total_variation, lambda sigma: max(0.2 * sigma, 1e-4), 100),
    "bart_l1_wavelet": Baseline(bart_l1_wavelet, lambda sigma: max(0.2 * sigma, 1e-4), 100),
}


@torch.no_grad()
def baseline(name: str, problem: Problem, weight: float | None = None, iterations: int | None = None) -> Tensor:
    """The reconstruction x (B, 2 M, H, W) of a problem's k-space.

    weight: > 0, by default one that follows from sigma_y, for images whose magnitude peaks near 1. iterations: >= 1, 100 or
    150 by default. Raises InputError for another name, an operator that is not linear or whose images are not complex
    pairs, a weight or iterations out of range, a weight for zero_filled, and for bart_l1_wavelet without BART or on odd sides.
    """
    method = _method(name)
    require(problem.physics, LinearPhysics, name, "no baseline does")
    if problem.image_shape[0] % 2:
        raise InputError(f"{name} needs real and imaginary parts, (2 M, H, W), and the operator's images are "
                         f"{problem.image_shape}")
    if method.weight is None and weight is not None:
        raise InputError(f"{name} has no weight, and got {weight}")
    weight = default_weight(name, problem) if weight is None else weight
    iterations = method.iterations if iterations is None else iterations
    if (method.weight is not None and not 0 < weight < math.inf) or iterations < 1:
        raise InputError(f"{name}: expected weight > 0 and iterations >= 1, got {weight} and {iterations}")
    return method.run(problem, weight, iterations)


def default_weight(name: str, problem: Problem) -> float:
    """The weight that `baseline` takes without one; 0 for a method that has none."""
    rule = _method(name).weight
    return rule(problem.sigma_y) if rule else 0.0


def tuned(name: str, problem: Problem, score: Score, weights: Sequence[float] | None = None) -> tuple[Tensor, float]:
    """The x (B, 2 M, H, W) with the highest score(x), and its weight, 0 for a method that has none.

    The truth behind `score` chooses the weight, which flatters the baseline: nobody has it who needs a reconstruction.
    weights: those to try. Without them an eighth to eight times the default, further while the best is an outermost one,
    to 512 times at the most, then finer, to a factor of the square root of 2. Raises InputError as `baseline` does.
    """
    if _method(name).weight is None:
        return baseline(name, problem), 0.0
    scores: dict[float, float] = {}
    best: tuple[Tensor, float] = (torch.empty(0), 0.0)

    def attempt(weight: float) -> None:
        nonlocal best
        x = baseline(name, problem, weight)
        value = float(score(x))
        if not scores or value > max(scores.values()):
            best = x, weight
        scores[weight] = value

    if weights is None:
        _search(attempt, default_weight(name, problem), scores)
    elif not len(weights):
        raise InputError("weights: expected at least one, got none")
    else:
        for weight in weights:
            attempt(weight)
    return best


def _search(attempt: Callable[[float], None], centre: float, scores: dict[float, float]) -> None:
    """Attempts on a coarse grid, on beyond it while the best is its end, then at finer steps beside the best."""
    for factor in COARSE:
        attempt(centre * factor)
    for end, step in ((min(scores), 1 / 4), (max(scores), 4.0)):
        while max(scores, key=scores.__getitem__) == end and 1 / FURTHEST < end / centre < FURTHEST:
            end *= step
            attempt(end)
    for factor in FINE:
        at = max(scores, key=scores.__getitem__)
        attempt(at / factor)
        attempt(at * factor)


def _method(name: str) -> Baseline:
    if name not in BASELINES:
        raise InputError(f"baseline: expected one of {', '.join(BASELINES)}, got {name!r}")
    return BASELINES[name]
