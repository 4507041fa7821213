"""Integrators run on a toy, and what they did: real steps by the library's code, in float64."""

import torch
from torch import Tensor

from invdiff.diffusion.stepping import Denoise, Integrator, Step

SPREAD = 0.25           # of the toys around 0.5, about: what noise of a high level turns into a Gaussian with it


def noise_at(sigma: float, count: int, dimension: int, seed: int) -> Tensor:
    """Where chains start at a level, (count, 1, 1, dimension): N(0.5, sigma^2 + SPREAD^2)."""
    generator = torch.Generator().manual_seed(seed)
    scale = (sigma**2 + SPREAD**2) ** 0.5
    return 0.5 + scale * torch.randn(count, 1, 1, dimension, generator=generator, dtype=torch.float64)


@torch.no_grad()
def run(integrator: Integrator, denoise: Denoise, sigmas: Tensor, x: Tensor, seed: int = 0) -> list[Step]:
    """All steps from x at sigmas[0]."""
    generator = torch.Generator().manual_seed(seed)
    return list(integrator(denoise, sigmas, x, lambda: torch.randn(x.shape, generator=generator, dtype=x.dtype)))


class CountingCalls:
    """A denoiser that counts how often it is called for the whole batch."""

    def __init__(self, denoise: Denoise):
        self.denoise, self.calls = denoise, 0

    def __call__(self, x: Tensor, sigma: object) -> Tensor:
        self.calls += 1
        return self.denoise(x, sigma)
