"""Posterior sampling with latent diffusion: the pull of the data through the decoder, and towards latents that stay put."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.diffusion.integrators import Denoise, Step
from invdiff.diffusion.randomness import Streams
from invdiff.posterior.covariance import dots
from invdiff.posterior.dps import along
from invdiff.posterior.latents import image_of, in_latents
from invdiff.posterior.likelihood import is_linear, length, misfit, squared_norm
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.priors.latent import LatentPrior
from invdiff.problem import Problem


class PSLD(Sampler):
    """PSLD (Rout et al. 2023, Algorithm 2): `dps` in the latent space of a prior of latents, whose pull along
    u = J^T (y - A(decode(D))), J the Jacobian of A(decode(.)), gets a second part, `glue` times as long: along

        -grad |D - encode(decode(D) + A^T (y - A decode(D)) / |A|^2)|^2

    towards latents that the image with the data put in comes back to. Many latents have the same image, or nearly so, and the
    first part alone does not choose. For linear operators; without it (`glue=0`, or another operator) this is latent DPS.

    Their lengths are constants for a model and a task. Here y given z is N(A(decode(D)), (sigma_y^2 + r^2) I) as in `dps`, r^2
    taken along the residual, and the whole pull is as long as makes the residual fall by what that says; sigma_y counts what
    the autoencoder loses, too. Noise levels are in units of the latents. Biased as `dps` is. One call and its gradient a step,
    and those of decoder and encoder.
    """

    about: ClassVar[str] = "gradient of the data misfit through a decoder, for a prior of latents"
    latents: ClassVar[bool] = True
    num_steps: PositiveInt = Field(100, alias="steps")
    sigma_max: PositiveFloat = 20.0
    sigma_min: PositiveFloat = 0.02
    glue: float = Field(0.1, ge=0)

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        latent, hidden = in_latents(prior, problem, "PSLD")
        noise, shape = Streams(seeds, problem.y.device), hidden.image_shape
        denoise = self._rule(prior, latent, problem, hidden)
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max)
        with torch.no_grad():
            draw = noise.normal(shape)
            z = denoise(self.sigma_max * draw, self.sigma_max) + self.sigma_max * draw
            for step in self.integrator(denoise, sigmas, z, lambda: noise.normal(shape)):
                yield Step(step.sigma, step.x, image_of(latent, problem, step.x0, noise.normal), step.info)

    def _rule(self, prior: Denoiser, latent: LatentPrior, problem: Problem, hidden: Problem) -> Denoise:
        """E[z0 | z, y] as a function of (z, sigma)."""
        glue = self.glue if is_linear(problem) else 0.0
        size = squared_norm(problem, torch.zeros(1, *problem.image_shape).to(problem.y).expand(len(problem.y), -1, -1, -1))

        def denoise(z: Tensor, sigma: float | Tensor) -> Tensor:
            variance = torch.as_tensor(sigma).to(z).square().reshape(-1, 1, 1, 1)       # of each chain, where steps adapt
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                z0 = prior(z, sigma)
            r, u = misfit(hidden, z0.detach())
            pull = u
            if glue:
                v = glue_pull(latent, problem, z0.detach(), size)
                pull = u + glue * v * (dots(u, u) / dots(v, v).clamp_min(1e-30)).sqrt()
            (g,) = torch.autograd.grad(z0, z, pull)
            share = dots(u, pull) / dots(u, u).clamp_min(1e-30)
            error = variance * along(u, g) / length(r).square().clamp_min(1e-30)
            return z0.detach() + variance * g / (share * hidden.sigma_y**2 + error).clamp_min(1e-30)

        return denoise


def glue_pull(latent: LatentPrior, problem: Problem, z0: Tensor, size: Tensor) -> Tensor:
    """-grad |q|^2 / 2 at z0 of q = z0 - encode(x + A^T (y - A x) / size), x = decode(z0); of z0's shape."""
    with torch.enable_grad():
        at = z0.detach().requires_grad_()
        x = latent.decode(at)
        filled = x + problem.A_adjoint(problem.y - problem.A(x)) / size
        q = at - latent.encode(filled)
        return -torch.autograd.grad(q.square().sum() / 2, at)[0]
