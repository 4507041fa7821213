"""DiffPIR: plug-and-play restoration, a proximal step on the data at each noise level."""

from typing import ClassVar

from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from pydantic import Field, PositiveFloat, PositiveInt, SerializeAsAny
from torch import Tensor

from invdiff.diffusion.integrators import Denoise, Integrator, Renoise
from invdiff.posterior.covariance import prox, spectrum_for
from invdiff.posterior.likelihood import NONLINEAR, mean_power
from invdiff.posterior.sampler import Sampler
from invdiff.problem import Problem, require


class DiffPIR(Sampler):
    """DiffPIR (Zhu et al. 2023, Algorithm 1): argmin |y - A z|^2 / (2 sigma_y^2) + |z - D|^2 / (2 v) over z, a share of noise
    anew.

    v is the mean power of the prior's error spectrum: what D errs at this level. A number for `strength`, their lambda (they
    tuned it between 1 and 25), makes it sigma^2 / strength, the variance before the prior has spoken.
    Biased: the prior's error is not white. Exact, up to the integrator, for a white Gaussian prior. One network call a step.
    """

    uses_spectrum: ClassVar[bool] = True
    about: ClassVar[str] = "proximal steps, one network call a step"
    num_steps: PositiveInt = Field(100, alias="steps")
    strength: PositiveFloat | None = None
    integrator: SerializeAsAny[Integrator] = Renoise(zeta=1.0)

    def posterior_denoiser(self, prior: Denoiser, problem: Problem) -> Denoise:
        require(problem.physics, LinearPhysics, "DiffPIR", NONLINEAR)
        spectrum = None if self.strength else spectrum_for(prior, problem)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            x0 = prior(x, sigma)
            variance = mean_power(spectrum, sigma, x) if spectrum else sigma**2 / (self.strength or 1)
            return x0 + prox(problem, problem.y - problem.A(x0), variance)

        return denoise
