"""Denoising diffusion null-space models: what the measurement determines is replaced, the rest is the prior's."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from pydantic import Field
from torch import Tensor

from invdiff.diffusion.integrators import Denoise, Step
from invdiff.diffusion.randomness import Streams
from invdiff.posterior.likelihood import NONLINEAR
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.posterior.svd import Components, components
from invdiff.problem import Problem, require


class DDNM(Sampler):
    """DDNM (Wang et al. 2023, Eq. 11), D - A^+ (A D - y) for D, for noiseless data and any integrator; and DDNM+ for noisy.

    DDNM+ (ibid., Eqs. 16 to 19 and App. I), where sigma_y > 0, is a loop of its own, with ancestral steps of DDIM's `eta` in
    place of the integrator, and needs an SVD. A component of spread sigma_y / s is replaced in a share lambda, as large as can
    be with no more noise in the state than the level has, and the fresh noise is less by what the measurement brings. Exact,
    up to the integrator, for noiseless data and a white Gaussian prior. One network call a step.
    """

    about: ClassVar[str] = "null-space replacement, one network call a step"
    eta: float = Field(0.85, ge=0, le=1)

    def posterior_denoiser(self, prior: Denoiser, problem: Problem) -> Denoise:
        """The rule for noiseless data."""
        physics = require(problem.physics, LinearPhysics, "DDNM", NONLINEAR)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            x0 = prior(x, sigma)
            problem.calls.operator += len(x)
            return x0 + physics.A_dagger(problem.y - problem.A(x0))

        return denoise

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        noiseless = problem.sigma_y == 0 and isinstance(problem.physics, LinearPhysics)
        yield from super().steps(prior, problem, seeds) if noiseless else self._plus(prior, problem, seeds)

    def _plus(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        basis = components(problem, "DDNM with sigma_y > 0", "dds, moment_matching, pigdm, diffpir, dps")
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max).tolist()
        with torch.no_grad():
            x = sigmas[0] * noise.normal(shape)
            for sigma, after in pairwise(sigmas):
                x0 = basis.of(prior(x, sigma))
                fresh = self.eta * after * (1 - (after / sigma) ** 2) ** 0.5       # DDIM's share of the level's noise
                keep = (after**2 - fresh**2) ** 0.5 / sigma
                x0, deviation = corrected(basis, x0, fresh, 1 - keep)
                c = x0 + keep * (basis.of(x) - x0) + deviation * noise.normal(shape)
                x = basis.image(c)
                yield Step(after, x, basis.image(x0))


def corrected(basis: Components, x0: Tensor, fresh: float, weight: float) -> tuple[Tensor, Tensor]:
    """x0's components with a share lambda of the measurement's, and the deviation of the noise that is to be added.

    `fresh` is the deviation that a step adds, `weight` that of x0 in it: lambda weight sigma_y / s <= fresh (Eqs. 17, 18).
    """
    spread = torch.where(basis.spread.isfinite(), basis.spread, 0.0)
    share = (fresh / (weight * spread).clamp_min(1e-30)).clamp_max(1.0)
    share = torch.where(basis.spread.isfinite(), share, 0.0)
    variance = fresh**2 - (share * weight * spread).square()
    return x0 + share * (basis.target - x0), variance.clamp_min(0).sqrt()
