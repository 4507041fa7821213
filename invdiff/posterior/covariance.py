"""Solves with A C A^T + sigma_y^2 I for a stationary covariance C: in closed form where the operator has one, else by CG."""

import torch
from deepinv.models import Denoiser
from deepinv.physics import DecomposablePhysics
from torch import Tensor

from invdiff.priors.spectrum import ErrorSpectrum, model_spectrum, rotate_colours, rotate_colours_back
from invdiff.problem import Problem
from operators import conjugate_gradients

# float32 arithmetic leaves about this much noise in A x, so a "noiseless" measurement is no better than this
NOISE_FLOOR = 1e-6


def spectrum_for(prior: Denoiser, problem: Problem) -> ErrorSpectrum:
    """The error spectrum on the prior's card, or else a stationary model of the image behind this measurement."""
    measured = getattr(prior, "error_spectrum", None)
    spectrum = measured(problem.image_shape[0]) if measured else None
    return spectrum or model_spectrum(problem.physics.A_dagger(problem.y))


class StationaryCovariance:
    """C, diagonal in Fourier space and in opponent colours; `power` (K, H, W // 2 + 1) or (B, K, ...) is its spectrum."""

    def __init__(self, power: Tensor, size: tuple[int, int]):
        self.power, self.size = power, size

    def __call__(self, x: Tensor) -> Tensor:
        """C x for x (B, K, H, W)."""
        return self._filter(self.power, x)

    def inverse(self, x: Tensor, variance: float) -> Tensor:
        """(C + variance I)^-1 x."""
        return self._filter(1 / (self.power + variance), x)

    def _filter(self, spectrum: Tensor, x: Tensor) -> Tensor:
        transformed = spectrum * torch.fft.rfft2(rotate_colours(x))
        return rotate_colours_back(torch.fft.irfft2(transformed, s=self.size))


def solve(problem: Problem, covariance: StationaryCovariance, r: Tensor, start: Tensor | None = None, *,
          tolerance: float = 1e-3, iterations: int = 50) -> Tensor:
    """(A C A^T + sigma_y^2 I)^-1 r, for r (B, ...) in measurement space.

    Operators that have `solve_stationary` act alike on all channels, so a rotation of the colours passes through them.
    The others take conjugate gradients from `start`, to a relative residual of `tolerance`.
    """
    sigma = max(problem.sigma_y, NOISE_FLOOR)
    closed_form = getattr(problem.physics, "solve_stationary", None)
    if closed_form is not None:
        problem.calls.operator += 2 * len(r)
        return rotate_colours_back(closed_form(covariance.power, rotate_colours(r), sigma))

    def apply(v: Tensor) -> Tensor:
        return problem.A(covariance(problem.A_adjoint(v))) + sigma**2 * v

    def precondition(v: Tensor) -> Tensor:
        # for a selection of orthonormal rows, the inverse restricted to them nearly is the restriction's inverse
        return problem.A(covariance.inverse(problem.A_adjoint(v), sigma**2))

    rows = selects_orthonormal_rows(problem.physics)
    return conjugate_gradients(apply, r, start, precondition=precondition if rows else None, tolerance=tolerance,
                               iterations=iterations).x


def selects_orthonormal_rows(physics: object) -> bool:
    """A = P Q with Q orthonormal and P a selection: the singular values are 0 and 1."""
    if not isinstance(physics, DecomposablePhysics):
        return False
    mask = torch.as_tensor(physics.mask)
    return bool(((mask == 0) | (mask == 1)).all())
