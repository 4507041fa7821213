"""The face of every posterior sampler: a frozen set of parameters, and a generator of steps."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SerializeAsAny, model_validator

from invdiff.diffusion.integrators import Denoise, DPMSolverPP, Integrator, Step
from invdiff.diffusion.randomness import Streams
from invdiff.diffusion.schedules import Karras, Schedule
from invdiff.problem import Problem


class Sampler(BaseModel):
    """Base of the samplers. One that guides a denoiser defines `posterior_denoiser`; any other overrides `steps`.

    Attributes:
        num_steps: noise levels to visit; given as `steps=`.
        schedule: how they are spaced.
        sigma_max, sigma_min: first and last of them, in image units.
        integrator: how to go from one to the next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    about: ClassVar[str] = ""
    uses_spectrum: ClassVar[bool] = False

    num_steps: PositiveInt = Field(30, alias="steps")
    schedule: SerializeAsAny[Schedule] = Karras()
    sigma_max: PositiveFloat = 5.0
    sigma_min: PositiveFloat = 0.01
    integrator: SerializeAsAny[Integrator] = DPMSolverPP(eta=1.0)

    @model_validator(mode="after")
    def _levels_in_order(self) -> "Sampler":
        if not self.sigma_min < self.sigma_max < float("inf"):
            raise ValueError(f"expected sigma_min < sigma_max < inf, got {self.sigma_min:g} and {self.sigma_max:g}")
        return self

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        """Draw one posterior sample for each seed; the last step's x0 is the sample.

        Args:
            prior: D(x, sigma) = E[x0 | x].
            problem: a measurement (B, ...) with B = len(seeds), or B = 1 for all seeds.
            seeds: one integer for each chain; a chain depends on its own seed and measurement alone.

        Raises:
            ValueError: the numbers of seeds and measurements differ, or the operator is none that the sampler can use.
        """
        problem = for_chains(problem, seeds)
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        denoise = self.posterior_denoiser(prior, problem)
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max)
        with torch.no_grad():
            x = float(sigmas[0]) * noise.normal(shape)
            x = x + denoise(x, float(sigmas[0]))         # x0 is still missing from the state: its first estimate
            yield from self.integrator(denoise, sigmas, x, lambda: noise.normal(shape))

    def posterior_denoiser(self, prior: Denoiser, problem: Problem) -> Denoise:
        """The guidance rule: E[x0 | x, y] as a function of (x, sigma)."""
        raise NotImplementedError


def for_chains(problem: Problem, seeds: Sequence[int]) -> Problem:
    """The problem with one measurement for each seed."""
    count = len(problem.y)
    if count == len(seeds):
        return problem
    if count == 1:
        return problem.rows(torch.zeros(len(seeds), dtype=torch.long, device=problem.y.device))
    raise ValueError(f"seeds: expected {count}, one for each measurement, got {len(seeds)}")
