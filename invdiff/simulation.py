"""simulate(): the problem that a camera or a scanner would pose."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from deepinv.physics import GaussianNoise, Physics, StackedPhysics
from deepinv.physics.noise import ZeroNoise
from torch import Tensor

from invdiff.problem import Problem
from operators import Stacked, StackedNonlinear


def simulate(physics: Physics, x: Tensor, sigma_y: float | Sequence[float], seed: int = 0) -> Problem:
    """The problem that a camera or scanner would pose: y = A(x) + sigma_y n, n from the stream of `seed`.

    x (B, C, H, W). Entries of y that the operator cannot reach stay zero. A Gaussian noise_model of the operator has no say.
    Raises ValueError as `Problem` does, and for a noise_model of another kind.
    """
    if other := other_noise(physics):
        raise ValueError(f"noise_model: {type(physics).__name__} has {other}, and simulate adds white Gaussian noise; take "
                         "y = physics(x), or an operator without it")
    level: Any = sigma_y
    with torch.no_grad():
        clean = Problem(physics, physics.A(x), level)
    noise = torch.randn(clean.y.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(seed)).to(clean.y)
    return Problem(clean.physics, clean.y + clean.sigma_y * noise * clean.observed(), clean.sigma_y)


def other_noise(physics: Physics) -> str | None:
    """The kind of an operator's noise, or of one of a stack, if it has one and it is not white Gaussian."""
    parts: Iterable[Any] = physics.physics_list if isinstance(physics, StackedPhysics) else \
        physics.parts.operators if isinstance(physics, Stacked | StackedNonlinear) else ()
    for part in (physics, *parts):
        model = getattr(part, "noise_model", None)
        if model is not None and not isinstance(model, ZeroNoise | GaussianNoise):
            return type(model).__name__
    return None
