"""Samples are drawn with the coils that hold the signal."""

import pytest
import torch
from mri_scans import kspace, lines, noise, scan_of

import operators
from invdiff.mri.fewer_coils import LOST, in_fewer_coils
from invdiff.mri.preparing import prepare
from invdiff.mri.settings import ScanSettings
from invdiff.simulation import simulate
from operators import mri

SIZE = (32, 32)
MAPS = mri.birdcage_maps(SIZE, 12)


def weights():
    return 0.2 + torch.rand(SIZE, generator=torch.Generator().manual_seed(0))


PHYSICS = {
    "lines": lambda: operators.MultiCoilMRI(mri.sampling.random_lines(SIZE, 2, 0.2), MAPS),
    "weighted": lambda: operators.MultiCoilMRI(mri.sampling.random_lines(SIZE, 2, 0.2), MAPS, weights=weights()),
    "two sets": lambda: operators.MultiCoilMRI(torch.ones(SIZE), torch.stack([MAPS, MAPS.roll(1, 1)], 1)),
    "radial": lambda: operators.NonCartesianMRI(mri.trajectories.radial(SIZE, 24, 64), SIZE, MAPS),
}


@pytest.mark.parametrize("name", PHYSICS)
def test_it_is_the_measurement_without_its_last_coils(name):
    """What the fewer coils measure of an image is the mixture of what all do, with as much noise, and nearly all of it."""
    physics = PHYSICS[name]()
    x = torch.randn(1, *physics.img_size, generator=torch.Generator().manual_seed(1)).cumsum(-1).cumsum(-2)
    problem = simulate(physics, x / x.std(), 0.01)
    fewer = in_fewer_coils(problem)
    coils = fewer.y.shape[2]
    assert 1 < coils < 12
    assert fewer.sigma_y == problem.sigma_y
    assert fewer.y.square().sum() >= (1 - LOST) * problem.y.square().sum()
    one_less = mri.compress_svd(torch.complex(problem.y[:, 0], problem.y[:, 1]), coils - 1)
    assert float(one_less.energy) < 1 - LOST
    residual = (fewer.y - fewer.A(x / x.std()))[fewer.observed().expand_as(fewer.y)]
    assert residual.square().mean().sqrt() == pytest.approx(0.01, rel=5 / (2 * len(residual)) ** 0.5)


def test_coils_that_all_count_stay():
    halves = torch.eye(2, dtype=torch.complex64).repeat_interleave(16, 1)[:, None].expand(2, *SIZE)
    problem = simulate(operators.MultiCoilMRI(torch.ones(SIZE), halves), torch.rand(1, 2, *SIZE), 0.01)
    assert in_fewer_coils(problem) is problem


def test_a_slice_is_judged_by_all_coils_and_a_number_asked_for_is_kept():
    scan = scan_of(kspace(coils=12), mask=lines(), noise_scan=noise(12, 2000))
    usual, all_coils = (prepare(scan, 0, ScanSettings(coils=count)) for count in (None, 12))
    assert usual.drawn.problem.y.shape[2] == all_coils.lean.y.shape[2] == all_coils.choices["coils"]["drawn_with"] == 12
    assert usual.choices["coils"]["drawn_with"] == usual.lean.y.shape[2] < 12
