"""Split Gibbs sampling: draws from the likelihood and from the prior in turn, which a distance rho ties together."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.diffusion.integrators import Step
from invdiff.diffusion.randomness import Draw, Streams
from invdiff.posterior.covariance import spectrum_for
from invdiff.posterior.likelihood import NONLINEAR, GivenData, stationary_noise
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.posterior.svd import Components, components, has_components
from invdiff.priors.spectrum import ErrorSpectrum
from invdiff.problem import Problem

DEEPEST = 0.02      # a reverse diffusion from rho ends at this share of it, or at half of sigma_min if that is more


class SplitGibbs(Sampler):
    """PnP-DM (Wu et al. 2024, Algorithm 1; Xu & Chi 2024; Vono et al. 2019), draws of z and x in turn:

        z ~ p(y | z) N(z; x, rho^2),       x ~ p(x) N(z; x, rho^2)

    The second is a reverse diffusion from level rho in `prior_steps` network calls: ancestral steps, in which x0 is drawn
    around D with the prior's error spectrum (Bao et al. 2022, Analytic-DPM, where it is white), so that few are enough. rho
    falls along the schedule from sigma_max to sigma_min in a share `anneal` of the steps, and stays there.

    In their scheme x has the law of the prior given y with noise of covariance sigma_y^2 I + rho^2 A A^T, exact as rho -> 0.
    With an SVD the first draw here takes the noise as sigma_y^2 - rho^2 s^2 (or none, if that is negative), so that the two
    add up to sigma_y^2: exact for any rho <= sigma_y / max s, in the limit of many steps and prior steps. Other linear
    operators: perturb and solve, exact as rho -> 0. Others: `langevin_steps` of Langevin dynamics.
    """

    uses_spectrum: ClassVar[bool] = True
    about: ClassVar[str] = "likelihood and prior draws in turn, exact in the limit"
    integrates: ClassVar[bool] = False
    num_steps: PositiveInt = Field(60, alias="steps")
    sigma_max: PositiveFloat = 2.0
    anneal: float = Field(0.8, gt=0, le=1)
    prior_steps: PositiveInt = 2
    langevin_steps: PositiveInt = 50

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        spectrum = spectrum_for(prior, problem)
        with torch.no_grad():
            basis = components(problem, "SplitGibbs", NONLINEAR) if has_components(problem) else None
            given_data = GivenData(problem, self.langevin_steps)
            x = prior(self.sigma_max * noise.normal(shape), self.sigma_max)
            for rho, after in pairwise(self._levels()):
                if basis is not None:
                    z = likelihood_draw(basis, x, rho, noise.normal)
                else:
                    power = x.new_full((1, shape[-2], shape[-1] // 2 + 1), rho**2)
                    z = given_data(x, power, noise.normal)
                # a network is not to be asked far below the levels that it knows: there it may amplify
                levels = self.schedule(self.prior_steps, max(DEEPEST * rho, self.sigma_min / 2), rho)
                x = prior_draw(prior, spectrum, z, levels, noise.normal)
                yield Step(after, z if after > 0 else x, x)

    def _levels(self) -> list[float]:
        falling = math.ceil(self.anneal * self.num_steps)
        levels = self.schedule(falling, self.sigma_min, self.sigma_max).tolist()[:-1]
        return levels + [levels[-1]] * (self.num_steps - falling) + [0.0]


def prior_draw(prior: Denoiser, spectrum: ErrorSpectrum, z: Tensor, levels: Tensor, noise: Draw) -> Tensor:
    """x0 given x0 + levels[0] n = z. At each level x0 is drawn, and then the state at the next between the two."""
    x = z
    for sigma, after in pairwise(levels.tolist()):
        x0 = prior(x, sigma) + stationary_noise(spectrum, sigma, noise(z.shape[1:]))
        keep = (after / sigma) ** 2
        x = x0 + keep * (x - x0)
        if after > 0:
            x = x + after * (1 - keep) ** 0.5 * noise(z.shape[1:])
    return x


def likelihood_draw(basis: Components, x: Tensor, rho: float, noise: Draw) -> Tensor:
    """z ~ N(z; x, rho^2 I) p(y | z), with noise of variance sigma_y^2 - rho^2 s^2 on y, or none if that is negative."""
    s, shape = basis.singular, x.shape[1:]
    variance = (basis.problem.sigma_y**2 - rho**2 * s.square()).clamp_min(0)
    z = basis.of(x) + rho * noise(shape)
    # perturb, then solve, component by component
    gain = torch.where(s > 0, rho**2 * s / (rho**2 * s.square() + variance).clamp_min(1e-30), 0.0)
    return basis.image(z + gain * (s * (basis.target - z) + variance.sqrt() * noise(shape)))
