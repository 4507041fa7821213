"""Problems on mixtures of Gaussians, whose posterior is known.

The test of Cardoso et al. 2023 (MCGDiff, Sec. 5.1): 25 components of unit covariance with means 8 (i, j, i, j, ...),
i and j in -2..2, random weights, and a random m x d operator.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

import operators
from invdiff.priors.analytic import MixturePrior
from invdiff.problem import Problem
from invdiff.simulation import simulate

SCALE = 40.0            # the mixture's units in the range of an image: means within 0.5 +- 0.4


@dataclass(frozen=True)
class Case:
    """A prior on images (1, 1, d), and a problem with y (1, 1, 1, m)."""

    prior: MixturePrior
    problem: Problem


def mixture_case(d: int, m: int, seed: int) -> Case:
    """A random case: weights of chi-squared law, singular values uniform in [0.1, 1], sigma_y up to the largest."""
    generator = torch.Generator().manual_seed(seed)
    grid = 8 * torch.cartesian_prod(torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0))          # (25, 2)
    means = 0.5 + grid.repeat(1, d // 2).reshape(-1, 1, 1, d) / SCALE
    weights = torch.randn(25, generator=generator).square()
    prior = MixturePrior(weights, means, 1 / SCALE**2)
    left = torch.linalg.qr(torch.randn(m, m, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(d, m, generator=generator)).Q
    values = 0.1 + 0.9 * torch.rand(m, generator=generator)
    physics = operators.Separable((1, 1, d), torch.ones(1, 1), left * values @ right.T)
    sigma_y = float(torch.rand(1, generator=generator) * values.max()) / SCALE
    k = torch.multinomial(prior.weights, 1, generator=generator)
    x = means[k] + torch.randn(1, 1, 1, d, generator=generator) / SCALE
    return Case(prior, simulate(physics, x, sigma_y, 2**32 + seed))


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = 1000, seed: int = 0) -> float:
    """Root of the mean squared 2-Wasserstein distance of (n, d) samples projected on random directions (Rabin et al. 2012).

    Never less than the mean 1-Wasserstein distance along the same directions, which the paper reports.
    """
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for block in torch.randn(directions, x.shape[1], generator=generator).split(250):
        block = block / block.norm(dim=1, keepdim=True)
        total += float((torch.sort(x @ block.T, 0)[0] - torch.sort(y @ block.T, 0)[0]).square().mean(0).sum())
    return (total / directions) ** 0.5
