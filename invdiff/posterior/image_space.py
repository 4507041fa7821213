"""Gaussian conditioning in image space, for linear operators whose A^T A is cheaper than a round trip by the measurement.

With C = R R^T, R diagonal in Fourier space or that times a weight W for each pixel, the correction
C A^T (A C A^T + s^2 I)^-1 r is R v for
    (s^2 I + R^T A^T A R) v = R^T A^T r:
conjugate gradients on the transform of v, which has the prior covariance I. Multi-coil k-space is many times larger than
its image, and A^T A needs fewer transforms than A and A^T where whole lines are sampled.
"""

import torch
from torch import Tensor

from invdiff.priors.spectrum import rotate_colours, rotate_colours_back
from invdiff.problem import Problem


def condition_in_image_space(problem: Problem, power: Tensor, scale: Tensor | None, x0: Tensor, start: Tensor | None = None,
                             *, noise: float, tolerance: float, iterations: int) -> tuple[Tensor, Tensor]:
    """R v (B, C, H, W) for the residual r = y - A x0, C of spectrum `power`, weighted by `scale` where one is given, and
    s^2 = `noise`; and v, to start the next from.

    An item stops where |b - M v|, measured by the preconditioner, has fallen to `tolerance` times |b|.
    """
    system = Whitened(problem, power, noise, scale)
    v = solve_whitened(system, problem.pulled - problem.A_adjoint_A(x0), start, tolerance, iterations)
    return system.image(v), v


def solve_whitened(system: "Whitened", pulled: Tensor, start: Tensor | None, tolerance: float, iterations: int) -> Tensor:
    """v for A^T r = `pulled` (B, C, H, W), by conjugate gradients from `start`."""
    b = system.pull(pulled)
    v = torch.zeros_like(b) if start is None else start
    left = b if start is None else b - system(v)
    p, size = torch.zeros_like(b), system.dot(b, system.prepare * b)
    rz, target = torch.ones_like(size), tolerance**2 * size
    for _ in range(iterations):
        z = system.prepare * left
        old, rz = rz, system.dot(left, z)
        active = rz > target                # an item that is done is left alone, whatever the others do
        if not active.any():
            break
        p = torch.addcmul(z, torch.where(active, rz / old, 0), p)
        q = system(p)
        step = torch.where(active, rz / system.dot(p, q), 0)
        v, left = torch.addcmul(v, step, p), torch.addcmul(left, -step, q)
    return v


class Whitened:
    """The operator v -> (s^2 I + R^T A^T A R) v, and what CG on it needs, for v as half-plane transforms (B, K, H, W // 2 + 1).

    Their inner product is that of images: what stands for two conjugate frequencies is scaled by the root of two.
    """

    def __init__(self, problem: Problem, power: Tensor, noise: float, scale: Tensor | None = None):
        self.problem, self.size, self.noise, self.scale = problem, problem.size, noise, scale
        root, pairs = power.sqrt(), power.new_full((power.shape[-1],), 2**0.5)
        pairs[0] = 1.0
        if self.size[1] % 2 == 0:
            pairs[-1] = 1.0
        self.outwards, self.inwards = root / pairs, root * pairs
        # A^T A taken for a multiple of I: its exact Fourier diagonal does worse for coils, whose images are no circulant
        self.prepare = 1 / (noise + power * problem.mean_gain)

    def image(self, v: Tensor) -> Tensor:
        """R v as an image (B, C, H, W)."""
        x = rotate_colours_back(torch.fft.irfft2(self.outwards * v, s=self.size, norm="ortho"))
        return x if self.scale is None else self.scale * x

    def weights(self, v: Tensor) -> Tensor:
        """p = R^-T v as an image: A^T (A C A^T + s^2 I)^-1 r for the solution v, and R v is C p. Stationary C only."""
        inwards = self.inwards.clamp_min(1e-6 * float(self.inwards.max()))
        return rotate_colours_back(torch.fft.irfft2(v / inwards, s=self.size, norm="ortho"))

    def pull(self, x: Tensor) -> Tensor:
        """R^T x, transformed, for an image x (B, C, H, W)."""
        x = x if self.scale is None else self.scale * x
        return self.inwards * torch.fft.rfft2(rotate_colours(x), norm="ortho")

    def __call__(self, v: Tensor) -> Tensor:
        return torch.add(self.pull(self.problem.A_adjoint_A(self.image(v))), v, alpha=self.noise)

    @staticmethod
    def dot(a: Tensor, b: Tensor) -> Tensor:
        """Inner products, (B, 1, 1, 1)."""
        a, b = torch.view_as_real(a).flatten(1), torch.view_as_real(b).flatten(1)
        return torch.linalg.vecdot(a, b).reshape(-1, 1, 1, 1)
