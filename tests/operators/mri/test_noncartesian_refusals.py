"""What NonCartesianMRI refuses, and what it says of it."""

import importlib.util

import pytest
import torch

import operators

for module in ("mrinufft", "finufft"):
    pytest.importorskip(module, reason="NonCartesianMRI needs mri-nufft with finufft (invdiff[mri])")

POINTS = (torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * torch.tensor([6, 8])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((POINTS[:, :1], (6, 8)), r"trajectory: expected points .* got \(20, 1\)"),
        ((POINTS[:0], (6, 8)), r"trajectory: expected points .* got \(0, 2\)"),
        ((POINTS + 0j, (6, 8)), "trajectory: expected real coordinates"),
        ((POINTS * torch.nan, (6, 8)), "trajectory: expected finite values"),
        ((2 * POINTS, (6, 8)), r"trajectory: expected cycles per field of view, within ±\[3\.0, 4\.0\]"),
        ((POINTS / 8, (6, 8)), r"multiply normalised coordinates in \[-0\.5, 0\.5\] by \(6, 8\)"),
        ((POINTS, (3, 6, 8)), r"img_size: expected \(H, W\), .* got \(3, 6, 8\)"),
        ((POINTS, (6,)), r"img_size: expected \(H, W\), "),
        ((POINTS, (6, 8.5)), r"img_size: expected \(H, W\), "),
        ((POINTS, (2, 4, 6, 8)), r"trajectory: expected one for each of 4 frames"),
        ((POINTS, (6, 8), torch.ones(1, 6, 8)), "coil_maps: expected complex64 or complex128, got torch.float32"),
        ((POINTS, (6, 8), torch.ones(1, 8, 6) + 0j), r"coil_maps: expected .* got \(1, 8, 6\)"),
        ((POINTS, (6, 8), torch.ones(1, 2, 1, 6, 8) + 0j), "coil_maps: expected 1 sets"),
        ((POINTS, (4, 6, 8)), "coil_maps: expected 2 sets of maps for 4 channels, got None"),
        ((POINTS, (6, 8), torch.zeros(2, 6, 8) + 0j), "coil_maps: expected maps that are not all zero"),
        ((POINTS, (6, 8), torch.full((2, 6, 8), torch.inf) + 0j), "coil_maps: expected finite values"),
        ((POINTS, (6, 8), None, torch.ones(19)), r"density: expected one weight a point, \(20,\), got \(19,\)"),
        ((POINTS, (6, 8), None, -torch.ones(20)), r"density: expected weights >= 0"),
        ((POINTS, (6, 8), None, torch.zeros(20)), r"density: expected weights >= 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        operators.NonCartesianMRI(*arguments)


def test_the_middle_of_a_trajectory_is_taken():
    points = operators.mri.trajectories.radial((64, 64), 20)
    inside = points[(points.abs() <= 3).all(-1)]
    assert operators.NonCartesianMRI(inside, (64, 64)).trajectory.shape == inside.shape


def test_a_batch_that_the_maps_do_not_fit_is_refused():
    physics = operators.NonCartesianMRI(POINTS, (6, 8), torch.ones(3, 2, 6, 8) + 0j)
    with pytest.raises(ValueError, match=r"x: expected a batch of 3, one for each of the maps, got \(2, 2, 6, 8\)"):
        physics.A(torch.zeros(2, 2, 6, 8))


def test_without_mri_nufft_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"no mrinufft and no finufft: pip install 'invdiff\[mri\]'"):
        operators.NonCartesianMRI(POINTS, (6, 8))
