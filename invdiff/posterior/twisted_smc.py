"""Twisted sequential Monte Carlo: a population of particles that is weighted and resampled, exact in the limit."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.diffusion.integrators import Step
from invdiff.errors import InputError
from invdiff.posterior.covariance import spectrum_for
from invdiff.posterior.likelihood import NONLINEAR
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.posterior.tweedie import Rows
from invdiff.posterior.twists import DenseTwist, StationaryModel, StationaryTwist, Twist
from invdiff.problem import Problem, require

MOST_ROWS = 256     # values in a measurement up to which the exact covariance may be asked for: a backward pass for each

Model = Callable[[Tensor, float], Twist]


class TwistedSMC(Sampler):
    """TDS (Wu et al. 2023, Algorithm 1) with the twist and the proposal of second-order guidance; see `twists`.

    Particles carry weights, and are resampled when the effective number of them falls below `threshold` of all. Exact for
    the chain that the levels define as `particles` grow, and for the prior as the levels do; for a Gaussian prior with its
    exact covariance, in any number of steps. The samples of a measurement are one population: they depend on how many are
    drawn, and on each other where resampling has given them a common ancestor.

    covariance, rank: as in MomentMatching, the spectrum as it is on the card. "exact" takes measurements of at most 256 values.
    particles: at least one for each sample; None is as many.
    The last step's `info`, and the report of `restore`, hold log_evidence, an estimate of log p(y) (None where A is large),
    the smallest effective share of the particles, and how often they were resampled.
    """

    population: ClassVar[bool] = True
    mirrors: ClassVar[bool] = False
    uses_spectrum: ClassVar[bool] = True
    about: ClassVar[str] = "a weighted population, exact in the limit of many particles"
    integrates: ClassVar[bool] = False
    num_steps: PositiveInt = Field(100, alias="steps")
    sigma_max: PositiveFloat = 40.0         # above the prior's spread along every direction, brightness times pixels among them
    sigma_min: PositiveFloat = 0.002
    covariance: Literal["spectral", "exact", "low-rank"] = "spectral"
    rank: PositiveInt = 3
    particles: PositiveInt | None = None
    threshold: float = Field(0.5, ge=0, le=1)
    cg_iterations: PositiveInt = 50
    cg_tolerance: PositiveFloat = 1e-3

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        """As `Sampler.steps`, for one measurement: all chains of it, and those of no other, are handed in together."""
        require(problem.physics, LinearPhysics, "TwistedSMC", NONLINEAR)
        problem = self._measurement(for_chains(problem, seeds))
        particles = _Particles(max(len(seeds), self.particles or 0), seeds, problem.y.device)
        shape = problem.image_shape
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max).tolist()
        with torch.no_grad():
            model, constant = self._model(prior, problem, particles)
            x = sigmas[0] * particles.draw(shape)
            twist = model(x + prior(x, sigmas[0]), sigmas[0])
            particles.weigh(twist.log_twist)
            for after in sigmas[1:-1]:
                if particles.share() < self.threshold:
                    twist = twist.at(particles.resample(particles.count))
                    particles.resamplings += 1
                x = twist.propose(after, particles.draw)
                expected = twist.predicted(x, after)
                twist = model(x, after)
                particles.weigh(twist.log_twist - expected)
                yield Step(after, x[: len(seeds)], twist.x0[: len(seeds)])
            particles.share()
            twist = twist.at(particles.resample(len(seeds)))
            x = twist.propose(0.0, particles.draw)          # with weights of one: y given x0 is known exactly
        evidence = None if constant is None else particles.log_evidence + constant
        yield Step(0.0, x, x, {"log_evidence": evidence, "effective_share": particles.smallest_share,
                               "resamplings": particles.resamplings})

    def _measurement(self, problem: Problem) -> Problem:
        """The problem with its one measurement once."""
        if not (problem.y == problem.y[:1]).all():
            raise ValueError("TwistedSMC: expected the chains of one measurement together, got different measurements; "
                             "restore() takes them one after the other")
        return problem.rows(torch.zeros(1, dtype=torch.long, device=problem.y.device))

    def _model(self, prior: Denoiser, problem: Problem, particles: "_Particles") -> tuple[Model, float | None]:
        """From particles and a level to their twist; and what is missing to the evidence, None where it is unknown."""
        if self.covariance == "exact":
            values = problem.y[0].numel()
            if values > MOST_ROWS:
                raise InputError(f"TwistedSMC: covariance=exact takes a measurement of at most {MOST_ROWS} values, got "
                                 f"{values}; spectral or low-rank would work")
            rows = Rows.of(problem)
            return lambda x, sigma: DenseTwist(prior, problem, rows, x, sigma, particles.draw), rows.log_left(problem)
        rank = self.rank if self.covariance == "low-rank" else 0
        shared = StationaryModel(problem, spectrum_for(prior, problem), rank, self.cg_tolerance, self.cg_iterations)
        return lambda x, sigma: StationaryTwist(prior, shared, x, sigma), 0.0 if shared.known else None


class _Particles:
    """The weights of a population, and its random stream, which belongs to all of the seeds together."""

    def __init__(self, count: int, seeds: Sequence[int], device: torch.device):
        self.count, self.device = count, device
        entropy = np.random.SeedSequence([int(seed) % 2**64 for seed in seeds]).generate_state(1, np.uint64)
        self._generator = torch.Generator().manual_seed(int(entropy[0] >> np.uint64(1)))
        self._log_weights = torch.zeros(count, dtype=torch.float64)
        self.log_evidence, self.smallest_share, self.resamplings = 0.0, 1.0, 0

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise (count, *shape)."""
        return torch.randn((self.count, *shape), dtype=torch.float32, generator=self._generator).to(self.device)

    def weigh(self, log_factor: Tensor) -> None:
        self._log_weights = self._log_weights + log_factor

    def share(self) -> float:
        """The effective number of particles (Kong et al. 1994), relative to their count."""
        weights = self._log_weights.softmax(0)
        share = float(1 / weights.square().sum()) / self.count
        self.smallest_share = min(self.smallest_share, share)
        return share

    def resample(self, count: int) -> Tensor:
        """Indices of `count` particles of equal weight, systematically drawn and shuffled."""
        self.log_evidence += float(self._log_weights.logsumexp(0)) - math.log(self.count)
        edges = self._log_weights.softmax(0).cumsum(0)
        offset = torch.rand(1, generator=self._generator, dtype=torch.float64)
        index = torch.searchsorted(edges, (torch.arange(count) + offset) / count * edges[-1]).clamp_max(self.count - 1)
        self.count, self._log_weights = count, torch.zeros(count, dtype=torch.float64)
        return index[torch.randperm(count, generator=self._generator)].to(self.device)
