"""Langevin dynamics: steps x <- x + a / 2 grad log p_sigma(x) + sqrt(a) n, with the score (D - x) / sigma^2."""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.diffusion.stepping import Denoise, DrawNoise, Integrator, Step


class Langevin(Integrator):
    """Annealed Langevin dynamics (Song & Ermon 2019, Algorithm 1): `inner_steps` at each level, a = epsilon sigma^2.

    Their epsilon, 2e-5, is ours times the square of their last level, 0.01. x is taken to be a state of the first level
    already; the step to zero is a denoising (Jolicoeur-Martineau et al. 2021a). Too wide by a part epsilon / 4 of sigma^2.
    """

    usual_steps: ClassVar[int] = 200
    epsilon: PositiveFloat = Field(0.2, lt=4)
    inner_steps: PositiveInt = 5

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            if after == 0:
                x = x0 = denoise(x, sigma)
            for _ in range(self.inner_steps if after > 0 else 0):
                x0 = denoise(x, after)
                x = langevin(x, x0, after, self.epsilon, noise)
            yield Step(after, x, x0)

    @property
    def calls_per_step(self) -> int:
        return self.inner_steps


def langevin(x: Tensor, x0: Tensor, sigma: float, epsilon: float, noise: DrawNoise) -> Tensor:
    """A step of a = epsilon sigma^2 at a level, with x0 = D(x, sigma)."""
    return x + epsilon / 2 * (x0 - x) + epsilon**0.5 * sigma * noise()
