"""Iterative latent variable refinement: the part of the state that the measurement determines is the noised measurement's."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from torch import Tensor

from invdiff.diffusion.integrators import Step
from invdiff.diffusion.randomness import Streams
from invdiff.posterior.likelihood import NONLINEAR
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.posterior.svd import components
from invdiff.problem import Problem, require


class ILVR(Sampler):
    """ILVR (Choi et al. 2021, Algorithm 1): after each step of the prior, x <- x + A^+ (A (A^+ y + sigma n) - A x).

    Their low-pass filter is A^+ A, the projection on what the operator sees. Noisy data need an SVD: a component of spread
    sigma_y / s is replaced while the spread is below the level, with as much fresh noise as is missing to the level; the rest
    of the way down, where theirs stops replacing at a time that is tuned, it is the prior's. Biased by design: the unseen
    learns of the measurement through the state alone, in which it is noisy. One network call a step; the integrator starts
    anew at each, so that DPM-Solver++ is of first order.
    """

    about: ClassVar[str] = "replaces what was measured by the noised measurement, one network call a step"

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        refine = _replace(problem) if problem.sigma_y == 0 else _replace_components(problem)
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max)
        with torch.no_grad():
            x = refine(float(sigmas[0]) * noise.normal(shape), float(sigmas[0]), noise.normal(shape))
            for interval in pairwise(sigmas.tolist()):
                levels = torch.tensor(interval, dtype=torch.float64)
                (step,) = self.integrator(prior, levels, x, lambda: noise.normal(shape))
                x = refine(step.x, step.sigma, noise.normal(shape))
                yield Step(step.sigma, x, step.x0 if step.sigma > 0 else x)


Refine = Callable[[Tensor, float, Tensor], Tensor]      # from a state, its level, and white noise of its shape


def _replace(problem: Problem) -> Refine:
    """For noiseless data, A^+ y + sigma n in the row space."""
    require(problem.physics, LinearPhysics, "ILVR", NONLINEAR)

    def refine(x: Tensor, sigma: float, draw: Tensor) -> Tensor:
        problem.calls.operator += len(x)
        return x + problem.A_dagger(problem.y + problem.A(sigma * draw - x))

    return refine


def _replace_components(problem: Problem) -> Refine:
    """For noisy data, A^+ y and the noise that is missing to the level, where A^+ y has less."""
    basis = components(problem, "ILVR with sigma_y > 0", "dds, moment_matching, pigdm, diffpir, dps")

    def refine(x: Tensor, sigma: float, draw: Tensor) -> Tensor:
        missing = (sigma**2 - basis.spread.clamp_max(sigma).square()).sqrt()
        return basis.image(torch.where(basis.spread <= sigma, basis.target + missing * draw, basis.of(x)))

    return refine
