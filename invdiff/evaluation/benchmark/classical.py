"""Classical reconstructions behind deepinv's face, y and physics to x: no network, and one weight for all tasks."""

import torch
from deepinv.models import Reconstructor
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from invdiff.evaluation.baselines import scaled_adjoint, total_variation
from invdiff.evaluation.wavelets import SMALLEST, Wavelets
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
        x = scaled_adjoint(linear, y)
        wavelets, step = Wavelets(x.shape[-2:], x), 1 / _squared_norm(linear, x[:1])
        shifts = torch.randint(SMALLEST, (self.iterations, 2), generator=torch.Generator().manual_seed(0)).tolist()
        ahead, momentum = x, 1.0
        for down, right in shifts:
            moved = (ahead - step * linear.A_adjoint(linear.A(ahead) - y)).roll((down, right), (-2, -1))
            coefficients = wavelets.forward(moved)
            kept = coefficients.sign() * (coefficients.abs() - self.weight * step).clamp_min(0)
            after = wavelets.inverse(kept).roll((-down, -right), (-2, -1))
            momentum, before = (1 + (1 + 4 * momentum**2) ** 0.5) / 2, momentum
            x, ahead = after, after + (before - 1) / momentum * (after - x)
        return x


def _squared_norm(physics: LinearPhysics, like: Tensor) -> float:
    """|A|^2 by power iterations, a little too large rather than too small."""
    v = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    for _ in range(15):
        v = physics.A_adjoint_A(v / v.norm())
    return 1.02 * float(v.norm())
