"""RED-diff: a variational point estimate that the denoiser regularises, at falling noise levels."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import Field, PositiveFloat, PositiveInt

from invdiff.diffusion.integrators import Step
from invdiff.diffusion.randomness import Streams
from invdiff.posterior.covariance import StationaryCovariance, spectrum_for
from invdiff.posterior.likelihood import is_linear, misfit, squared_norm
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.problem import Problem


class REDDiff(Sampler):
    """RED-diff (Mardani et al. 2023, Algorithm 1), without their weights and Adam; any differentiable operator.

        mu <- mu + lr (D(mu + sigma n, sigma) - mu + C J^T (y - A(mu)) / (sigma_y^2 + max C |J|^2))

    a natural-gradient step on the KL divergence of a point mass at mu from the posterior.
    """

    uses_spectrum: ClassVar[bool] = True
    about: ClassVar[str] = "a point estimate by stochastic gradients, any differentiable operator"
    integrates: ClassVar[bool] = False
    num_steps: PositiveInt = Field(100, alias="steps")
    lr: PositiveFloat = Field(0.5, le=1)

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        size = (shape[-2], shape[-1])
        spectrum = spectrum_for(prior, problem)
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max).tolist()
        with torch.no_grad():
            mu = prior(sigmas[0] * noise.normal(shape), sigmas[0])
            norm = squared_norm(problem, mu)
            for sigma, after in pairwise(sigmas):
                if not is_linear(problem):
                    norm = squared_norm(problem, mu)
                x0 = prior(mu + sigma * noise.normal(shape), sigma)
                covariance = StationaryCovariance(spectrum.at(sigma, size, mu.device), size)
                variance = problem.sigma_y**2 + covariance.power.amax((-3, -2, -1), keepdim=True) * norm
                _, pull = misfit(problem, mu)
                mu = mu + self.lr * (x0 - mu + covariance(pull) / variance.clamp_min(1e-30))
                yield Step(after, mu, mu)
