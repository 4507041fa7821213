"""A problem in the basis of its operator's singular value decomposition, where the components are scalars of their own."""

from dataclasses import dataclass

import torch
from deepinv.physics import DecomposablePhysics, LinearPhysics
from torch import Tensor

from invdiff.errors import InputError
from invdiff.physics import has_svd
from invdiff.posterior.likelihood import NONLINEAR
from invdiff.problem import Problem, require


@dataclass(frozen=True)
class Components:
    """y = A x + n as c_i = target_i + spread_i n_i, for c = V^T x, n white of deviation one, and the i that were measured.

    Attributes:
        problem: with a measurement for each of B chains.
        singular: s, (B, C, H, W), zero where nothing is measured.
        target: V^T A^+ y, zero where nothing is measured.
        spread: sigma_y / s, infinite where nothing is measured.
    """

    problem: Problem
    singular: Tensor
    target: Tensor
    spread: Tensor

    def of(self, x: Tensor) -> Tensor:
        """V^T x."""
        self.problem.calls.operator += len(x)
        return self.problem.physics.V_adjoint(x)

    def image(self, c: Tensor) -> Tensor:
        """V c."""
        self.problem.calls.operator += len(c)
        return self.problem.physics.V(c)


def has_components(problem: Problem) -> bool:
    """Has the operator an SVD over the reals, with white noise staying white in its basis?"""
    physics = problem.physics
    if not has_svd(physics):
        return False
    shape = problem.image_shape
    c = physics.V_adjoint(problem.y.new_zeros(1 if _one_mask(physics) else len(problem.y), *shape))
    return c.shape[1:] == shape and not c.is_complex()


def components(problem: Problem, sampler: str, alternatives: str) -> Components:
    """The components of a problem with a measurement for each chain. Raises InputError if the operator has no real SVD."""
    require(problem.physics, LinearPhysics, sampler, NONLINEAR)
    if not has_components(problem):
        kind = "that of {} is no such one" if isinstance(problem.physics, DecomposablePhysics) else "{} has none"
        raise InputError(f"{sampler} needs an operator with an SVD over the reals, of as many components as pixels, and "
                         f"{kind.format(type(problem.physics).__name__)}; these would work: {alternatives}")
    physics, y = problem.physics, problem.y
    mask = torch.as_tensor(physics.mask, device=y.device)
    singular = mask.expand(len(y), *problem.image_shape)
    known = singular > 1e-6 * singular.max()
    inverse = torch.where(known, 1 / singular.clamp_min(1e-30), 0.0)
    problem.calls.operator += len(y)
    return Components(problem, torch.where(known, singular, 0.0), inverse * physics.U_adjoint(y),
                      torch.where(known, problem.sigma_y * inverse, float("inf")))


def _one_mask(physics: DecomposablePhysics) -> bool:
    mask = torch.as_tensor(physics.mask)
    return mask.ndim < 4 or len(mask) == 1
