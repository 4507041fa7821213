"""Steps towards the clean estimate, with part of the noise drawn anew."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor

from invdiff.diffusion.sdes import UNIT
from invdiff.diffusion.stepping import Denoise, DrawNoise, Integrator, Step, towards
from invdiff.errors import InputError


class DDIM(Integrator):
    """DDIM; eta = 0 is the probability-flow ODE by Euler steps, eta = 1 is DDPM (Song et al. 2021, Eqs. 12 and 16)."""

    eta: float = Field(0.0, ge=0, le=1)

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            x = towards(x0, x, sigma, after, self.eta, noise)
            yield Step(after, x, x0)


class DDPM(Integrator):
    """Ancestral sampling (Ho et al. 2020, Algorithm 2, with Eqs. 6 and 7): x' ~ N(x0 + (after / sigma)^2 (x - x0), v I).

    variance: v of the two in their Sec. 3.2. "beta_tilde" is that of x' given x and x0, the lower bound; "beta" that of x'
    given x where x0 is white with the standard deviation u of their unit, 0.5 here, the upper bound. "learned" is what the
    prior says, at each pixel, in log v from one to the other (Nichol & Dhariwal 2021, Eq. 15).
    """

    variance: Literal["beta_tilde", "beta", "learned"] = "beta_tilde"

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0, share = self._estimate(denoise, x, sigma)
            x = x0 + (after / sigma) ** 2 * (x - x0)
            if after > 0:
                lower, upper = ((u**2 + after**2) * (sigma**2 - after**2) / (u**2 + sigma**2) for u in (0.0, UNIT))
                x = x + lower ** ((1 - share) / 2) * upper ** (share / 2) * noise()
            yield Step(after, x, x0)

    def _estimate(self, denoise: Denoise, x: Tensor, sigma: float) -> tuple[Tensor, Tensor | float]:
        """E[x0 | x], and where log v is between its bounds, 0 to 1."""
        if self.variance != "learned":
            return denoise(x, sigma), float(self.variance == "beta")
        told = getattr(denoise, "with_variance", None)
        x0, share = told(x, sigma) if told else (x, None)
        if share is None:
            raise InputError("solver.variance: learned needs a prior that tells the variance of a step, trained with "
                             "loss.kind: hybrid, and samples without a measurement and without guidance; beta_tilde or beta "
                             "need none")
        return x0, (share + 1) / 2


class Renoise(Integrator):
    """Keep a share 1 - zeta of the noise's variance and draw the rest anew (Zhu et al. 2023, Eq. 14)."""

    zeta: float = Field(0.3, ge=0, le=1)

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        for sigma, after in pairwise(sigmas.tolist()):
            x0 = denoise(x, sigma)
            x = x0 + after * (1 - self.zeta) ** 0.5 / sigma * (x - x0)
            if after > 0 and self.zeta > 0:
                x = x + after * self.zeta**0.5 * noise()
            yield Step(after, x, x0)
