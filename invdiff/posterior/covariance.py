"""Solves with A C A^T + sigma_y^2 I for a covariance C: in closed form where C is stationary and the operator has one, else
by CG."""

import math
from collections.abc import Callable

import torch
from deepinv.models import Denoiser
from torch import Tensor
from torch.nn import functional

from invdiff.physics import BORDERED, has_svd, selects_orthonormal_rows, selects_pixels
from invdiff.posterior.image_space import condition_in_image_space
from invdiff.priors.facts import known_spectrum
from invdiff.priors.spectrum import ErrorSpectrum, model_spectrum, rotate_colours, rotate_colours_back
from invdiff.problem import Problem
from operators import conjugate_gradients

EDGE = 0.01         # noise, in units of the largest gain, below which a window's edge does more than the noise


def spectrum_for(prior: Denoiser, problem: Problem) -> ErrorSpectrum:
    """The error spectrum on the prior's card, or else a stationary model of the image behind this measurement."""
    return known_spectrum(prior, problem.image_shape[0]) or model_spectrum(problem.estimate())


class StationaryCovariance:
    """C, diagonal in Fourier space and in opponent colours; `power` (K, H, W // 2 + 1) or (B, K, ...) is its spectrum.

    scale: W (B, 1, H, W) makes W C W of it, no longer stationary.
    """

    def __init__(self, power: Tensor, size: tuple[int, int], scale: Tensor | None = None):
        self.power, self.size, self.scale = power, size, scale

    def __call__(self, x: Tensor) -> Tensor:
        """C x for x (B, K, H, W)."""
        if self.scale is not None:
            return self.scale * StationaryCovariance(self.power, self.size)(self.scale * x)
        return rotate_colours_back(torch.fft.irfft2(torch.fft.rfft2(rotate_colours(x)) * self.power, s=self.size))

    def root(self, x: Tensor) -> Tensor:
        """R x with R R^T = C: a draw of N(0, C), of white noise x."""
        x = StationaryCovariance(self.power.sqrt(), self.size)(x)
        return x if self.scale is None else self.scale * x

    def inverse(self, x: Tensor, variance: float) -> Tensor:
        """(C + variance I)^-1 x of a stationary one."""
        return StationaryCovariance(1 / (self.power + variance), self.size)(x)


def solve(problem: Problem, covariance: StationaryCovariance, r: Tensor, start: Tensor | None = None, *,
          tolerance: float = 1e-3, iterations: int = 50) -> Tensor:
    """(A C A^T + sigma_y^2 I)^-1 r, for r (B, ...) in measurement space.

    In closed form where the operator has one; else by conjugate gradients from `start`, to a relative residual of
    `tolerance`.
    """
    sigma = problem.noise_variance**0.5
    if has_closed_form(problem) and covariance.scale is None:
        problem.calls.operator += 2 * len(r)
        return rotate_colours_back(problem.physics.solve_stationary(covariance.power, rotate_colours(r), sigma))
    seen = seen_in_one_pass(problem, covariance) or (lambda v: problem.A(covariance(problem.A_adjoint(v))))
    within, start = within_range(problem, r), None if start is None else within_range(problem, start)
    w = conjugate_gradients(lambda v: seen(v) + sigma**2 * v, within, start, precondition=preconditioner(problem, covariance),
                            tolerance=tolerance, iterations=iterations).x
    return w if within is r else w + (r - within) / sigma**2


def has_closed_form(problem: Problem) -> bool:
    """Does the operator have `solve_stationary`, leave the number of channels, and do the same to three of them, so that the
    rotation of the colours passes through it?"""
    if not hasattr(problem.physics, "solve_stationary"):
        return False
    channels = problem.image_shape[0]
    return problem.y.shape[1] == channels and (channels != 3 or problem.alike)


def in_image_space(problem: Problem) -> bool:
    """Are solves without a closed form better done there than on the measurement?"""
    return not selects_orthonormal_rows(problem.physics) and problem.y[0].numel() >= math.prod(problem.image_shape)


def preconditioner(problem: Problem, covariance: StationaryCovariance) -> Callable[[Tensor], Tensor] | None:
    """About (A C A^T + sigma_y^2 I)^-1, where something is known of it."""
    if selects_orthonormal_rows(problem.physics):
        return _preconditioner_of_rows(problem, covariance)
    if is_window(problem):
        return _preconditioner_of_window(problem, covariance)
    closed_form = getattr(problem.physics, "solve_stationary", None)
    if closed_form is None:
        return None
    sigma = problem.noise_variance**0.5
    return lambda v: closed_form(covariance.power, v, sigma)       # exact if C were diagonal in the channels as they are


def _preconditioner_of_rows(problem: Problem, covariance: StationaryCovariance) -> Callable[[Tensor], Tensor]:
    """A (C + sigma_y^2 I)^-1 A^T: for a selection of orthonormal rows, the inverse's restriction nearly is the inverse."""
    inverse = StationaryCovariance(1 / (covariance.power + problem.noise_variance), covariance.size,
                                   None if covariance.scale is None else 1 / covariance.scale)
    return lambda v: problem.A(inverse(problem.A_adjoint(v)))


def is_window(problem: Problem) -> bool:
    """Is what is measured a window of a circular filter's result, or like it but for the borders?"""
    return isinstance(problem.physics, BORDERED)


def _preconditioner_of_window(problem: Problem, covariance: StationaryCovariance) -> Callable[[Tensor], Tensor]:
    """R (H C H^T + sigma_y^2 I)^-1 R^T for A = R H, H circular and R a window; with some noise at least, as which the window's
    edge counts."""
    gain = problem.physics.response_power
    power = covariance.power if covariance.scale is None else covariance.power * covariance.scale.square().mean((1, 2, 3), True)
    noise = max(problem.noise_variance, EDGE**2 * float(gain.max()))
    return _within(problem, 1 / (power * gain + noise))


def seen_in_one_pass(problem: Problem, covariance: StationaryCovariance) -> Callable[[Tensor], Tensor] | None:
    """v -> A C A^T v where A = R H as above, and C is stationary: by one filter, H C H^T; None elsewhere."""
    if not is_window(problem) or covariance.scale is not None or getattr(problem.physics, "boundary", None) != "valid":
        return None
    filtered = _within(problem, covariance.power * problem.physics.response_power)

    def seen(v: Tensor) -> Tensor:
        problem.calls.operator += 2 * len(v)            # counted as if they were called
        return filtered(v)

    return seen


def _within(problem: Problem, power: Tensor) -> Callable[[Tensor], Tensor]:
    """R F R^T for the circular filter F of a spectrum, and R the window that is measured."""
    rows, columns = problem.physics.border
    (height, width), (top, _), (left, _) = problem.y.shape[-2:], rows, columns
    filtered = StationaryCovariance(power, problem.size)
    return lambda v: filtered(functional.pad(v, (*columns, *rows)))[..., top : top + height, left : left + width]


def condition(problem: Problem, covariance: StationaryCovariance, x0: Tensor, start: Tensor | None = None, *,
              residual: Tensor | None = None, tolerance: float | None = None,
              iterations: int | None = None) -> tuple[Tensor, Tensor | None]:
    """C A^T (A C A^T + sigma_y^2 I)^-1 (y - A x0), (B, C, H, W): what the data add to an estimate x0 of covariance C.

    In closed form where the operator has one, else by conjugate gradients, for which a second result, None otherwise, is
    where to start the next. residual: y - A x0, if it is known. tolerance: of the relative residual; by default what a
    sampler's step needs.
    """
    closed = has_closed_form(problem) and covariance.scale is None
    if closed or not in_image_space(problem):
        r = problem.y - problem.A(x0) if residual is None else residual
        if closed:
            return _condition_in_closed_form(problem, covariance, r), None
        rows = selects_orthonormal_rows(problem.physics)
        few = 5 if selects_pixels(problem.physics) else 10
        usual = (0.1, few) if rows else (1e-2, 300)             # a cap; 20 left noise in samples
        return _condition_on_data(problem, covariance, r, start, tolerance or usual[0], iterations or usual[1])
    many = problem.y[0].numel() > math.prod(problem.image_shape)            # coils, whose products cost most
    return condition_in_image_space(problem, covariance.power, covariance.scale, x0, start, noise=problem.noise_variance,
                                    tolerance=tolerance or 2e-3, iterations=iterations or (30 if many else 300))


def _condition_on_data(problem: Problem, covariance: StationaryCovariance, r: Tensor, start: Tensor | None,
                       tolerance: float, iterations: int) -> tuple[Tensor, Tensor]:
    """The correction for a residual r, and w = `solve(...)`, by conjugate gradients on w, for measurements smaller than the
    image.

    Each direction is filtered by C A^T on the way, but where A C A^T is one pass: summed up like w, those are C A^T w, which
    saves the last product. Nor is a direction prepared that is not taken.
    """
    def pull(v: Tensor) -> Tensor:
        return covariance(problem.A_adjoint(v))

    noise, prepare, seen = problem.noise_variance, preconditioner(problem, covariance), seen_in_one_pass(problem, covariance)
    r = within_range(problem, r)
    w = torch.zeros_like(r) if start is None else start
    u = r.new_zeros(len(r), *problem.image_shape) if start is None else pull(start)
    left = r if start is None else r - problem.A(u) - noise * w
    p, rz, target = torch.zeros_like(r), torch.ones_like(dots(r, r)), tolerance**2 * dots(r, r)
    for _ in range(iterations):
        active = dots(left, left) > target              # an item that is done is left alone, whatever the others do
        if not active.any():
            break
        z = prepare(left) if prepare else left
        old, rz = rz, dots(left, z)
        active = active & (rz > 0)                      # of what no direction reaches nothing more is to be had
        p = z + torch.where(active, rz / old, 0) * p
        if seen:
            q = seen(p) + noise * p
        else:
            pulled = pull(p)
            q = problem.A(pulled) + noise * p
        curvature = dots(p, q)
        active = active & (curvature > 0)
        step = torch.where(active, rz / torch.where(active, curvature, 1), 0)
        w, left = w + step * p, left - step * q
        if not seen:
            u = u + step.reshape(-1, 1, 1, 1) * pulled
        rz = torch.where(active, rz, 1)
    return (pull(w) if seen else u), w


def _condition_in_closed_form(problem: Problem, covariance: StationaryCovariance, r: Tensor) -> Tensor:
    if not hasattr(problem.physics, "response"):
        return covariance(problem.A_adjoint(solve(problem, covariance, r)))
    problem.calls.operator += 3 * len(r)                # a circular filter: all in one pass, counted as if they were called
    response, gain, power = problem.physics.response, problem.physics.response_power, covariance.power
    spectrum = torch.fft.rfft2(rotate_colours(r)).mul_(response.conj()).mul_(power / (power * gain + problem.noise_variance))
    return rotate_colours_back(torch.fft.irfft2(spectrum, s=covariance.size))


def prox(problem: Problem, residual: Tensor, variance: Tensor | float) -> Tensor:
    """v A^T (v A A^T + sigma_y^2 I)^-1 residual, for a white covariance v I: by the operator's SVD, or by CG."""
    physics, noise = problem.physics, problem.noise_variance
    if has_svd(physics):
        problem.calls.operator += 2 * len(residual)
        s, c = physics.mask, physics.U_adjoint(residual)
        v = torch.as_tensor(variance).to(residual).reshape(-1, *[1] * (c.ndim - 1))         # whatever shape theirs have
        return physics.V(v * s / (v * s.square() + noise) * c)
    v = torch.as_tensor(variance).to(residual).reshape(-1, *[1] * (residual.ndim - 1))      # as it is for measurements
    weights = conjugate_gradients(lambda w: v * problem.A(problem.A_adjoint(w)) + noise * w, residual,
                                  tolerance=1e-3, iterations=50).x
    return variance * problem.A_adjoint(weights)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of each item, (B, 1, ...)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def within_range(problem: Problem, r: Tensor) -> Tensor:
    """A A^T r of a selection of orthonormal rows, but r where that only picks entries of it, and of any other operator.

    (A C A^T + sigma_y^2 I)^-1 divides the rest of r by sigma_y^2, and A^T makes nothing of that; what prepares conjugate
    gradients by A^T never sees it, so that they would wait for it to fall, and end at 0 / 0.
    """
    return r if problem.reaches_entries else problem.A(problem.A_adjoint(r))
