"""What samplers in latent space share: the problem as one of latents, its linearisation, and the image that latents mean."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from deepinv.models import Denoiser
from deepinv.physics import Physics
from torch import Tensor

from invdiff.errors import InputError
from invdiff.posterior.covariance import StationaryCovariance, prox
from invdiff.posterior.likelihood import Linearised, is_linear
from invdiff.priors.latent import LatentPrior, latent_of
from invdiff.problem import Problem
from operators import conjugate_gradients

STEP = 1e-2             # in image units, of a difference that stands for a derivative


class Decoded(Physics):
    """z -> A(decode(z)): an operator on images as one on their latents, which is not linear."""

    def __init__(self, physics: Physics, latent: LatentPrior, image_shape: tuple[int, ...]):
        super().__init__()
        self.physics, self.latent = physics, latent
        self.img_size = latent.latent_shape(image_shape)

    def A(self, z: Tensor, **kwargs: Any) -> Tensor:
        return self.physics.A(self.latent.decode(z))


def in_latents(prior: Denoiser, problem: Problem, sampler: str) -> tuple[LatentPrior, Problem]:
    """The prior's autoencoder, and the problem of the latents: y = A(decode(z)) + A(e) + n, where e, what no latent can say, is
    taken as white, of the prior's `error`, and A(e) as noise of the same mean power.

    Raises InputError for a prior of images, and for images that the autoencoder is not for.
    """
    latent = latent_of(prior)
    if latent is None:
        raise InputError(f"{sampler} draws latents, and needs a prior of them, such as fashion-latent; for a prior of images "
                         "there are moment_matching, dps, daps and others")
    shape = problem.image_shape
    if shape[0] != latent.channels:
        raise InputError(f"prior: it is for images of {latent.channels} channels, and the problem's have {shape[0]}")
    decoded = Decoded(problem.physics, latent, shape)
    lost = latent.error * _gain(problem) if latent.error else 0.0
    return latent, Problem(decoded, problem.y, (problem.sigma_y**2 + lost**2) ** 0.5, problem.calls)


def _gain(problem: Problem) -> float:
    """Root mean square of what white noise of variance one on an image puts on y, where that sees the image."""
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((1, *problem.image_shape), 0.5)
    noise = torch.randn(grey.shape, dtype=torch.float32, generator=generator)
    grey, noise = (part.to(problem.y).expand(len(problem.y), *problem.image_shape) for part in (grey, noise))
    push = (problem.physics.A(grey + STEP * noise) - problem.physics.A(grey)) / STEP
    return float((push.square().sum() / (push != 0).sum().clamp_min(1)).sqrt())


def image_of(latent: LatentPrior, problem: Problem, z: Tensor, noise: Callable[[Sequence[int]], Tensor] | None) -> Tensor:
    """x = decode(z) + e, e white and of the prior's `error`: a draw of e given z and y, or its mean without `noise`, which
    gives standard normal draws (B, *shape) for a shape. decode(z) where there is no error, or A is not linear."""
    x = latent.decode(z)
    if not latent.error or not is_linear(problem):
        return x
    left = problem.y - problem.A(x)
    if noise:                   # both perturbed, and put right by what they miss: no square root of a covariance is needed
        e = latent.error * noise(problem.image_shape)
        left = left - problem.A(e) - problem.sigma_y * noise(problem.y.shape[1:]) * problem.observed()
        x = x + e
    return x + prox(problem, left, latent.error**2)


def most_likely(problem: Problem, mean: Tensor, power: Tensor, newton_steps: int, *, tolerance: float = 1e-3) -> Tensor:
    """argmin over z of |y - A(z)|^2 / sigma_y^2 + (z - mean)^T C^-1 (z - mean), C stationary with spectrum `power`.

    Gauss-Newton steps, each by conjugate gradients on v, z = mean + C^1/2 v. One is exact for a linear A.
    """
    root = StationaryCovariance(power, problem.size).root
    noise = problem.noise_variance
    z, v = mean, None
    for _ in range(newton_steps):
        at = Linearised(problem, z)
        target = (problem.y - at.value + at.push(z - mean)).detach()
        v = conjugate_gradients(_normal(at, root, noise), root(at.pull(target)), v, tolerance=tolerance, iterations=30).x
        z = mean + root(v)
    return z


def _normal(at: Linearised, root: Callable[[Tensor], Tensor], noise: float) -> Callable[[Tensor], Tensor]:
    return lambda v: root(at.pull(at.push(root(v)))) + noise * v
