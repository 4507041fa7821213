"""Conjugate gradients, and the base class of linear operators that have no closed form and need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from operators import _algebra, _check

Linear = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """x (B, ...), the relative residual |b - M x| / |b| (B,) and the iterations (B,) that each item took."""

    x: Tensor
    residual: Tensor
    iterations: Tensor


def conjugate_gradients(
    apply: Linear,
    b: Tensor,
    start: Tensor | None = None,
    *,
    precondition: Linear | None = None,
    tolerance: float = 1e-4,
    iterations: int = 100,
) -> Solution:
    """Solve M x = b for each item of a batch b (B, ...) on its own (Hestenes & Stiefel 1952).

    apply: x -> M x, symmetric and positive (semi)definite; with a b in its range, a semidefinite M gives from zero the
    x of least norm. start: where to begin, (B, ...), zero if None. precondition: r -> about M⁻¹ r, symmetric positive.
    An item stops at |b - M x| <= tolerance |b| and is left alone from then on, so its result does not depend on its
    neighbours. On a GPU the host asks only every eighth iteration whether all have stopped.
    """
    dot = _algebra.inner
    prepare = precondition or (lambda v: v)
    patience = 1 if b.device.type == "cpu" else 8
    x = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - apply(start)
    z = prepare(r)
    p, rz, rr = z, dot(r, z), dot(r, r)
    target = tolerance**2 * dot(b, b)
    taken = torch.zeros(len(b), dtype=torch.long, device=b.device)
    for i in range(iterations):
        active = rr > target
        if i % patience == 0 and not active.any():
            break
        q = apply(p)
        curvature = dot(p, q)
        active = active & (curvature > 0)  # otherwise p is in the null space, or nothing but rounding
        alpha = torch.where(active, rz / torch.where(active, curvature, 1), 0)
        x, r = x + alpha * p, r - alpha * q
        z = prepare(r)
        old, rz, rr = rz, dot(r, z), dot(r, r)
        p = torch.where(active, z + rz / torch.where(active, old, 1) * p, p)
        taken += active.flatten()
    norm = dot(b, b).flatten()
    relative = (rr.flatten() / torch.where(norm > 0, norm, 1)).sqrt()
    return Solution(x, relative, taken)


def least_squares(
    physics: LinearPhysics,
    y: Tensor,
    *,
    z: Tensor | float | None = None,
    gamma: float | Tensor | None = None,
    start: Tensor | None = None,
    tolerance: float = 1e-4,
    iterations: int = 100,
) -> Solution:
    """argmin_x |Ax - y|², the one nearest to `start` (least norm from zero), by CG on the normal equations.

    With gamma (a scalar or (B,)): argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|², the proximal step at z. y (B, ...).
    """
    if gamma is None:
        return conjugate_gradients(
            physics.A_adjoint_A, physics.A_adjoint(y), start, tolerance=tolerance, iterations=iterations
        )
    z = _algebra.starting_point(physics, z, y)
    weight = _algebra.per_image(gamma, z)
    return conjugate_gradients(
        lambda x: weight * physics.A_adjoint_A(x) + x,
        weight * physics.A_adjoint(y) + z,
        start,
        tolerance=tolerance,
        iterations=iterations,
    )


class IterativePhysics(LinearPhysics):
    """A linear operator with A and A_adjoint, whose A_dagger and prox_l2 are solved by conjugate gradients.

    max_iter, tol: of the solver, deepinv's attributes; a call can have its own, and `x_init` to start from.
    `operators.least_squares` is the same with a report of the residual. Gradients flow through the iterations.
    """

    def A_dagger(self, y, x_init=None, *, max_iter: int | None = None, tol: float | None = None, **kwargs) -> Tensor:
        """Least-squares solution, the one of least norm if x_init is None."""
        return least_squares(self, y, start=x_init, **self._limits(max_iter, tol)).x

    def prox_l2(
        self, z, y, gamma, x_init=None, *, max_iter: int | None = None, tol: float | None = None, **kwargs
    ) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        if isinstance(z, Tensor) and getattr(self, "img_size", None) is not None:
            _check.images(self, "z", z, self.img_size)
        return least_squares(self, y, z=z, gamma=gamma, start=x_init, **self._limits(max_iter, tol)).x

    def _limits(self, max_iter: int | None, tol: float | None) -> dict[str, Any]:
        """Of the solver, those of a call where it has its own."""
        return {"iterations": self.max_iter if max_iter is None else max_iter, "tolerance": self.tol if tol is None else tol}
