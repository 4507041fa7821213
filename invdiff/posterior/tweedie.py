"""The covariance of x0 given x by Tweedie's formula, C = sigma^2 dD/dx, from products with the denoiser's Jacobian.

C is symmetric for an exact denoiser and not quite for a network; (C + C^T) / 2 stands for it throughout.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from deepinv.models import Denoiser
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from invdiff.diffusion.integrators import Denoise
from invdiff.errors import InputError
from invdiff.physics import selects_orthonormal_rows
from invdiff.posterior.covariance import (
    StationaryCovariance,
    has_closed_form,
    in_image_space,
    preconditioner,
    solve,
    spectrum_for,
    within_range,
)
from invdiff.posterior.likelihood import length
from invdiff.posterior.low_rank import Conditioning, ImageConditioning, LowRankCovariance
from invdiff.priors.facts import known_spectrum
from invdiff.problem import Problem
from operators import conjugate_gradients

# Where noise is small and steps are few, what a network's Jacobian says along one direction can throw the rest far off: a
# correction so many times as long as the spectrum's own is not taken, but that one.
LONGEST = 2.0
CREDIBLE = 10.0     # as many times the largest variance of a mean over images, an image's own may be


class DenoiserAt:
    """D at x, and products with C there at the cost of a backward pass. The graph lives as long as the object.

    twice: to be differentiated a second time, of which fused attention knows nothing; as `symmetric` and `bent` do.
    """

    def __init__(self, prior: Denoiser, x: Tensor, sigma: float, twice: bool = False):
        self.variance = sigma**2
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if twice else nullcontext():
            self._x = x.detach().requires_grad_()
            self._x0 = prior(self._x, sigma)
        if not self._x0.requires_grad:
            raise InputError(f"{type(prior).__name__} gives no gradient by x, which the covariances exact and low-rank "
                             "need; covariance spectral needs none (--set sampler.covariance=spectral)")
        self.x0 = self._x0.detach()
        self._pulled: tuple[Tensor, Tensor] | None = None

    def transposed(self, v: Tensor) -> Tensor:
        """C^T v for v (B, C, H, W)."""
        return self.variance * torch.autograd.grad(self._x0, self._x, v, retain_graph=True)[0]

    def symmetric(self, v: Tensor) -> Tensor:
        """(C + C^T) v / 2, three times the cost: C v is the derivative of the linear u -> C^T u."""
        if self._pulled is None:
            with torch.enable_grad():
                u = torch.zeros_like(self._x0, requires_grad=True)
                self._pulled = u, torch.autograd.grad(self._x0, self._x, u, create_graph=True)[0]
        u, pulled = self._pulled
        forwards = self.variance * torch.autograd.grad(pulled, u, v, retain_graph=True)[0]
        return (forwards + self.transposed(v)) / 2

    def bent(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """The gradient by x of the sum of u^T C v over pairs of (B, C, H, W): zero for a denoiser that is linear."""
        total = torch.zeros_like(self.x0)
        for u, v in pairs:                  # one after another: the graph of a gradient is as large as the network's
            with torch.enable_grad():
                pulled = torch.autograd.grad(self._x0, self._x, u, create_graph=True)[0]
                curvature = self.variance * (pulled * v).sum()
            bent = None
            if curvature.requires_grad:
                bent = torch.autograd.grad(curvature, self._x, retain_graph=True, allow_unused=True)[0]
            if bent is None:
                break
            total += bent
        return total


@dataclass(frozen=True)
class Rows:
    """A linear operator of few rows by its singular value decomposition, A = U diag(s) V^T, in float64 on the CPU.

    Attributes:
        left: U, (b, m, k) with b = 1, or a matrix for each measurement.
        scale: s, (b, k).
        basis: V, (b, n, k).
    """

    left: Tensor
    scale: Tensor
    basis: Tensor

    @classmethod
    def of(cls, problem: Problem) -> "Rows":
        """By a product with A^T for each of the m values of a measurement."""
        unit = torch.eye(problem.y[0].numel()).to(problem.y).reshape(-1, 1, *problem.y.shape[1:])
        rows = torch.stack([problem.A_adjoint(e).flatten(1) for e in unit], 1).double().cpu()       # (b, m, n)
        left, scale, right = torch.linalg.svd(rows, full_matrices=False)
        known = (scale > 1e-6 * scale.amax()).any(0)
        return cls(left[..., known], scale[:, known], right.mT[..., known])

    def residual(self, problem: Problem, x: Tensor) -> Tensor:
        """U^T (y - A x), whose noise is white as it was; (B, k)."""
        seen = self.scale * product(self.basis.mT, x.flatten(1).double().cpu())
        return product(self.left.mT, problem.y.flatten(1).double().cpu()) - seen

    def log_left(self, problem: Problem) -> float:
        """log density of what one measurement holds besides: noise, on combinations of the reached values that A leaves at
        zero."""
        noise = problem.noise_variance
        y = problem.y.flatten(1).double().cpu()
        left = y - product(self.left, product(self.left.mT, y))
        count = int(problem.observed().sum()) - self.left.shape[2]
        return -(float(left.square().sum()) / noise + count * math.log(2 * math.pi * noise)) / 2

    def root(self, at: DenoiserAt, largest: float = math.inf) -> Tensor:
        """R (B, n, k) with R R^T V = C V: the part of C that A sees. By k Jacobian products.

        largest: of C's variances. As |C v|^2 <= largest v^T C v, a direction whose product is longer is given the variance
        that it tells of, and of a C that is a covariance none is.
        """
        units = self.basis.to(at.x0).unbind(2)                                                      # k of (b, n)
        columns = [at.transposed(v.reshape(-1, *at.x0.shape[1:]).expand_as(at.x0)).flatten(1) for v in units]
        pulled = torch.stack(columns, 2).double().cpu()                                             # C^T V
        inside = self.basis.mT @ pulled
        values, vectors = torch.linalg.eigh((inside + inside.mT) / 2)
        values = values.maximum(1e-6 * values[:, -1:]).clamp_min(1e-9 * at.variance)                # float32 gives no more
        values = values.maximum((pulled @ vectors).square().sum(1) / largest)
        outside = pulled - self.basis @ inside
        # with V^T C V = L L^T, L = Q values^1/2: R = V L + (I - V V^T) C V L^-T
        return self.basis @ (vectors * values.sqrt()[:, None]) + outside @ (vectors / values.sqrt()[:, None])

    def seen(self, root: Tensor) -> Tensor:
        """diag(s) V^T R, (B, k, k): A of what has the covariance R R^T, in coordinates of U."""
        return self.scale[..., None] * (self.basis.mT @ root)


def largest_variance(prior: Denoiser, x: Tensor, sigma: float) -> float:
    """That of C, if the prior's error spectrum is known: CREDIBLE times the largest it has anywhere; else infinite."""
    spectrum = known_spectrum(prior, x.shape[1])
    size = (x.shape[-2], x.shape[-1])
    return CREDIBLE * float(spectrum.at(sigma, size, x.device).amax()) if spectrum else math.inf


def exact_rule(prior: Denoiser, problem: Problem, *, tolerance: float | None, iterations: int | None) -> Denoise:
    """D + C A^T (A C A^T + sigma_y^2 I)^-1 (y - A D) with the Tweedie covariance C (Rozet et al. 2024, Eq. 14; Boys et al.
    2023), by conjugate gradients, three backward passes an iteration."""
    weights: Tensor | None = None        # the last solve starts the next

    def denoise(x: Tensor, sigma: float) -> Tensor:
        nonlocal weights
        at, noise = DenoiserAt(prior, x, sigma, twice=True), problem.noise_variance
        residual = within_range(problem, problem.y - problem.A(at.x0))
        weights = conjugate_gradients(lambda w: problem.A(at.symmetric(problem.A_adjoint(w))) + noise * w, residual, weights,
                                      tolerance=tolerance or 1e-2, iterations=iterations or 20,
                                      precondition=_preconditioner(prior, problem, x, sigma)).x
        correction = at.symmetric(problem.A_adjoint(weights))
        return at.x0 + _believable(problem, residual, correction)

    return denoise


def _believable(problem: Problem, residual: Tensor, correction: Tensor) -> Tensor:
    """A correction C A^T (A C A^T + sigma_y^2 I)^-1 r that explains no more than r, as no covariance does: else shortened to
    that. sigma^2 dD/dx of a network is none at noise levels above an image's range, and sampling ran away."""
    explained = length(problem.A(correction)) / length(residual).clamp_min(torch.finfo(residual.dtype).tiny)
    return correction / explained.clamp_min(1)


def low_rank_rule(prior: Denoiser, problem: Problem, *, tolerance: float | None, iterations: int | None,
                 rank: int) -> Denoise:
    """The same with the prior's error spectrum for C, made exact along A^T w for the solution w; this `rank` times."""
    spectrum = spectrum_for(prior, problem)
    large = in_image_space(problem) and not has_closed_form(problem)
    kind = ImageConditioning if large else Conditioning
    # what ends before it has converged is no draw: with 20 iterations samples of dense random sums diverged
    usual = (2e-3, 30) if large else (0.1, 20) if selects_orthonormal_rows(problem.physics) else (1e-2, 300)
    accuracy = tolerance or usual[0], iterations or usual[1]
    start: Tensor | None = None

    def denoise(x: Tensor, sigma: float) -> Tensor:
        nonlocal start
        at = DenoiserAt(prior, x, sigma)
        covariance = LowRankCovariance(StationaryCovariance(spectrum.at(sigma, problem.size, x.device), problem.size), len(x))
        solves = kind(problem, covariance, accuracy)
        start = solves.base(solves.residual(at.x0), start)
        plain = covariance.base(solves.image(start))
        correction = covariance(solves.image(solves.learn(start, at.transposed, rank)))
        return at.x0 + torch.where(length(correction) > LONGEST * length(plain), plain, correction)

    return denoise


def _preconditioner(prior: Denoiser, problem: Problem, x: Tensor, sigma: float) -> Callable[[Tensor], Tensor] | None:
    """About (A C A^T + sigma_y^2 I)^-1, where the spectrum of the prior's error is known and gives it in closed form."""
    spectrum = known_spectrum(prior, x.shape[1])
    if spectrum is None:
        return None
    size = (x.shape[-2], x.shape[-1])
    covariance = StationaryCovariance(spectrum.at(sigma, size, x.device), size)
    return (lambda v: solve(problem, covariance, v)) if has_closed_form(problem) else preconditioner(problem, covariance)


def product(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices (b, m, n) times vectors (B, n)."""
    return (matrix @ vector[..., None])[..., 0]
