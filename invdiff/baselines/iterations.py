"""Proximal gradients, and where they begin."""

import math
from collections.abc import Callable

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

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
    step = 1 / squared_norm(problem)
    x, z, t = start, start, 1.0
    for _ in range(iterations):
        new = prox(z - step * (problem.A_adjoint_A(z) - problem.pulled), step)
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
        z = new + (t - 1) / t_new * (new - x)
        x, t = new, t_new
    return x


def squared_norm(problem: Problem, iterations: int = 20) -> Tensor:
    """|Aᴴ A| of each item, (B, 1, ...), by power iteration, which comes from below, and 3 % for that."""
    b = problem.pulled
    x = torch.randn((1, *b.shape[1:]), generator=torch.Generator().manual_seed(0)).to(b).expand_as(b)
    norm = b.new_ones(len(b), *[1] * (b.ndim - 1))
    for _ in range(iterations):
        x = problem.A_adjoint_A(x)
        norm = x.flatten(1).norm(dim=1).reshape(norm.shape)
        x = x / norm
    return 1.03 * norm
