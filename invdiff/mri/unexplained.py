"""What coil maps leave unexplained of k-space: how much that is, where it is more, and the covariance of the noise in it."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import operators
from invdiff.mri.whitening import UNEQUAL
from invdiff.problem import Problem

RIDGE = 1e-3            # of least squares, to look at the data
TELLING = 0.02          # share of white noise that least squares must leave, for what they leave of the data to tell something
RING = 3.0              # width of the rings of k-space in which the misfit is looked at
ENOUGH = 50             # degrees of freedom that tell a ring's misfit to a tenth
LOUDER, OFTEN = 1.25, 0.1       # a ring's noise level over the rest's, and share of k-space with it, that weights are worth
LOUDEST = 6.0           # ring over the quietest, as which the others count: of 36, conjugate gradients left 28 dB of 57
OUTER = (0.5, 0.9)      # of k-space's half width: errors of the maps are large before, and what they fold over the edge after


def look(physics: Any, y: Tensor) -> Tensor:
    """Least squares (1, 2 M, H, W), with hardly a ridge."""
    return operators.least_squares(physics, y, z=0.0, gamma=1 / RIDGE, iterations=60).x


@dataclass(frozen=True)
class Remains:
    """What least squares leave of k-space, and of white noise of unit variance in its place: (1, 2, N, ...) both.

    Errors of the coil maps are in the former, as they should: where they are larger than the noise, the data are less certain.
    """

    physics: Any
    data: Tensor
    noise: Tensor

    def level(self) -> float:
        """The standard deviation, per real channel, of white noise that would leave as much."""
        return float((self.data.square().sum() / self.noise.square().sum()).sqrt())

    def levels(self, given: float) -> Tensor | None:
        """That level at each place of k-space, (H, W): of its ring around the origin, and no less than what was given or half
        of the places have, nor than a sixth of the loudest. Errors of the maps are largest in the middle, where they multiply
        the largest values. None where few places are louder than the rest."""
        left, expected = ((each**2).sum((0, 1, 2)) for each in (self.data, self.noise))
        rows, columns = (torch.arange(n, dtype=left.dtype) - n // 2 for n in left.shape)
        ring = (torch.hypot(*torch.meshgrid(rows, columns, indexing="ij")) / RING).round().long()
        sums = left.new_zeros(2, int(ring.max()) + 1)
        sums.index_add_(1, ring.flatten(), torch.stack([left, expected]).flatten(1))
        levels = (sums[0] / sums[1]).sqrt().masked_fill(sums[1] < ENOUGH, math.nan)[ring]
        measured = levels[(self.physics.mask[0, 0] > 0) & levels.isfinite()]
        if not len(measured):
            return None
        quiet = max(given, float(measured.median()))
        often = float((measured > LOUDER * quiet).float().mean())
        quiet = max(quiet, float(measured.max()) / LOUDEST)
        return levels.nan_to_num(quiet).clamp_min(quiet) if often > OFTEN else None

    def covariance(self) -> Tensor | None:
        """E[n n^H] (N, N) of the noise in the coils, from the outer part of k-space; None where that does not tell it.

        Least squares leave P n of noise n, with P the projector onto what the maps cannot explain. With Q the sum of n n^H over
        what they leave of white noise, and D that of the data, Q^(-1/2) D Q^(-1/2) is exact for white noise, and within a
        fifth in the ratio of its eigenvalues for what coils have. Mixtures of coils that the maps explain nearly whatever they
        hold, as where few lines are measured, are held to white noise of the mean level by ENOUGH samples of it.
        """
        outer = self._outer()
        found, expected = (_outer_products(each, outer) for each in (self.data, self.noise))
        level = found.trace().real / expected.trace().real
        held = 2 * ENOUGH * torch.eye(len(found))
        values, vectors = torch.linalg.eigh(expected + held)
        root = (vectors / values.sqrt()) @ vectors.mH
        covariance = 2 * root @ (found + level * held) @ root
        values = torch.linalg.eigvalsh(covariance)
        return covariance if 0 < float(values[-1]) < UNEQUAL * float(values[0]) else None

    def _outer(self) -> Tensor:
        if isinstance(self.physics, operators.NonCartesianMRI):
            radius = self.physics.trajectory.norm(dim=1)
            return _between(radius / radius.max())
        mask = self.physics.mask[0, 0] > 0
        rows, columns = ((torch.arange(n) - n // 2).abs() / (n / 2) for n in mask.shape)
        return mask & _between(torch.maximum(rows[:, None], columns))


def _between(radius: Tensor) -> Tensor:
    return (radius > OUTER[0]) & (radius <= OUTER[1])


def _outer_products(left: Tensor, where: Tensor) -> Tensor:
    """The sum of n n^H (N, N) over some places of what is left, (1, 2, N, ...)."""
    samples = torch.complex(left[0, 0], left[0, 1])[:, where]
    return samples @ samples.mH


def remains(physics: Any, y: Tensor, fit: Tensor | None = None) -> Remains | None:
    """What `fit`, or least squares, leave of y; None where they can explain anything, as with a single coil."""
    observed = Problem(physics, y, 0.0).observed()
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y) * observed
    left = noise - physics.A(look(physics, noise))
    if float(left.square().sum()) < TELLING * float(noise.square().sum()):
        return None
    return Remains(physics, y - physics.A(look(physics, y) if fit is None else fit), left)
