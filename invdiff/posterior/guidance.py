"""Guidance rules: from a prior denoiser E[x0 | x] and a problem to a posterior denoiser E[x0 | x, y].

With r = y - A D and C the covariance of x0 given x, Gaussian conditioning gives
    E[x0 | x, y] = D + C A^T (A C A^T + sigma_y^2 I)^-1 r,
and the rules differ in what they put for C. Any integrator runs on the result.
"""

from typing import ClassVar, Literal

import torch
from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.diffusion.integrators import Denoise
from invdiff.diffusion.randomness import Draw
from invdiff.physics import selects_pixels
from invdiff.posterior.covariance import (
    StationaryCovariance,
    condition,
    has_closed_form,
    is_window,
    prox,
    spectrum_for,
)
from invdiff.posterior.likelihood import NONLINEAR, length
from invdiff.posterior.saddlepoint import saddlepoint_rule
from invdiff.posterior.sampler import Sampler
from invdiff.posterior.surplus import Surplus
from invdiff.posterior.tweedie import exact_rule, low_rank_rule
from invdiff.priors.spectrum import ErrorSpectrum
from invdiff.problem import Problem, require

FEW_VALUES = 32     # in a measurement, up to which A C A^T is built, a backward pass for each
HIGH = 1.0          # a noise level above an image's own range


class MomentMatching(Sampler):
    """Second-order guidance (Boys et al. 2023; Rozet et al. 2024; Peng et al. 2024; Rissanen et al. 2025).

    covariance: what stands for C, the covariance of x0 given x. "spectral": the prior's measured error spectrum
    C(sigma, f), scaled up for images whose misfit says so, one network call a step; exact (up to the integrator) for a
    stationary Gaussian prior. "local": the spectrum, and more of it where the estimate has contrast, if the prior's card
    tells how much; the same as "spectral" where the operator has a closed form for that, for blurs with borders, and for
    missing pixels, in whose place an estimate's contrast tells little. "exact": Tweedie's sigma^2 dD/dx, by Jacobian products;
    exact for every Gaussian prior. "low-rank": the spectrum, made exact along the `rank` directions that matter most, for a
    call and `rank` backward passes a step.
    """

    uses_spectrum: ClassVar[bool] = True
    about: ClassVar[str] = "default; weighs prior and data by the prior's measured errors"
    covariance: Literal["local", "spectral", "exact", "low-rank"] = "local"
    rank: PositiveInt = 3
    cg_iterations: PositiveInt | None = None
    cg_tolerance: PositiveFloat | None = None

    def posterior_denoiser(self, prior: Denoiser, problem: Problem) -> Denoise:
        require(problem.physics, LinearPhysics, "MomentMatching", NONLINEAR)
        tolerance, iterations = self.cg_tolerance, self.cg_iterations
        if self.covariance == "exact":
            if problem.y[0].numel() <= FEW_VALUES:
                return saddlepoint_rule(prior, problem)
            return exact_rule(prior, problem, tolerance=tolerance, iterations=iterations)
        if self.covariance == "low-rank":
            return low_rank_rule(prior, problem, tolerance=tolerance, iterations=iterations, rank=self.rank)
        return spectral_rule(prior, problem, local=self.covariance == "local", tolerance=tolerance, iterations=iterations)

    def remainder(self, prior: Denoiser, problem: Problem, x0: Tensor, sigma: float, draw: Draw) -> Tensor:
        """Of covariance (C^-1 + A^T A / sigma_y^2)^-1, by perturbing and solving (Papandreou & Yuille 2010): a draw u of C, and
        what data that are noise alone add to it. The "exact" form has no draws of its C."""
        if self.covariance == "exact":
            return torch.zeros_like(x0)
        spectrum = spectrum_for(prior, problem)
        if self.covariance == "local" and weighs_contrast(spectrum, problem):
            power, scale = spectrum.local_at(sigma, x0)
        else:
            power, scale = spectrum.at(sigma, problem.size, x0.device), None
        covariance = StationaryCovariance(power, problem.size, scale)
        u = covariance.root(draw(problem.image_shape))
        noise = problem.noise_variance**0.5 * draw(problem.y.shape[1:]) * problem.observed()
        return u + condition(problem.of(noise), covariance, u, tolerance=self.cg_tolerance or 2e-3,
                             iterations=self.cg_iterations or 100)[0]


def weighs_contrast(spectrum: ErrorSpectrum, problem: Problem) -> bool:
    """Is more known of errors where an estimate has contrast, and is that of use with this operator?"""
    return (getattr(spectrum, "local", None) is not None and not has_closed_form(problem)
            and not selects_pixels(problem.physics) and not is_window(problem))


def spectral_rule(prior: Denoiser, problem: Problem, *, local: bool, tolerance: float | None,
                  iterations: int | None) -> Denoise:
    """Moment matching with the prior's error spectrum for C, with `local` weighted by what the estimate looks like.

    A spectrum that is not weighted so is scaled to what the data say of this image's errors (`Surplus`), but not at levels
    above the image's own range, where the state has yet to take in the data. Where conjugate gradients are needed, each step
    goes on from the last one's solution; on a selection of pixels one is enough at such levels: what it leaves to do the next
    steps do. (On one of frequencies or sums it is not: sampling may run away.)
    """
    pixels = selects_pixels(problem.physics)
    spectrum = spectrum_for(prior, problem)
    local = local and weighs_contrast(spectrum, problem)
    known = local or getattr(spectrum, "exact", False)        # of this image's errors more than a mean over others'
    surplus = Surplus(problem) if Surplus.suits(problem) and not known else None
    weights: Tensor | None = None        # the last solve starts the next

    def denoise(x: Tensor, sigma: float) -> Tensor:
        nonlocal weights
        x0 = prior(x, sigma)
        power, scale = spectrum.local_at(sigma, x0) if local else (spectrum.at(sigma, problem.size, x.device), None)
        residual = None
        if surplus and sigma < HIGH:
            residual = problem.y - problem.A(x0)
            power = power * surplus(power, residual)
        covariance = StationaryCovariance(power, problem.size, scale)
        correction, weights = condition(problem, covariance, x0, weights, residual=residual, tolerance=tolerance,
                                        iterations=iterations or (1 if pixels and sigma > HIGH else None))
        return x0 + correction

    return denoise


class PiGDM(Sampler):
    """Pseudo-inverse guidance (Song et al. 2023): sigma^2 dD/dx A^T (r^2 A A^T + sigma_y^2 I)^-1 (y - A D).

    r^2 is the largest power of the prior's error spectrum at this level: any smaller one overshoots at the frequencies
    where the error is larger. Exact (up to the integrator) for a white Gaussian prior. One call and its gradient a step.

    No covariance sigma^2 dD/dx of powers up to r^2 makes what it is applied to longer by more than r^2. A network's may, a
    hundred times at noise levels above an image's range, and sampling runs away: the correction is then shortened to that.
    """

    uses_spectrum: ClassVar[bool] = True
    about: ClassVar[str] = "pseudo-inverse guidance, one network call and its gradient a step"

    def posterior_denoiser(self, prior: Denoiser, problem: Problem) -> Denoise:
        require(problem.physics, LinearPhysics, "PiGDM", NONLINEAR)
        spectrum = spectrum_for(prior, problem)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            variance = spectrum.at(sigma, problem.size, x.device).amax((-3, -2, -1), keepdim=True)  # (1, 1, 1) or (B, 1, 1, 1)
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                x0 = prior(x, sigma)
                residual = problem.y - problem.A(x0.detach())
                pull = prox(problem, residual, variance)
                (gradient,) = torch.autograd.grad((x0 * pull).sum(), x)
            correction = sigma**2 / variance * gradient
            longer = length(correction) / length(pull).clamp_min(torch.finfo(pull.dtype).tiny)
            return x0.detach() + correction / longer.clamp_min(1)

        return denoise
