"""Slices drawn on a finer grid than the scan's: what is drawn there explains the same k-space."""

import pytest
import torch

import operators
from invdiff.mri.coil_maps import Maps, on_grid
from invdiff.mri.finer import drawn_on
from invdiff.problem import Problem
from operators import mri
from operators.mri import sampling
from operators.mri.sensitivities import calibrate

SIZE = (48, 40)


def problem_of(coils, sets=1, weights=None):
    """K-space that smooth coils see of a smooth head, as a problem, with ESPIRiT's maps and what they came from."""
    maps = mri.birdcage_maps(SIZE, coils)[0] if coils > 1 else torch.ones(1, *SIZE, dtype=torch.complex64)
    rows, columns = (torch.linspace(-1, 1, n) for n in SIZE)
    head = torch.exp(-4 * (rows[:, None] ** 2 + columns**2)) * (1 + 0.3 * torch.sin(9 * rows)[:, None])
    kspace = mri.fft(head * maps, (-2, -1))
    mask = sampling.equispaced_fraction_lines(SIZE, 2, center_fraction=0.5)
    if coils == 1:
        found = Maps(maps[None], {"source": "a single coil"})
    else:
        made = calibrate(kspace[None], 20, sets, kernel=5, crop=0.0).maps[0]
        found = Maps(made, {"region": [20, 20], "sets": sets, "kernel": 5, "crop": 0.0})
    physics = operators.MultiCoilMRI(mask, found.maps[None], weights=weights)
    y = torch.stack([kspace.real, kspace.imag])[None] * mask
    return Problem(physics, y if weights is None else y * weights, 0.01), found, kspace


def smooth(shape, generator):
    """Images of low resolution: what lies near the edge of k-space is where grids differ."""
    noise = torch.randn(shape, generator=generator)
    return mri.ifft(on_grid(on_grid(mri.fft(noise.to(torch.complex64), (-2, -1)), (12, 12)), shape[-2:]), (-2, -1)).real


@pytest.mark.parametrize(("coils", "tolerance"), [(1, 1e-5), (4, 0.05)])
def test_an_image_means_the_same_k_space_on_either_grid(coils, tolerance):
    """Exactly for one coil; for several, as nearly as maps of two resolutions agree."""
    problem, found, lines = problem_of(coils)
    drawn = drawn_on(problem, found, lines, 88)
    fine = tuple(drawn.support.shape[-2:])
    assert fine == (96, 80)
    x = smooth((1, 2, *fine), torch.Generator().manual_seed(0)) * drawn.support
    ratio = (96 * 80 / (48 * 40)) ** 0.5
    seen = on_grid(drawn.problem.physics.A(x), SIZE) / ratio
    expected = problem.physics.A(drawn.on_scan(x))
    assert float((seen - expected).norm() / expected.norm()) < tolerance


def test_data_and_noise_keep_their_ratio_and_k_space_beyond_the_scan_s_is_unmeasured():
    weights = torch.linspace(0.5, 1, SIZE[1]).expand(SIZE)
    problem, found, lines = problem_of(4, weights=weights)
    drawn = drawn_on(problem, found, lines, 88)
    y, physics = drawn.problem.y, drawn.problem.physics
    assert float(y.norm() / drawn.problem.sigma_y) == pytest.approx(float(problem.y.norm() / problem.sigma_y), rel=1e-5)
    torch.testing.assert_close(on_grid(y, SIZE) / drawn.problem.sigma_y, problem.y / problem.sigma_y)
    assert float(physics.mask.sum()) == float(problem.physics.mask.sum())
    torch.testing.assert_close(on_grid(physics.weights.reshape(96, 80), SIZE)[problem.physics.mask[0, 0] > 0],
                               weights[problem.physics.mask[0, 0] > 0])


def test_an_image_of_the_scan_s_resolution_comes_back():
    problem, found, lines = problem_of(1)
    drawn = drawn_on(problem, found, lines, 88)
    x = torch.randn(3, 2, *SIZE, generator=torch.Generator().manual_seed(0))
    z = mri.ifft(on_grid(mri.fft(mri.to_complex(x), (-2, -1)), (96, 80)), (-2, -1)) * 2
    torch.testing.assert_close(drawn.on_scan(torch.stack([z.real, z.imag], 1)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [0, 40])
def test_a_scan_of_as_many_pixels_is_drawn_on_its_own_grid(side):
    problem, found, lines = problem_of(4)
    drawn = drawn_on(problem, found, lines, side)
    assert drawn.problem is problem
    assert drawn.on_scan(torch.ones(1, 2, *SIZE)).shape == (1, 2, *SIZE)


def test_a_grid_is_four_times_as_fine_at_most():
    problem, found, lines = problem_of(1)
    assert drawn_on(problem, found, lines, 1000).support.shape == (1, 2, 192, 160)
