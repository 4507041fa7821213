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
from invdiff.posterior.svd import components
from invdiff.problem import Problem, require


class DDNM(Sampler):
    """DDNM (Wang et al. 2023, Algorithm 1), D - A^+ (A D - y) for D, for noiseless data and any integrator; DDNM+ for noisy.

    DDNM+ (ibid., Sec. 3.3), where sigma_y > 0, is a loop of its own and needs an SVD; it has ancestral steps of DDIM's
    `eta` in place of the integrator. A component of spread sigma_y / s is replaced in a share lambda, as large as can be with
    no more noise in the state than the level has, and the fresh noise is less by what the measurement brings. They count that
    as drawn anew at each step. It is the same at all of them, and adds up: in 30 steps of deblurring, to more than the image.
    Here it is carried along, and counted once. Exact, up to the integrator, for noiseless data and a white Gaussian prior. One
    network call a step.
    """

    about: ClassVar[str] = "null-space replacement, one network call a step"
    eta: float = Field(0.85, ge=0, le=1)

    def posterior_denoiser(self, prior: Denoiser, problem: Problem) -> Denoise:
        """The rule for noiseless data."""
        require(problem.physics, LinearPhysics, "DDNM", NONLINEAR)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            x0 = prior(x, sigma)
            problem.calls.operator += len(x)
            return x0 + problem.A_dagger(problem.y - problem.A(x0))

        return denoise

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        noiseless = problem.sigma_y == 0 and isinstance(problem.physics, LinearPhysics)
        yield from super().steps(prior, problem, seeds) if noiseless else self._plus(prior, problem, seeds)

    def _plus(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        self._check_no_integrator(" with sigma_y > 0")
        problem = for_chains(problem, seeds)
        basis = components(problem, "DDNM with sigma_y > 0", "dds, moment_matching, pigdm, diffpir, dps")
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max).tolist()
        with torch.no_grad():
            x = sigmas[0] * noise.normal(shape)
            carried = torch.zeros_like(basis.target)
            for sigma, after in pairwise(sigmas):
                x0 = basis.of(prior(x, sigma))
                fresh = self.eta * after * (1 - (after / sigma) ** 2) ** 0.5       # DDIM's share of the level's noise
                keep = (after**2 - fresh**2) ** 0.5 / sigma
                share, carried, deviation = allotted(basis.spread, carried, fresh, keep)
                x0 = x0 + share * (basis.target - x0)
                x = basis.image(x0 + keep * (basis.of(x) - x0) + deviation * noise.normal(shape))
                yield Step(after, x, basis.image(x0))


def allotted(spread: Tensor, carried: Tensor, fresh: float, keep: float) -> tuple[Tensor, Tensor, Tensor]:
    """lambda, how much of the next state's deviation is the measurement's noise, and the deviation of what is to be drawn.

    The state is x0 + keep (x - x0) and new noise. Of x's, `carried` is the measurement's, and adds to lambda's; the rest,
    and `fresh` new, are independent. With p the next `carried`, and the variance of the next level in all,
        p = keep carried + (1 - keep) lambda spread,     p^2 + deviation^2 = fresh^2 + keep^2 carried^2.
    """
    known = spread.isfinite()
    spread = torch.where(known, spread, 0.0)
    total = fresh**2 + (keep * carried).square()
    room = total.sqrt() - keep * carried
    share = torch.where(known, (room / ((1 - keep) * spread).clamp_min(1e-30)).clamp_max(1.0), 0.0)
    carried = keep * carried + (1 - keep) * share * spread
    return share, carried, (total - carried.square()).clamp_min(0).sqrt()
