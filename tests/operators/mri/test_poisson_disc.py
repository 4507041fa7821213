"""Poisson discs: distances, holes, density and aliasing."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from operators.mri import _poisson_disc, sampling


def offsets(n):
    return np.arange(n) - n // 2


def poisson(shape, acceleration, calib, decay=1.0, corners=False, seed=0):
    """Kept points (N, 2) from the origin, whether each is in the block, allowed points (M, 2), and the radius law."""
    block = sampling.center_block(shape, calib).numpy()
    k = np.hypot(*np.ix_(*(offsets(n) / (n / 2) for n in shape)))
    allowed = ((k <= 1) | corners) | block
    target, generator = round(k.size / acceleration), np.random.default_rng(seed)
    mask, slope = _poisson_disc.poisson_disc(k**decay, (k <= 1) | corners, block, target, generator)
    public = sampling.poisson_disc(shape, acceleration, calib, seed, corners, decay)
    assert np.array_equal(mask, public.numpy())
    points = np.argwhere(mask)
    return points, block[mask], (0.75 + slope * k**decay), allowed


CASES = [((64, 64), 4, 12, 1.0, False), ((97, 64), 8, 8, 1.0, False), ((64, 64), 6, 0, 0.0, True), ((80, 81), 12, 7, 0.5, True),
         ((48, 48), 2, 8, 1.0, False)]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_poisson_discs_keep_their_distance(case):
    points, in_block, radius, allowed = poisson(*case)
    own = radius[tuple(points.T)]
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    least = np.minimum(own[:, None], own[None]) - 0.25
    exempt = (in_block[:, None] & in_block[None]) | np.eye(len(points), dtype=bool)
    assert (distance >= least)[~exempt].all()
    assert allowed[tuple(points.T)].all()


@pytest.mark.parametrize("case", CASES)
def test_poisson_discs_leave_no_holes(case):
    points, _, radius, allowed = poisson(*case)
    empty = np.argwhere(allowed)
    distance = np.linalg.norm(empty[:, None] - points[None], axis=-1)  # (M, N)
    covered = (distance < radius[tuple(points.T)] + 0.25).any(1)
    assert covered.mean() > 0.98  # all, but for the 0.5 % of points that are taken out, with their discs


def test_a_poisson_disc_thins_out_evenly_in_all_directions():
    mask = sampling.poisson_disc((200, 200), 6, 20).numpy()
    y, x = np.ix_(offsets(200), offsets(200))
    rings = [mask[(np.hypot(y, x) >= r) & (np.hypot(y, x) < r + 15)].mean() for r in range(14, 99, 15)]
    assert all(inner > outer for inner, outer in pairwise(rings))
    assert not mask[np.hypot(y, x) > 100].any()
    turn = np.arctan2(y, x) // (math.pi / 4)
    sectors = [mask[(turn == t) & (np.hypot(y, x) > 20)].mean() for t in range(-4, 4)]
    assert max(sectors) < 1.06 * min(sectors)
    even = sampling.poisson_disc((200, 200), 6, 0, corners=True, decay=0.0).numpy().reshape(5, 40, 5, 40).mean((1, 3))
    assert np.abs(even * 6 - 1).max() < 0.06


@pytest.mark.parametrize("acceleration", [4, 10])
def test_the_aliasing_of_a_poisson_disc_is_incoherent_and_far_from_the_object(acceleration):
    mask = sampling.poisson_disc((128, 128), acceleration, calib=0, corners=True, decay=0.0).double()
    spread = torch.fft.fftshift(torch.fft.fft2(mask).abs() / mask.sum())  # the point spread function
    spread[64, 64] = 0
    assert spread.max() < 0.15  # a lattice has copies of height 1
    near = spread[64 - 9 : 64 + 10, 64 - 9 : 64 + 10].square().mean()
    assert near < 0.4 * (1 - 1 / acceleration) / mask.sum()  # 1 for points drawn independently
