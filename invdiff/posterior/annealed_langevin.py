"""Annealed Langevin dynamics on the posterior, smoothed less and less."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.diffusion.integrators import Step
from invdiff.diffusion.randomness import Streams
from invdiff.errors import InputError
from invdiff.posterior.covariance import prox
from invdiff.posterior.likelihood import misfit, squared_norm
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.problem import Problem


class AnnealedLangevin(Sampler):
    """CSGM (Jalal et al. 2021) with the steps of Song & Ermon (2019, Algorithm 1), for any differentiable operator.

        x <- x + a / 2 (grad log p_sigma(x) + J^T G^-1 (y - A(x))) + sqrt(a) n,     a = epsilon sigma^2

    `inner_steps` of these at each level, and a last denoising. G = (sigma_y^2 + gamma^2) I in the paper, with a table of
    gammas; here it is what the level's own noise puts on y, sigma_y^2 I + sigma^2 A A^T, or sigma_y^2 + sigma^2 |J|^2 where
    the operator is not linear. That keeps the step stable for any operator and any sigma_y. The noise n of a step is the mean
    of two draws, of which the next step has the second, so that the limit is exact for Gaussians at any epsilon (Leimkuhler &
    Matthews 2013), where theirs is too wide. Exact in the limit of many steps and sigma_min -> 0, and small epsilon where the
    prior is no Gaussian. `inner_steps` network calls a step. Raises InputError for operators that clip and round.
    """

    about: ClassVar[str] = "Langevin dynamics at falling noise levels, any differentiable operator"
    integrates: ClassVar[bool] = False
    num_steps: PositiveInt = Field(100, alias="steps")
    epsilon: PositiveFloat = Field(0.8, lt=2)
    inner_steps: PositiveInt = 3

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        if getattr(problem.physics, "piecewise_constant", False):
            raise InputError(f"AnnealedLangevin asks the operator of noisy images, and what {type(problem.physics).__name__} "
                             "clips and rounds of them says little; these would work: daps, split_gibbs, red_diff, dps")
        problem = for_chains(problem, seeds)
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max).tolist()
        with torch.no_grad():
            x, draw = sigmas[0] * noise.normal(shape), noise.normal(shape)
            for sigma, after in pairwise(sigmas):
                for _ in range(self.inner_steps):
                    x0, fresh = prior(x, sigma), noise.normal(shape)
                    drift = x0 - x + _pull(problem, x, sigma)
                    x = x + self.epsilon / 2 * drift + self.epsilon**0.5 * sigma * (draw + fresh) / 2
                    draw = fresh
                if after == 0:
                    x = x0 = prior(x, sigma)
                yield Step(after, x, x0)


def _pull(problem: Problem, x: Tensor, sigma: float) -> Tensor:
    """sigma^2 J^T G^-1 (y - A(x))."""
    if isinstance(problem.physics, LinearPhysics):
        return prox(problem, problem.y - problem.A(x), sigma**2)
    _, pulled = misfit(problem, x)
    return pulled * (sigma**2 / (problem.sigma_y**2 + sigma**2 * squared_norm(problem, x)).clamp_min(1e-30))
