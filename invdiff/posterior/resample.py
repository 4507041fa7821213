"""ReSample: latents made consistent with the data at each noise level, and noised anew."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.diffusion.integrators import Step
from invdiff.diffusion.randomness import Streams
from invdiff.posterior.covariance import StationaryCovariance
from invdiff.posterior.latents import image_of, in_latents, most_likely
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.priors.facts import known_spectrum
from invdiff.problem import Problem


class ReSample(Sampler):
    """ReSample (Song et al. 2024, Algorithm 1) with a prior of latents: at each level the estimate D(z, sigma) is replaced by
    latents whose image fits the data, and the state at the next level is drawn around these. Any differentiable operator.

        z0 = argmin over z of |y - A(decode(z))|^2 / sigma_y^2 + (z - D)^T C^-1 (z - D)

    C is the covariance of D's error, from the prior's spectrum; sigma_y counts what the autoencoder loses, too. They have no C,
    and descend from D until the misfit is the noise's. With `draw`, y and D are perturbed by their noise first: z0 is then a
    draw given state and data, exact where decoder and operator are linear and C is right, and so is the whole, but for the
    first level. Without, samples spread too little.

    The next state is z0 + sigma' n. `gamma` is theirs (40): the product of N(z0, sigma'^2) and N(z', s^2), z' the DDIM step
    that knows nothing of the data, s^2 = gamma sigma'^2 (sigma^2 - sigma'^2); large steps forget z', small ones keep to it.

    Noise levels are in units of the latents. One network call a step, and `newton_steps` solves by conjugate gradients, which
    take a dozen passes through the decoder or so.
    """

    about: ClassVar[str] = "latents made to fit the data at each level, for a prior of latents; any differentiable operator"
    integrates: ClassVar[bool] = False
    latents: ClassVar[bool] = True
    num_steps: PositiveInt = Field(30, alias="steps")
    sigma_max: PositiveFloat = 20.0
    sigma_min: PositiveFloat = 0.02
    newton_steps: PositiveInt = 2
    draw: bool = True
    gamma: PositiveFloat | None = None

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        latent, hidden = in_latents(prior, problem, "ReSample")
        noise, shape = Streams(seeds, problem.y.device), hidden.image_shape
        spectrum = known_spectrum(prior, shape[0])
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max).tolist()
        with torch.no_grad():
            level = hidden.sigma_y * problem.observed().to(problem.y)       # what was not measured has no noise
            z = sigmas[0] * noise.normal(shape)
            for sigma, after in pairwise(sigmas):
                free = prior(z, sigma)
                if spectrum:
                    power = spectrum.at(sigma, hidden.size, z.device)
                else:           # of white latents of unit variance
                    power = z.new_full((1, shape[-2], shape[-1] // 2 + 1), sigma**2 / (1 + sigma**2))
                mean, posed = free, hidden
                if self.draw:
                    mean = free + StationaryCovariance(power, hidden.size).root(noise.normal(shape))
                    posed = replace(hidden, y=hidden.y + level * noise.normal(hidden.y.shape[1:]))
                z0 = most_likely(posed, mean, power, self.newton_steps)
                z = self._state(z, free, z0, sigma, after, noise.normal(shape))
                yield Step(after, z, image_of(latent, problem, z0, noise.normal if self.draw else None))

    def _state(self, z: Tensor, free: Tensor, z0: Tensor, sigma: float, after: float, n: Tensor) -> Tensor:
        """The state at the next level, by `gamma`, from the state z, D, consistent latents z0 and white noise n."""
        if self.gamma is None:
            return z0 + after * n
        odds = self.gamma * (sigma**2 - after**2)               # s^2 / sigma'^2
        ahead = free + after / sigma * (z - free)
        return (odds * z0 + ahead) / (odds + 1) + after * (odds / (odds + 1)) ** 0.5 * n
