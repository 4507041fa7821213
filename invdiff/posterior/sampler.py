"""The face of every posterior sampler: a frozen set of parameters, and a generator of steps."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SerializeAsAny, model_validator
from torch import Tensor

from invdiff.diffusion.integrators import Denoise, DPMSolverPP, Integrator, Step
from invdiff.diffusion.randomness import Draw, Streams
from invdiff.diffusion.schedules import Karras, Schedule
from invdiff.errors import InputError
from invdiff.problem import Problem


class Sampler(BaseModel):
    """Base of the samplers. One that guides a denoiser defines `posterior_denoiser`; any other overrides `steps`.

    Attributes:
        num_steps: noise levels to visit; given as `steps=`.
        schedule: how they are spaced.
        sigma_max, sigma_min: first and last of them, in image units.
        integrator: how to go from one to the next, where a sampler has no way of its own.
        start_sigma: begin at this lower level, from a cheap estimate of the image and as much noise, instead of at sigma_max.
            The same number of steps is then spent below it. Biased, unless at every frequency the noise exceeds the
            estimate's error: what the estimate has wrong by more than that stays wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    about: ClassVar[str] = ""
    uses_spectrum: ClassVar[bool] = False
    latents: ClassVar[bool] = False         # does it need a prior of latents, and no other?
    population: ClassVar[bool] = False      # are the samples of a measurement drawn as one, from one call of `steps`?
    singly: ClassVar[bool] = False          # does it take measurements apart, and so no operator that takes them together?
    integrates: ClassVar[bool] = True       # does it go from level to level by an integrator?
    resumes: ClassVar[bool] = True          # do its parameters tell it from any other, as going on from a checkpoint takes?
    transposes: ClassVar[bool] = True       # does it use the operator's A_adjoint, which is then to be A's transpose?
    mirrors: ClassVar[bool] = True          # does the seed ~s draw with the noise of s, of opposite sign?

    num_steps: PositiveInt = Field(30, alias="steps")
    schedule: SerializeAsAny[Schedule] = Karras()
    sigma_max: PositiveFloat = 5.0
    sigma_min: PositiveFloat = 0.01
    integrator: SerializeAsAny[Integrator] = DPMSolverPP(eta=1.0)
    start_sigma: PositiveFloat | None = None

    @model_validator(mode="after")
    def _levels_in_order(self) -> "Sampler":
        if not self.sigma_min < self.sigma_max < float("inf"):
            raise ValueError(f"expected sigma_min < sigma_max < inf, got {self.sigma_min:g} and {self.sigma_max:g}")
        if self.start_sigma is not None:
            if not self.sigma_min < self.start_sigma <= self.sigma_max:
                raise ValueError(f"start_sigma: expected a level above sigma_min = {self.sigma_min:g} and up to sigma_max = "
                                 f"{self.sigma_max:g}, got {self.start_sigma:g}")
            self._check_warm_start()
        if not self.integrates:
            self._check_no_integrator()
        return self

    def _check_no_integrator(self, when: str = "") -> None:
        """Raises InputError where one was chosen, though steps are a loop of their own, always or `when`."""
        if self.integrator != type(self).model_fields["integrator"].default:
            raise InputError(f"integrator: {type(self).__name__}{when} goes from level to level in a way of its own; leave it "
                             "out")

    def _check_warm_start(self) -> None:
        if type(self).steps is not Sampler.steps:
            raise InputError(f"{type(self).__name__} cannot begin from an estimate; moment_matching, pigdm, diffpir and dds "
                             "can")

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        """Draw one posterior sample for each seed, in `num_steps` steps; the last one's x0 is the sample.

        Args:
            prior: D(x, sigma) = E[x0 | x].
            problem: a measurement (B, ...) with B = len(seeds), or B = 1 for all seeds.
            seeds: one integer for each chain, ~s for the noise of s with the opposite sign; a chain depends on its own seed
                and measurement alone.

        Raises:
            ValueError: the numbers of seeds and measurements differ, or the operator is none that the sampler can use.
        """
        yield from self._guided(None, prior, problem, seeds)

    def steps_from(self, start: Tensor, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        """The same, beginning at `start_sigma` from estimates `start` (len(seeds), C, H, W).

        Raises InputError if the sampler cannot, or has none.
        """
        self._check_warm_start()
        if self.start_sigma is None:
            raise InputError("start: has no effect from the highest level; say from which to begin, start_sigma=0.5")
        return self._guided(start, prior, problem, seeds)

    def _guided(self, start: Tensor | None, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        if self.integrator.adaptive and len(seeds) > 1:
            yield from self._apart(start, prior, problem, seeds)
            return
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        denoise = self.posterior_denoiser(prior, problem)
        level = self.start_sigma or self.sigma_max
        sigmas = self.schedule(self.num_steps, self.sigma_min, level)
        with torch.no_grad():
            draw = noise.normal(shape)
            # x0 is still missing from the state: without a better one, its estimate from almost nothing but noise
            estimate = denoise(self.sigma_max * draw, self.sigma_max) if start is None else start
            for step in self.integrator(denoise, sigmas, estimate + float(sigmas[0]) * draw, lambda: noise.normal(shape)):
                if step.sigma == 0:
                    x0 = step.x0 + self.remainder(prior, problem, step.x0, float(sigmas[-2]), noise.normal)
                    step = replace(step, x=x0, x0=x0)
                yield step

    def _apart(self, start: Tensor | None, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        """Each chain for itself: with steps of its own it has levels of its own, and a rule is for one level."""
        with torch.no_grad():
            index = torch.arange(len(seeds), device=problem.y.device).split(1)
            runs = [self._guided(None if start is None else start[i], prior, problem.rows(i), [seed])
                    for i, seed in zip(index, seeds, strict=True)]
            for steps in zip(*runs, strict=True):
                yield Step(steps[0].sigma, torch.cat([step.x for step in steps]), torch.cat([step.x0 for step in steps]),
                           {"calls": sum(step.info["calls"] for step in steps) / len(steps)})

    def remainder(self, prior: Denoiser, problem: Problem, x0: Tensor, sigma: float, draw: Draw) -> Tensor:
        """What the last estimate x0 (B, C, H, W), a mean, lacks of being a sample: a draw of x0 given the last state, at level
        sigma, and the data, about that mean. Nothing, where a sampler knows no better."""
        return torch.zeros_like(x0)

    def posterior_denoiser(self, prior: Denoiser, problem: Problem) -> Denoise:
        """The guidance rule: E[x0 | x, y] as a function of (x, sigma)."""
        raise NotImplementedError


def for_chains(problem: Problem, seeds: Sequence[int]) -> Problem:
    """The problem with one measurement for each seed, zero where the operator does not reach, rounded where it rounds."""
    count = len(problem.y)
    if count == len(seeds):
        return problem.measured().rounded()
    if count == 1:
        return problem.measured().rounded().rows(torch.zeros(len(seeds), dtype=torch.long, device=problem.y.device))
    raise ValueError(f"seeds: expected {count}, one for each measurement, got {len(seeds)}")
