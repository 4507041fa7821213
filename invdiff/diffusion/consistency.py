"""Sampling of consistency models."""

from collections.abc import Iterator
from itertools import pairwise

from pydantic import NonNegativeFloat
from torch import Tensor

from invdiff.diffusion.stepping import Denoise, DrawNoise, Integrator, Step


class Consistency(Integrator):
    """Multistep consistency sampling (Song et al. 2023, Algorithm 1): x0 = f(x, sigma), x' = x0 + sqrt(after^2 - floor^2) n.

    `denoise` is f, where the probability flow from x ends. floor: the level of what f gives, their epsilon; 0 for one that
    gives clean images, as those trained here. Of a denoiser, whose x0 is a mean, it is `Renoise(zeta=1)`, and too smooth.
    """

    floor: NonNegativeFloat = 0.0

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            x = x0 + (after**2 - self.floor**2) ** 0.5 * noise() if after > self.floor else x0
            yield Step(after, x, x0)
