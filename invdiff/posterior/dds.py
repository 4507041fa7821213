"""Decomposed diffusion sampling: a few conjugate-gradient steps towards the data from the denoiser's estimate."""

from typing import ClassVar

from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from pydantic import PositiveFloat, PositiveInt, SerializeAsAny
from torch import Tensor

from invdiff.diffusion.integrators import Denoise, Integrator, Renoise
from invdiff.posterior.covariance import spectrum_for
from invdiff.posterior.likelihood import NONLINEAR, mean_power
from invdiff.posterior.sampler import Sampler
from invdiff.problem import Problem, require
from operators import conjugate_gradients


class DDS(Sampler):
    """DDS (Chung et al. 2024): argmin gamma |y - A z|^2 / 2 + |z - D|^2 / 2 over z, by `cg_steps` of
    CG from D.

    gamma is v / sigma_y^2, with v(sigma) the mean power of the prior's error spectrum: data and prior are weighed as their
    errors are. A number for `gamma` is theirs, the same at all levels. sigma_y = 0 leaves |y - A z|^2 alone, on the Krylov
    space around D, as theirs does. Exact, up to the integrator and with cg_steps enough, for a white Gaussian prior.
    One network call a step. The error that is taken for white is not carried on by fresh noise alone, the default; theirs is
    DDIM(eta=0.85).
    """

    uses_spectrum: ClassVar[bool] = True
    about: ClassVar[str] = "a few conjugate-gradient steps on the data, one network call a step"
    cg_steps: PositiveInt = 5
    gamma: PositiveFloat | None = None
    integrator: SerializeAsAny[Integrator] = Renoise(zeta=1.0)

    def posterior_denoiser(self, prior: Denoiser, problem: Problem) -> Denoise:
        require(problem.physics, LinearPhysics, "DDS", NONLINEAR)
        spectrum = None if self.gamma else spectrum_for(prior, problem)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            x0 = prior(x, sigma)
            pull = problem.A_adjoint(problem.y - problem.A(x0))
            hold = problem.sigma_y**2 / mean_power(spectrum, sigma, x) if spectrum else 1 / (self.gamma or 1)

            def apply(z: Tensor) -> Tensor:
                return problem.A_adjoint(problem.A(z)) + hold * z

            return x0 + conjugate_gradients(apply, pull, tolerance=1e-5, iterations=self.cg_steps).x

        return denoise
