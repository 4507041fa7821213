"""Diffusion posterior sampling: ancestral steps, each pulled along the gradient of the data misfit."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import Field, PositiveFloat, PositiveInt, SerializeAsAny
from torch import Tensor

from invdiff.diffusion.integrators import DDIM, Denoise, Integrator, Step
from invdiff.diffusion.randomness import Streams
from invdiff.diffusion.schedules import DDPMLinear, Schedule
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.problem import Problem

PAPER_PIXELS = 3 * 256 * 256


class DPS(Sampler):
    """DPS (Chung et al. 2023, Algorithm 1): x <- x - strength * grad |y - A D(x)|, for any differentiable operator.

    `strength` is their zeta for 1000 steps at 3 x 256 x 256: fewer steps are longer in proportion, and images of another
    size are moved in proportion to their norm. Biased by design: the gradient is not
    that of log p(y | x), and the step does not follow sigma_y. One call and its gradient a step.
    """

    about: ClassVar[str] = "gradient of the data misfit, any differentiable operator, many steps"
    num_steps: PositiveInt = Field(1000, alias="steps")
    schedule: SerializeAsAny[Schedule] = DDPMLinear()
    integrator: SerializeAsAny[Integrator] = DDIM(eta=1.0)
    sigma_max: PositiveFloat = 40.0
    sigma_min: PositiveFloat = 0.005
    strength: PositiveFloat = 1.0

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max)
        x = float(sigmas[0]) * noise.normal(shape)
        for sigma, after in pairwise(sigmas.tolist()):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                x0 = prior(x, sigma)
                misfit = (problem.y - problem.A(x0)).flatten(1).norm(dim=1)
                (gradient,) = torch.autograd.grad(misfit.sum(), x)
            x0 = x0.detach()
            (step,) = self.integrator(_always(x0), torch.tensor([sigma, after], dtype=torch.float64), x.detach(),
                                      lambda: noise.normal(shape))
            # Algorithm 1 is in the variance-preserving frame and for [-1, 1]: both changes of scale are in `length`
            length = self.strength * 1000 / self.num_steps / 2 * (x0[0].numel() / PAPER_PIXELS) ** 0.5
            length *= ((1 + 4 * sigma**2) * (1 + 4 * after**2)) ** 0.5
            x = step.x - length * gradient
            yield Step(after, x, x0)


def _always(x0: Tensor) -> Denoise:
    return lambda x, sigma: x0
