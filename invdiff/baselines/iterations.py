"""Proximal gradients, and where they begin."""

import math
from collections.abc import Callable

from deepinv.physics import LinearPhysics
from torch import Tensor

from invdiff.posterior.likelihood import squared_norm
from invdiff.problem import Problem

Prox = Callable[[Tensor, Tensor], Tensor]       # v, step (B, 1, ...) -> argmin_x 1/2 |x - v|² + step weight R(x)


def scaled_adjoint(physics: LinearPhysics, y: Tensor) -> Tensor:
    """The multiple of A^T y that fits y best: of its size whatever the operator's norm, and safe where A^+ amplifies."""
    x = physics.A_adjoint(y)
    fitted = physics.A(x)
    scale = (fitted * y).flatten(1).sum(1) / fitted.square().flatten(1).sum(1).clamp_min(1e-30)
    return x * scale.reshape(-1, *[1] * (x.ndim - 1))


def fista(problem: Problem, prox: Prox, start: Tensor, iterations: int) -> Tensor:
    """Beck & Teboulle 2009 with the constant step 1 / |Aᴴ A|, from `start`."""
    step = step_length(problem)
    x, z, t = start, start, 1.0
    for _ in range(iterations):
        new = prox(z - step * (problem.A_adjoint_A(z) - problem.pulled), step)
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
        z = new + (t - 1) / t_new * (new - x)
        x, t = new, t_new
    return x


def step_length(problem: Problem) -> Tensor:
    """1 / |Aᴴ A| for each item, (B, 1, ...), of a norm that is known from below, with 3 % for what that lacks."""
    return 1 / (1.03 * squared_norm(problem, problem.pulled, 20))
