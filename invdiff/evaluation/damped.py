"""Damped least squares, (A^T A + noise)^-1 A^T y, for any linear operator."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from invdiff.physics import has_svd
from invdiff.posterior.covariance import in_image_space, is_window
from invdiff.problem import Problem
from operators import conjugate_gradients

ITERATIONS = 500
ROUNDING = 1e-6         # relative residuals below it are that
LEAST = 1e-3            # of the largest singular value, what a preconditioner takes smaller ones for; and where borders are
AT_BORDERS = 0.03       # measured too, otherwise than on a circle


class Damped(NamedTuple):
    """The image (B, C, H, W), and the most iterations that one of them took, 0 in closed form."""

    x: Tensor
    iterations: int


def damped_least_squares(problem: Problem, y: Tensor, noise: float, tolerance: float) -> Damped:
    """(A^T A + noise)^-1 A^T y, or A^+ y without noise, of a problem's operator and any y (B, ...).

    In closed form where the operator has an SVD, else by conjugate gradients to a relative residual of `tolerance`. On the
    measurement, as A^T (A A^T + noise)^-1 y, that tells the error: on the image, whose residual A^T y is nearly all of large
    singular values, the small ones need a hundredth of it. So it is done there where there is noise, and y is smaller; and
    for a window of a circular filter's result, for which the filter's inverse is a preconditioner: a tenth of the iterations.
    """
    physics: Any = problem.physics
    if has_svd(physics):
        return Damped(physics.prox_l2(0.0, y, 1 / noise) if noise else physics.A_dagger(y), 0)
    if (noise or _is_valid(physics)) and (is_window(problem) or not in_image_space(problem)):
        found = conjugate_gradients(lambda v: problem.A(problem.A_adjoint(v)).add(v, alpha=noise), y,
                                    precondition=_preconditioner(problem, noise), tolerance=tolerance, iterations=ITERATIONS)
        return Damped(problem.A_adjoint(found.x), int(found.iterations.max()))
    first = _on_the_image(problem, y, noise, tolerance / 100)
    if noise or tolerance / 100 > ROUNDING:
        return first
    # without noise, rounding ends the first solve early; the second begins from what A still sees
    second = _on_the_image(problem, y - problem.A(first.x), noise, tolerance / 100)
    return Damped(first.x + second.x, first.iterations + second.iterations)


def _is_valid(physics: Any) -> bool:
    return getattr(physics, "boundary", None) == "valid"


def _on_the_image(problem: Problem, y: Tensor, noise: float, tolerance: float) -> Damped:
    found = conjugate_gradients(lambda x: problem.A_adjoint_A(x).add(x, alpha=noise), problem.A_adjoint(y),
                                tolerance=max(tolerance, ROUNDING), iterations=ITERATIONS)
    return Damped(found.x, int(found.iterations.max()))


def _preconditioner(problem: Problem, noise: float) -> Callable[[Tensor], Tensor] | None:
    """R (H H^T + noise)^-1 R^T for A = R H, H circular and R a window."""
    if not is_window(problem):
        return None
    gain, (rows, columns), size = problem.physics.response_power, problem.physics.border, problem.size
    least = LEAST if _is_valid(problem.physics) else AT_BORDERS
    inverse = 1 / (gain + max(noise, least**2 * float(gain.max())))

    def prepare(v: Tensor) -> Tensor:
        whole = torch.fft.irfft2(torch.fft.rfft2(functional.pad(v, (*columns, *rows))) * inverse, s=size)
        return whole[..., rows[0] : rows[0] + v.shape[-2], columns[0] : columns[0] + v.shape[-1]]

    return prepare
