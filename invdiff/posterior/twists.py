"""Gaussian models of x0 and y given the particles at one noise level: the twists of twisted sequential Monte Carlo.

With x0 | x ~ N(D, C) and y = A x0 + n at level sigma, everything about a lower level s is Gaussian too:
    psi(x)          = N(y; A D, A C A^T + sigma_y^2 I)                   the twist, an estimate of p(y | x)
    x_s | x, y      : draw x0 | x, y, then x_s = x0 + q (x - x0) + s sqrt(1 - q) n with q = s^2 / sigma^2
    p(y | x_s, x)   = N(y; A m, A S A^T + sigma_y^2 I)                   with m, S those of x0 given x and x_s
and the weight of a step from x to x_s, p(x_s | x) psi(x_s) / (p(x_s | x, y) psi(x)), is psi(x_s) / p(y | x_s, x). It is 1
where the model is right: for a Gaussian prior with its exact C every step is exact, whatever its length.

Densities are logarithms, (P,) in float64 on the CPU.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.diffusion.randomness import Draw
from invdiff.posterior.covariance import StationaryCovariance
from invdiff.posterior.low_rank import Conditioning, LowRankCovariance, inner
from invdiff.posterior.tweedie import DenoiserAt, Rows, largest_variance, product
from invdiff.priors.spectrum import ErrorSpectrum
from invdiff.problem import Problem

LARGEST = 2**22         # entries of A up to which a factor that all particles share is worked out, for the evidence
COLUMNS = 1e-6, 300     # how exactly to solve for what a covariance was corrected by, whose determinant weighs the particles


class Twist(Protocol):
    """The model at particles x (P, C, H, W) and level sigma.

    Attributes:
        x0: D(x, sigma).
        log_twist: log psi(x).
    """

    x0: Tensor
    log_twist: Tensor

    def at(self, index: Tensor) -> "Twist":
        """The particles at `index`."""

    def propose(self, after: float, draw: Draw) -> Tensor:
        """A draw of the state at level `after`, given x and y."""

    def predicted(self, x: Tensor, after: float) -> Tensor:
        """log p(y | x_after, x) for the state at level `after`."""


class DenseTwist:
    """With the Tweedie covariance: exact where A sees it, by a Jacobian product for each row; white beside it.

    In coordinates e ~ N(0, I): x0 = D + R e + sqrt(c) (I - V V^T) n, with R R^T V = C V and V a basis of A's rows. The
    variance c of what A does not see is the particles' mean, from one more product with a random probe (Hutchinson 1989).
    """

    def __init__(self, prior: Denoiser, problem: Problem, rows: Rows, x: Tensor, sigma: float, draw: Draw):
        at = DenoiserAt(prior, x, sigma)
        self.rows, self.x, self.x0, self.sigma = rows, x, at.x0, sigma
        self.noise = problem.noise_variance
        self.root = rows.root(at, largest_variance(prior, x, sigma))         # R, (P, n, k)
        self.white = self._left_white(at, draw(x.shape[1:]))
        self.residual = rows.residual(problem, at.x0)                           # (P, k)
        self.log_twist = self._log_normal(self.residual, self._seen())

    def _left_white(self, at: DenoiserAt, probe: Tensor) -> float:
        """The mean variance beside the rows, of C - R R^T."""
        free = self.rows.basis.shape[1] - self.rows.basis.shape[2]
        probe = self._beside(probe)
        pulled = at.transposed(probe.to(at.x0).reshape(at.x0.shape)).flatten(1).double().cpu()
        traces = (probe * pulled).sum(1) - product(self.root.mT, probe).square().sum(1)
        return max(float(traces.mean()) / free, 1e-9 * at.variance) if free else 0.0

    def _beside(self, x: Tensor) -> Tensor:
        """(I - V V^T) x, (P, n) in float64 on the CPU."""
        x = x.flatten(1).double().cpu()
        return x - product(self.rows.basis, product(self.rows.basis.mT, x))

    def _seen(self) -> Tensor:
        """A in the coordinates e, (P, k, k)."""
        return self.rows.seen(self.root)

    def _log_normal(self, residual: Tensor, root: Tensor) -> Tensor:
        """log N(residual; 0, root root^T + sigma_y^2 I)."""
        factor = self._factor(root)
        white = torch.linalg.solve_triangular(factor, residual[..., None], upper=False)[..., 0]
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -white.square().sum(-1) / 2 - log_det - residual.shape[-1] / 2 * math.log(2 * math.pi)

    def _factor(self, root: Tensor) -> Tensor:
        eye = torch.eye(root.shape[-2], dtype=torch.float64)
        return torch.linalg.cholesky(root @ root.mT + self.noise * eye)

    def at(self, index: Tensor) -> "DenseTwist":
        chosen = object.__new__(DenseTwist)
        chosen.__dict__.update(self.__dict__)
        for name in ("x", "x0", "root", "residual", "log_twist"):
            tensor = getattr(self, name)
            setattr(chosen, name, tensor[index.to(tensor.device)])
        return chosen

    def propose(self, after: float, draw: Draw) -> Tensor:
        seen = self._seen()
        e, n = (draw((seen.shape[1],)).double().cpu() for _ in range(2))
        misfit = self.residual - product(seen, e) - self.noise**0.5 * n
        e = e + product(seen.mT, torch.cholesky_solve(misfit[..., None], self._factor(seen))[..., 0])
        deviation = product(self.root, e) + self.white**0.5 * self._beside(draw(self.x.shape[1:]))
        return lower(self.x, self.x0 + deviation.to(self.x0).reshape(self.x0.shape), self.sigma, after, draw)

    def predicted(self, x: Tensor, after: float) -> Tensor:
        precision = 1 / after**2 - 1 / self.sigma**2
        q = (after / self.sigma) ** 2
        shift = ((x - q * self.x) / (1 - q) - self.x0).flatten(1).double().cpu()     # of x0, seen with that precision
        inside = self.rows.basis.mT @ self.root                                      # V^T R
        outside = self.root - self.rows.basis @ inside
        blurred = self.white + 1 / precision                                         # variance beside the rows
        eye = torch.eye(inside.shape[-1], dtype=torch.float64)
        information = eye + precision * inside.mT @ inside + outside.mT @ outside / blurred
        factor = torch.linalg.cholesky(information)
        pull = precision * product(inside.mT, product(self.rows.basis.mT, shift)) + product(outside.mT, shift) / blurred
        e = torch.cholesky_solve(pull[..., None], factor)[..., 0]
        seen = self._seen()
        left = torch.linalg.solve_triangular(factor, seen.mT, upper=False).mT        # times its transpose: A S A^T
        return self._log_normal(self.residual - product(seen, e), left)


class StationaryTwist:
    """With the spectrum of the prior's error for C, made exact along `rank` directions of each particle."""

    def __init__(self, prior: Denoiser, model: "StationaryModel", x: Tensor, sigma: float):
        self.model, self.x, self.sigma = model, x, sigma
        self.covariance = LowRankCovariance(model.base(sigma, x.device), len(x))
        self.conditioning = model.conditioning(self.covariance)
        at = DenoiserAt(prior, x, sigma) if model.rank else None
        self.x0 = at.x0 if at else prior(x, sigma)
        self.residual = self.conditioning.residual(self.x0)                     # (P, ...)
        weights = self.conditioning.base(self.residual)
        if at:
            weights = self.conditioning.learn(weights, at.transposed, model.rank)
        self.log_twist = model.log_normal(self.conditioning, self.residual, weights)

    def at(self, index: Tensor) -> "StationaryTwist":
        chosen = object.__new__(StationaryTwist)
        chosen.model, chosen.sigma = self.model, self.sigma
        chosen.x, chosen.x0, chosen.residual = (part[index] for part in (self.x, self.x0, self.residual))
        chosen.covariance = self.covariance.at(index)
        chosen.conditioning = self.conditioning.at(index, chosen.covariance)
        chosen.log_twist = self.log_twist[index.cpu()]
        return chosen

    def propose(self, after: float, draw: Draw) -> Tensor:
        problem = self.model.problem
        deviation = self.covariance.sample(self.x.shape[1:], draw)
        noise = problem.sigma_y * draw(problem.y.shape[1:]) * self.model.observed
        misfit = self.residual - problem.A(deviation) - noise
        weights = self.conditioning.correct(self.conditioning.base(misfit))
        x0 = self.x0 + deviation + self.covariance(problem.A_adjoint(weights))
        return lower(self.x, x0, self.sigma, after, draw)

    def predicted(self, x: Tensor, after: float) -> Tensor:
        precision = 1 / after**2 - 1 / self.sigma**2
        q = (after / self.sigma) ** 2
        left = self.covariance.observed(precision)
        mean = precision * left((x - q * self.x) / (1 - q) - self.x0)           # of x0 - D given x and x_after
        residual = self.residual - self.model.problem.A(mean)
        conditioning = self.model.conditioning(left)
        return self.model.log_normal(conditioning, residual, conditioning.correct(conditioning.base(residual)))


@dataclass(frozen=True)
class StationaryModel:
    """What the particles of a `StationaryTwist` share: the problem (one measurement), the spectrum, and how to solve."""

    problem: Problem
    spectrum: ErrorSpectrum
    rank: int
    tolerance: float
    iterations: int

    def base(self, sigma: float, device: torch.device) -> StationaryCovariance:
        size = self.problem.size
        return StationaryCovariance(self.spectrum.at(sigma, size, device), size)

    def conditioning(self, covariance: LowRankCovariance) -> Conditioning:
        columns = min(self.tolerance, COLUMNS[0]), max(self.iterations, COLUMNS[1])
        return Conditioning(self.problem, covariance, (self.tolerance, self.iterations), columns)

    def log_normal(self, conditioning: Conditioning, residual: Tensor, weights: Tensor) -> Tensor:
        """log N(residual; 0, A C A^T + sigma_y^2 I), with `weights` that matrix's inverse times the residual. Where the
        measurement is large, without the factor that C0 alone gives, which is the same for all particles."""
        log_det = conditioning.log_determinant_ratio() + self._shared(conditioning.covariance.base)
        return -(inner([residual], weights)[:, 0] + log_det) / 2

    @property
    def known(self) -> bool:
        """Whether that factor is worked out."""
        return self.problem.y[0].numel() * math.prod(self.problem.image_shape) <= LARGEST

    @cached_property
    def observed(self) -> Tensor:
        """True where the operator reaches y, (1, ...)."""
        return self.problem.observed()

    @cached_property
    def _adjoint(self) -> Tensor:
        """A^T of the units of y that the operator reaches, (m, C, H, W)."""
        y = self.problem.y
        rows = self.problem.A_adjoint(torch.eye(y[0].numel()).to(y).reshape(-1, *y.shape[1:]))
        return rows[rows.flatten(1).any(1)]

    def _shared(self, base: StationaryCovariance) -> float:
        """log det(2 pi (A C0 A^T + sigma_y^2 I)) over what the operator reaches, or 0."""
        if not self.known:
            return 0.0
        rows = self._adjoint.flatten(1).double()
        gram = rows @ base(self._adjoint).flatten(1).double().T
        noise = self.problem.noise_variance * torch.eye(len(gram), dtype=torch.float64, device=gram.device)
        return float(torch.logdet(2 * torch.pi * (gram + noise)))


def lower(x: Tensor, x0: Tensor, sigma: float, after: float, draw: Draw) -> Tensor:
    """A draw of the state at level `after`, given x at sigma and x0 (Ho et al. 2020, Eq. 6, without the scaling)."""
    q = (after / sigma) ** 2
    return x0 + q * (x - x0) + after * (1 - q) ** 0.5 * draw(x.shape[1:])
