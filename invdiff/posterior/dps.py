"""Diffusion posterior sampling: ancestral steps, each pulled along the gradient of the data misfit."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.diffusion.integrators import Denoise, Step
from invdiff.diffusion.randomness import Streams
from invdiff.posterior.covariance import dots
from invdiff.posterior.likelihood import length, misfit
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.problem import Problem

PAPER_PIXELS = 3 * 256 * 256
LEAST_COSINE = 0.01


class DPS(Sampler):
    """DPS (Chung et al. 2023, Algorithm 1): steps of the prior, each pulled along -grad |y - A(D(x))|^2, for any
    differentiable operator.

    The default takes y given x as N(A(D), (sigma_y^2 + r^2) I), and its score for the pull. r^2, what the error of D puts on
    y, is taken along the residual r = y - A(D): with u = J_A^T r and the gradient g = J_D^T u,  r^2 = sigma^2 u^T g / |r|^2,
    as sigma^2 J_D is the covariance of x0 given x. So the pull follows the prior's error, the operator and sigma_y, and is the
    same for every number of steps. Exact, up to the integrator, where the residual has one component.

    A number for `strength` is their zeta instead: a step of zeta grad |y - A(D)|, for 1000 steps at 3 x 256 x 256. Fewer steps
    are longer in proportion, and images of another size are moved in proportion to their norm. The length of that step knows
    neither the level nor sigma_y, and far from 1000 steps it is too long at low levels, or too short at high ones.

    Biased by design: where A A^T is not a multiple of the identity one number cannot be right. One call and its gradient a
    step.
    """

    about: ClassVar[str] = "gradient of the data misfit, any differentiable operator"
    num_steps: PositiveInt = Field(100, alias="steps")
    strength: PositiveFloat | None = None

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        yield from super().steps(prior, problem, seeds) if self.strength is None else self._published(prior, problem, seeds)

    def posterior_denoiser(self, prior: Denoiser, problem: Problem) -> Denoise:
        """The default rule."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            x, x0 = _tracked(prior, x, sigma)
            r, u = misfit(problem, x0.detach())
            (g,) = torch.autograd.grad(x0, x, u)
            error = sigma**2 * along(u, g) / length(r).square().clamp_min(1e-30)
            return x0.detach() + sigma**2 * g / (problem.sigma_y**2 + error).clamp_min(1e-30)

        return denoise

    def _published(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max)
        x = float(sigmas[0]) * noise.normal(shape)
        for sigma, after in pairwise(sigmas.tolist()):
            x, x0 = _tracked(prior, x, sigma)
            with torch.enable_grad():
                distance = (problem.y - problem.A(x0)).flatten(1).norm(dim=1)
                (gradient,) = torch.autograd.grad(distance.sum(), x)
            x0 = x0.detach()
            (step,) = self.integrator(_always(x0), torch.tensor([sigma, after], dtype=torch.float64), x.detach(),
                                      lambda: noise.normal(shape))
            # Algorithm 1 is in the variance-preserving frame and for [-1, 1]: both changes of scale are in `stride`
            stride = float(self.strength or 0) * 1000 / self.num_steps / 2 * (x0[0].numel() / PAPER_PIXELS) ** 0.5
            stride *= ((1 + 4 * sigma**2) * (1 + 4 * after**2)) ** 0.5
            x = step.x - stride * gradient
            yield Step(after, x, x0)


def along(u: Tensor, g: Tensor) -> Tensor:
    """u^T J u for g = J^T u, where a network's Jacobian may not be positive; then its size counts. (B, 1, 1, 1)."""
    return torch.maximum(dots(u, g), LEAST_COSINE * (dots(u, u) * dots(g, g)).sqrt())


def _tracked(prior: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """x, of which gradients are wanted, and D(x, sigma)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return x, prior(x, sigma)


def _always(x0: Tensor) -> Denoise:
    return lambda x, sigma: x0
