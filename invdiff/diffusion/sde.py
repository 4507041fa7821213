"""The reverse SDE, dx = -2 sigma grad log p_sigma(x) d(sigma) + sqrt(2 sigma d(sigma)) n (Song et al. 2021b, Eq. 6)."""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.diffusion.langevin import langevin
from invdiff.diffusion.ode import heun
from invdiff.diffusion.stepping import Denoise, DrawNoise, Integrator, Step


class EulerMaruyama(Integrator):
    """Euler-Maruyama steps in the time sigma^2, which here are those of reverse diffusion (Song et al. 2021b, Appendix E)."""

    usual_steps: ClassVar[int] = 250

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            x = _reverse(x, x0, sigma, after, noise)
            yield Step(after, x, x0)


class PredictorCorrector(Integrator):
    """After each step of the reverse SDE, `corrections` of Langevin at the new level (Song et al. 2021b, Algorithms 2 and 4).

    snr: their r, the ratio of what the score and what the noise move, for a step e = 2 (r |n| / |score|)^2. Theirs takes the
    norms' means over the batch, on which a sample then depends; here they are those that hold where noise dominates, E|n|^2 = N
    and E|score|^2 = N / sigma^2, so that e = 2 (r sigma)^2. The last step, to zero, is a denoising.
    """

    usual_steps: ClassVar[int] = 300
    snr: PositiveFloat = Field(0.16, lt=1)
    corrections: PositiveInt = 1

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            x = _reverse(x, x0, sigma, after, noise)
            for _ in range(self.corrections if after > 0 else 0):
                x0 = denoise(x, after)
                x = langevin(x, x0, after, 4 * self.snr**2, noise)
            yield Step(after, x, x0)

    @property
    def calls_per_step(self) -> int:
        return 1 + self.corrections


class EDMStochastic(Integrator):
    """Noise is added to raise the level, and a Heun step takes it down again (Karras et al. 2022, Algorithm 2).

    churn: S_churn, spread over the steps; a level rises by at most a factor sqrt(2). churn_min, churn_max: between which
    levels, S_tmin and S_tmax in image units, which are half of theirs. inflation: S_noise, of the added noise; theirs is 1.003
    to 1.007, to make up for a network that takes off too much, and 1 is right for an exact denoiser.
    """

    churn: NonNegativeFloat = 40.0
    churn_min: NonNegativeFloat = 0.025
    churn_max: PositiveFloat = 25.0
    inflation: PositiveFloat = 1.0

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        share = min(self.churn / (len(sigmas) - 1), 2**0.5 - 1)
        for sigma, after in pairwise(sigmas.tolist()):
            raised = sigma
            if share > 0 and self.churn_min <= sigma <= self.churn_max:
                raised = sigma * (1 + share)
                x = x + self.inflation * (raised**2 - sigma**2) ** 0.5 * noise()
            x, x0 = heun(denoise, x, raised, after)
            yield Step(after, x, x0)

    @property
    def calls_per_step(self) -> int:
        return 2


def _reverse(x: Tensor, x0: Tensor, sigma: float, after: float, noise: DrawNoise) -> Tensor:
    """x + (sigma^2 - after^2) score + sqrt(sigma^2 - after^2) n; to zero, x0."""
    x = x0 + (after / sigma) ** 2 * (x - x0)
    return x + (sigma**2 - after**2) ** 0.5 * noise() if after > 0 else x
