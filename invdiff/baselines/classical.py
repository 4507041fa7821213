"""Classical reconstructions behind deepinv's face, y and physics to x: no network, and one weight for all tasks."""

import torch
from deepinv.models import Reconstructor
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from invdiff.baselines.iterations import fista, scaled_adjoint
from invdiff.baselines.total_variation import total_variation
from invdiff.baselines.wavelets import SMALLEST, Wavelets
from invdiff.problem import Problem, require

LEAST_NOISE = 1e-3      # noise that a weight is chosen for where there is none: a weight of 0 would not regularise


class TotalVariation(Reconstructor):
    """argmin_x 1/2 |y - A x|^2 + weight sigma_y TV(x); see `total_variation`."""

    def __init__(self, sigma_y: float, weight: float, iterations: int):
        super().__init__()
        self.weight, self.iterations = weight * max(sigma_y, LEAST_NOISE), iterations

    def forward(self, y: Tensor, physics: Physics, **kwargs: object) -> Tensor:
        """(B, C, H, W). Raises InputError for an operator that is not linear."""
        return total_variation(Problem(physics, y, 0.0), self.weight, self.iterations)


class WaveletSparsity(Reconstructor):
    """argmin_x 1/2 |y - A x|^2 + weight sigma_y |W x|_1 by FISTA (Beck & Teboulle 2009), the wavelets db2.

    The grid of the wavelets moves at random from iteration to iteration, so that it leaves no blocks (Coifman & Donoho 1995;
    Figueiredo & Nowak 2003).
    """

    def __init__(self, sigma_y: float, weight: float, iterations: int):
        super().__init__()
        self.weight, self.iterations = weight * max(sigma_y, LEAST_NOISE), iterations

    @torch.no_grad()
    def forward(self, y: Tensor, physics: Physics, **kwargs: object) -> Tensor:
        """(B, C, H, W). Raises InputError for an operator that is not linear."""
        linear = require(physics, LinearPhysics, "wavelet", "the sampler dps")
        start = scaled_adjoint(linear, y)
        wavelets, generator = Wavelets(start.shape[-2:], start), torch.Generator().manual_seed(0)

        def prox(v: Tensor, step: Tensor) -> Tensor:
            by = torch.randint(SMALLEST, (2,), generator=generator).tolist()
            c = wavelets.forward(v.roll(by, (-2, -1)))
            kept = c.sign() * (c.abs() - self.weight * step).clamp_min(0)
            return wavelets.inverse(kept).roll([-n for n in by], (-2, -1))

        return fista(Problem(linear, y, 0.0), prox, start, self.iterations)
