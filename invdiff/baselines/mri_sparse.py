"""Compressed-sensing MRI by proximal gradients: l1-wavelet and total variation of complex images.

Both minimise 1/2 |y - A x|² + weight R(x) by FISTA (Beck & Teboulle 2009) with one Aᴴ A an iteration and no inner system.
x is (B, 2 M, ..., H, W), real and imaginary part of M images one after the other; R sums over them, and over the slices or
frames before the last two axes. R depends on magnitudes of complex numbers, so the image's phase is free.
"""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.baselines.iterations import fista, scaled_adjoint
from invdiff.baselines.wavelets import Wavelets
from invdiff.problem import Problem

DUAL_STEPS = 5


def l1_wavelet(problem: Problem, weight: float, iterations: int, shift: bool = True) -> Tensor:
    """argmin_x 1/2 |y - A x|² + weight Σ |W x|, (B, 2 M, ..., H, W), W complex orthogonal wavelets.

    shift: before each prox the image is moved at random against the wavelets (random cycle spinning, Figueiredo & Nowak
    2003, as BART does it), which removes the blocks of a decimated transform: the sum is then about its mean over all
    positions, and x jitters a little to the end. Without, the minimiser is that of one position.
    """
    start = scaled_adjoint(problem.physics, problem.y)
    wavelets = Wavelets(start.shape[-2:], start)
    generator = torch.Generator().manual_seed(0)

    def prox(v: Tensor, step: Tensor) -> Tensor:
        by = [int(torch.randint(n, (), generator=generator)) if shift else 0 for n in v.shape[-2:]]
        moved = shrink(wavelets, v.roll(by, (-2, -1)), weight * step)
        return moved.roll([-n for n in by], (-2, -1))

    return fista(problem, prox, start, iterations) * _seen(problem)


def total_variation(problem: Problem, weight: float, iterations: int) -> Tensor:
    """argmin_x 1/2 |y - A x|² + weight Σ |∇x|, (B, 2 M, ..., H, W), ∇x the complex differences along H and W, isotropic.

    The prox is Chambolle's (2004) dual problem, by a few projected gradient steps that go on from the last prox's dual.
    """
    start = scaled_adjoint(problem.physics, problem.y)
    dual = start.new_zeros((*start.shape, 2))

    def prox(v: Tensor, step: Tensor) -> Tensor:
        nonlocal dual
        for _ in range(DUAL_STEPS):
            dual = dual + gradient(v - gradient_adjoint(dual)) / 8          # 8 bounds |∇|²
            dual = dual / (edges(dual) / (weight * step)).clamp_min(1).repeat_interleave(2, 1).unsqueeze(-1)
        return v - gradient_adjoint(dual)

    return fista(problem, prox, start, iterations) * _seen(problem)


def _seen(problem: Problem) -> Tensor:
    """True where data reach the image, of x's shape: elsewhere, as where all coil maps are 0, a regulariser only guesses."""
    generator = torch.Generator().manual_seed(0)
    return problem.A_adjoint(torch.randn(problem.y.shape[1:], generator=generator).to(problem.y).expand_as(problem.y)) != 0


def magnitude(x: Tensor) -> Tensor:
    """(B, M, ...) of real and imaginary parts (B, 2 M, ...)."""
    return x.unflatten(1, (-1, 2)).square().sum(2).sqrt()


def gradient(x: Tensor) -> Tensor:
    """Forward differences (..., H, W, 2) along H and W of x (..., H, W), zero over the last edge. deepinv's ∇ is the same for
    four axes; of five it makes a volume, with differences along three."""
    g = x.new_zeros((*x.shape, 2))
    g[..., :-1, :, 0] = x[..., 1:, :] - x[..., :-1, :]
    g[..., :, :-1, 1] = x[..., :, 1:] - x[..., :, :-1]
    return g


def gradient_adjoint(g: Tensor) -> Tensor:
    """The transpose of `gradient`, (..., H, W)."""
    down, along = g[..., :-1, :, 0], g[..., :, :-1, 1]
    x = torch.zeros_like(g[..., 0])
    x[..., :-1, :] -= down
    x[..., 1:, :] += down
    x[..., :, :-1] -= along
    x[..., :, 1:] += along
    return x


def edges(g: Tensor) -> Tensor:
    """|∇x|, (B, M, ..., H, W), of a gradient (B, 2 M, ..., H, W, 2)."""
    return g.square().sum(-1).unflatten(1, (-1, 2)).sum(2).sqrt()


def shrink(wavelets: Wavelets, x: Tensor, threshold: Tensor) -> Tensor:
    """The prox of threshold Σ |W x| at x: complex coefficients lose that much of their magnitude."""
    c = wavelets.forward(x)
    c = c * (1 - threshold / magnitude(c).clamp_min(1e-30)).clamp_min(0).repeat_interleave(2, 1)
    return wavelets.inverse(c)
