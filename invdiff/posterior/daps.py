"""Decoupled annealing: at each noise level, a draw of x0 given the state and y, and as much noise as the next level has."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import Field, PositiveFloat, PositiveInt, SerializeAsAny

from invdiff.diffusion.integrators import DDIM, Integrator, Step
from invdiff.diffusion.randomness import Streams
from invdiff.posterior.covariance import spectrum_for
from invdiff.posterior.likelihood import GivenData
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.problem import Problem


class DAPS(Sampler):
    """DAPS (Zhang et al. 2024, Algorithm 1): x0 ~ N(x0; m, C) p(y | x0), then x = x0 + sigma' n. Any differentiable operator.

    m is where the probability flow from x ends, in `ode_steps` steps of the integrator. One is the posterior mean D(x, sigma),
    and with the prior's error spectrum for C the draw is exact for a stationary Gaussian prior; so is the whole, but for the
    first level. `r` instead makes C = (r sigma)^2 I, whatever the prior says; theirs is r = 1 and ode_steps = 5.
    Linear operators: x0 is drawn exactly, by perturbing and solving. Others: `langevin_steps` of Langevin dynamics.
    """

    uses_spectrum: ClassVar[bool] = True
    about: ClassVar[str] = "x0 drawn given the state and y, then noised anew; any differentiable operator"
    num_steps: PositiveInt = Field(60, alias="steps")
    integrator: SerializeAsAny[Integrator] = DDIM()
    ode_steps: PositiveInt = 1
    r: PositiveFloat | None = None
    langevin_steps: PositiveInt = 50

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        spectrum = None if self.r else spectrum_for(prior, problem)
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max).tolist()
        with torch.no_grad():
            given_data = GivenData(problem, self.langevin_steps)
            x = sigmas[0] * noise.normal(shape)
            for sigma, after in pairwise(sigmas):
                # at the lowest level a single step, to zero: some integrators divide by the length of the one before
                count = self.ode_steps if sigma > 1.01 * self.sigma_min else 1
                levels = self.schedule(count, min(self.sigma_min, sigma), sigma)
                *_, end = self.integrator(prior, levels, x, lambda: noise.normal(shape))
                if spectrum is None:
                    power = x.new_full((1, shape[-2], shape[-1] // 2 + 1), (float(self.r or 1) * sigma) ** 2)
                else:
                    power = spectrum.at(sigma, (shape[-2], shape[-1]), x.device)
                x0 = given_data(end.x, power, noise.normal)
                x = x0 + after * noise.normal(shape)
                yield Step(after, x, x0)
