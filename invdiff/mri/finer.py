"""Slices drawn on a finer grid than their own.

A prior knows heads of so many pixels, sharp to the last of them. A scan of few pixels shows it one that is too small; on a grid
of more, with k-space beyond the scan's unmeasured, it sees a larger and smoother one, which it denoises better. What it makes
up beyond the scan's k-space is cut off again.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

import operators
from invdiff.baselines.mri import coil_power
from invdiff.mri.coil_maps import Maps, finer_maps, on_grid
from invdiff.problem import Problem
from operators import mri

FINEST = 4.0            # times the scan's resolution, at most
STEP = 16               # sides are multiples of it, for the transforms' and the networks' sake


@dataclass(frozen=True)
class Drawn:
    """A slice as samples are drawn of it: the problem, the support (1, 2 M, H, W), and the size (h, w) of the scan's grid."""

    problem: Problem
    support: Tensor
    size: tuple[int, int]

    def on_scan(self, x: Tensor) -> Tensor:
        """Images (..., 2 M, H, W) on the scan's grid, (..., 2 M, h, w), zero where the coils see nothing."""
        x = x * self.support[0].to(x)
        fine = (x.shape[-2], x.shape[-1])
        if fine == self.size:
            return x
        kspace = mri.fft(mri.to_complex(x.reshape(-1, 2, *fine)), (-2, -1))
        coarse = mri.ifft(on_grid(kspace, self.size), (-2, -1)) / _ratio(fine, self.size)
        return mri.to_channels(coarse).reshape(*x.shape[:-2], *self.size)


def support_of(physics: operators.MultiCoilMRI) -> Tensor:
    """(1, 2 M, H, W): 1 where the coils see the image, 0 elsewhere."""
    return (coil_power(physics) > 0).to(physics.coil_maps.dtype)


def drawn_on(problem: Problem, maps: Maps, lines: Tensor, side: int) -> Drawn:
    """The problem of Cartesian k-space on a grid of about side^2 pixels, or on its own where that has as many.

    lines (N, h, w): the k-space that the maps come from.
    """
    physics = problem.physics
    size = (physics.mask.shape[-2], physics.mask.shape[-1])
    grow = min(side / (size[0] * size[1]) ** 0.5, FINEST)
    if grow <= 1:
        return Drawn(problem, support_of(physics), size)
    fine = (round(size[0] * grow / STEP) * STEP, round(size[1] * grow / STEP) * STEP)
    fine = (max(fine[0], size[0]), max(fine[1], size[1]))
    ratio = _ratio(fine, size)          # of an orthonormal transform's values, for the image to keep its own
    weights = on_grid((physics.weights * torch.ones_like(physics.mask))[0, 0], fine)
    finer = operators.MultiCoilMRI(on_grid(physics.mask[0, 0], fine), finer_maps(maps, lines, fine)[None],
                                   weights=torch.where(weights > 0, weights, 1))
    return Drawn(Problem(finer, on_grid(problem.y, fine) * ratio, problem.sigma_y * ratio), support_of(finer), size)


def _ratio(fine: tuple[int, int], size: tuple[int, int]) -> float:
    return (fine[0] * fine[1] / (size[0] * size[1])) ** 0.5
