"""Second-order guidance beyond Gaussian conditioning, for measurements of a few values: p(y | x) by its saddlepoint.

The law of x0 given x, weighted by exp(l^T A x0), is that of x0 given x + sigma^2 A^T l: what a denoiser says there are its
moments. With K the cumulant generating function of y given x, and z = x + sigma^2 A^T l,
    K'(l) = A D(z) + sigma_y^2 l,    K''(l) = A C(z) A^T + sigma_y^2 I,    C = sigma^2 dD/dx,
and l such that K'(l) = y, the saddlepoint approximation (Daniels 1954; Butler 2007, Sec. 3.2) is
    log p(y | x) = K(l) - l^T y - log det(2 pi K''(l)) / 2,
exact if x0 given x is Gaussian. Its gradient and Tweedie's formula give
    E[x0 | x, y] = D(z) - sigma^2 / 2 grad_x log det K''.
The last term is not let become longer than a part of the rest, BEND.
"""

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.diffusion.integrators import Denoise
from invdiff.posterior.tweedie import DenoiserAt, Rows, largest_variance, product
from invdiff.problem import Problem

TOLERANCE = 1e-3        # of |y - K'(l)|, in units of what it is without a tilt
TRIALS = 4              # of Newton's steps, halved where the misfit did not fall
# The last term is of third derivatives, which a network was never trained for: it is at most as long as this times the rest.
# Two garments seen through 27 random sums each lost 3 dB at 1, and nothing at a half; mixtures lose little by it.
BEND = 0.5


def saddlepoint_rule(prior: Denoiser, problem: Problem) -> Denoise:
    """A call, and a backward pass for each value of y, at l = 0 and at each of Newton's steps: one for a linear denoiser, for a
    network about three. The last term takes as many double passes.

    Where none brings K'(l) nearer to y, as where a network is no denoiser so far from what it has seen, it is Gaussian
    conditioning with C at x.
    """
    rows = Rows.of(problem)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        tilted, x0 = _saddlepoint(prior, problem, rows, x, sigma)
        moved = (tilted.at.x0 - x0).flatten(1).double().cpu() + tilted.correction(tilted.left)
        bent = sigma**2 * tilted.bend() * tilted.tilt.any(1, keepdim=True)
        bent = bent - tilted.correction(rows.scale * product(rows.basis.mT, bent))         # along z(x), of which l is a part
        limit = BEND * moved.norm(dim=1, keepdim=True) / bent.norm(dim=1, keepdim=True).clamp_min(1e-300)
        return x0 + (moved + limit.clamp_max(1) * bent).to(x).reshape(x.shape)

    return denoise


class _Tilted:
    """Moments of the law weighted by exp(l^T A x0), in coordinates of the operator's left singular vectors.

    Attributes:
        tilt: l, (B, k).
        at: the denoiser at z.
        left: y - K'(l), (B, k).
        curvature: K''(l), (B, k, k).
    """

    def __init__(self, prior: Denoiser, problem: Problem, rows: Rows, x: Tensor, sigma: float, tilt: Tensor):
        shift = sigma**2 * product(rows.basis, rows.scale * tilt)
        self.rows, self.tilt = rows, tilt
        self.at = DenoiserAt(prior, x + shift.to(x).reshape(x.shape), sigma, twice=True)
        root = rows.root(self.at, largest_variance(prior, x, sigma))
        seen = rows.seen(root)
        self._pull = root @ seen.mT                                                                 # C A^T, (B, n, k)
        self.curvature = seen @ seen.mT + problem.noise_variance * torch.eye(seen.shape[1], dtype=torch.float64)
        self.left = rows.residual(problem, self.at.x0) - problem.noise_variance * tilt

    def correction(self, v: Tensor) -> Tensor:
        """C A^T K''^-1 v, (B, n) for (B, k)."""
        return product(self._pull, torch.linalg.solve(self.curvature, v))

    def bend(self) -> Tensor:
        """-1/2 the gradient by z of log det K'', (B, n)."""
        scaled = self.rows.basis * self.rows.scale[:, None]                                         # A^T, (b, n, k)
        weights = torch.linalg.solve(self.curvature, scaled.mT).mT                                  # A^T K''^-1
        shape = self.at.x0.shape
        pairs = zip(*([c.to(self.at.x0).reshape(-1, *shape[1:]).expand(shape) for c in columns.unbind(2)]
                      for columns in (weights, scaled)), strict=True)
        return -self.at.bent(pairs).flatten(1).double().cpu() / 2


def _saddlepoint(prior: Denoiser, problem: Problem, rows: Rows, x: Tensor, sigma: float) -> tuple[_Tilted, Tensor]:
    """The law tilted so that it expects y, by Newton's method from no tilt; and D(x)."""
    tilt = torch.zeros(len(x), rows.scale.shape[1], dtype=torch.float64)
    now = _Tilted(prior, problem, rows, x, sigma, tilt)
    x0, left, curvature, target = now.at.x0, now.left, now.curvature, TOLERANCE * now.left.norm(dim=1)
    share = torch.ones(len(x), 1, dtype=torch.float64)
    for _ in range(TRIALS):
        active = left.norm(dim=1) > target             # an item that is done is left alone, whatever the others do
        if not active.any():
            break
        move = share * active[:, None] * torch.linalg.solve(curvature, left)
        trial = _Tilted(prior, problem, rows, x, sigma, tilt + move)
        better = (trial.left.norm(dim=1) < left.norm(dim=1))[:, None]
        tilt, left = torch.where(better, tilt + move, tilt), torch.where(better, trial.left, left)
        curvature = torch.where(better[..., None], trial.curvature, curvature)
        share = torch.where(better, 1, share / 2)
        now = trial
    return now if torch.equal(now.left, left) else _Tilted(prior, problem, rows, x, sigma, tilt), x0
