"""Trajectories, and the densities that even them out."""

import math

import pytest
import torch

import operators
from operators.mri import trajectories


def angles(spokes):
    """Of each spoke of a square image, degrees in [0, 180)."""
    last = spokes[:, -1]
    return torch.rad2deg(torch.atan2(last[:, 0], last[:, 1])) % 180


@pytest.mark.parametrize(("size", "samples"), [((16, 16), 32), ((9, 9), 15), ((2, 16, 24), 31)])
def test_spokes_cross_the_centre_and_stay_in_range(size, samples):
    spokes = trajectories.radial(size, 7, samples)
    half = torch.tensor(size[-2:]) / 2
    assert spokes.shape == (7, samples, 2)
    assert not spokes[:, samples // 2].any()
    assert (spokes.abs() <= half).all()
    step = (spokes / half).diff(dim=1).norm(dim=-1)
    torch.testing.assert_close(step, torch.full_like(step, 2 / samples))
    torch.testing.assert_close(spokes[0, :, 1], (torch.arange(samples) - samples // 2) / samples * size[-1], check_dtype=False)
    assert not spokes[0, :, 0].any()  # the first spoke is along a row


def test_angles_are_uniform_or_golden():
    size = (32, 32)
    uniform = angles(trajectories.radial(size, 6))
    torch.testing.assert_close(uniform, torch.arange(6).double() * 30, rtol=0, atol=1e-9)
    golden = angles(trajectories.radial(size, 9, golden=True))
    torch.testing.assert_close(golden.diff() % 180, torch.full_like(golden[1:], 111.246117975))  # Winkelmann 2007
    tiny = angles(trajectories.radial(size, 9, golden=True, tiny=7))
    torch.testing.assert_close(tiny.diff() % 180, torch.full_like(tiny[1:], 23.6281), rtol=1e-5, atol=0)  # Wundrak 2015
    later = trajectories.radial(size, 4, golden=True, first=5)
    torch.testing.assert_close(later, trajectories.radial(size, 9, golden=True)[5:])


@pytest.mark.parametrize("interleaves", [1, 3, 8])
def test_a_spiral_by_default_leaves_no_gap_in_the_disc(interleaves):
    n = 24
    spiral = trajectories.spiral((n, n), interleaves).reshape(-1, 2)
    generator = torch.Generator().manual_seed(0)
    places = (torch.rand(4000, 2, dtype=torch.float64, generator=generator) - 0.5) * n
    places = places[places.norm(dim=1) < n / 2 - 1]
    # turns are 1 apart and samples on them at most 1: no place is farther from one than half the diagonal of that square
    assert torch.cdist(places, spiral).min(dim=1).values.max() < 0.5**0.5
    assert spiral.norm(dim=1).max() <= n / 2


def test_a_spiral_of_variable_density_is_denser_in_the_centre():
    even, dense = (trajectories.spiral((32, 32), 4, 500, turns=4, power=p) for p in (1, 2))
    inner = [(s.norm(dim=-1) < 4).double().mean().item() for s in (even, dense)]
    assert inner == pytest.approx([0.25, 0.5], abs=0.01)  # t^p < 1/4
    golden = trajectories.spiral((32, 32), 2, 50, turns=1, golden=True)
    turn = torch.atan2(golden[1, 1, 0], golden[1, 1, 1]) - torch.atan2(golden[0, 1, 0], golden[0, 1, 1])
    assert math.degrees(turn) % 360 == pytest.approx(222.492236)


def test_kooshball_spokes_spread_over_the_sphere():
    ends = trajectories.kooshball((20, 20, 20), 2000, 2)[:, 0] / -10
    torch.testing.assert_close(ends.norm(dim=1), torch.ones(2000, dtype=torch.float64))
    moments = ends.T @ ends / 2000
    torch.testing.assert_close(moments, torch.eye(3, dtype=torch.float64) / 3, rtol=0, atol=0.01)


def test_a_stack_repeats_the_plane_in_every_partition():
    plane = trajectories.radial((8, 8), 3, 10)
    stars = trajectories.stack(plane, 5)
    assert stars.shape == (5, 3, 10, 3)
    assert stars[:, 0, 0, 0].tolist() == [-2, -1, 0, 1, 2]
    for partition in stars:
        torch.testing.assert_close(partition[..., 1:], plane)


def test_the_ramp_is_the_area_of_rings():
    n, spokes, samples = 20, 8, 40
    weights = trajectories.radial_density(trajectories.radial((n, n), spokes, samples), (n, n))
    step = n / samples
    radius = step * (torch.arange(samples, dtype=torch.float64) - samples // 2).abs()
    expected = torch.where(radius > 0, torch.pi * radius * step / spokes, torch.pi * step**2 / 4 / spokes)
    torch.testing.assert_close(weights, expected.expand(spokes, -1))


@pytest.mark.parametrize("golden", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (32, 20)])
def test_the_ramp_covers_the_ellipse(size, golden):
    weights = trajectories.radial_density(trajectories.radial(size, 31, 400, golden=golden), size)
    assert weights.sum().item() == pytest.approx(math.pi / 4 * math.prod(size), rel=1e-2)
    volume = trajectories.kooshball((16, 16, 16), 50, 400)
    assert trajectories.radial_density(volume, (16, 16, 16)).sum().item() == pytest.approx(math.pi / 6 * 16**3, rel=1e-2)


def fejer(points, size):
    """Matrix (K, K) of the squared sinc of width 1, made periodic over the band."""
    turn = points[:, None] - points
    result = torch.ones(turn.shape[:-1], dtype=torch.float64)
    for axis, n in enumerate(size):
        lag = torch.arange(1 - n, n, dtype=torch.float64)
        result *= torch.cos(2 * torch.pi * turn[..., axis, None] * lag / n).mul((1 - lag.abs() / n) / n).sum(-1)
    return result


@pytest.mark.parametrize("name", ["radial", "golden", "spiral", "random"])
def test_pipe_menon_weights_flatten_the_density(name):
    pytest.importorskip("finufft", reason="iterative_density needs mri-nufft with finufft")
    size = (12, 10)
    random = (torch.rand(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5) * torch.tensor(size)
    points = {
        "radial": trajectories.radial(size, 19, 20),
        "golden": trajectories.radial(size, 19, 20, golden=True),
        "spiral": trajectories.spiral(size, 4),
        "random": random,
    }[name]
    weights = trajectories.iterative_density(points, size)
    assert weights.shape == points.shape[:-1]
    assert weights.min() > 0
    kernel = fejer(points.reshape(-1, 2), size)
    before, after = kernel.sum(1), kernel @ weights.flatten()
    assert before.std() / before.mean() > 5 * after.std() / after.mean()
    assert (after - 1).square().mean().sqrt() < 0.05


def test_pipe_menon_weights_of_a_grid_are_one():
    pytest.importorskip("finufft", reason="iterative_density needs mri-nufft with finufft")
    for size in [(6, 7), (3, 4, 5)]:
        grid = torch.stack(torch.meshgrid(*[torch.arange(n) - n // 2 for n in size], indexing="ij"), dim=-1)
        weights = trajectories.iterative_density(grid, size)
        torch.testing.assert_close(weights, torch.ones(size, dtype=torch.float64), rtol=0, atol=1e-4)


def test_pipe_menon_weights_make_the_point_spread_function_a_point():
    pytest.importorskip("finufft", reason="gridding needs mri-nufft with finufft")
    n = 32
    spokes = trajectories.radial((n, n), 52, 64)
    weights = trajectories.iterative_density(spokes, (n, n))
    physics = operators.NonCartesianMRI(spokes, (n, n), density=weights)
    g = torch.arange(n) - n // 2
    x = torch.zeros(1, 2, n, n)
    x[0, 0] = torch.exp(-(g[:, None] ** 2 + (g - 4) ** 2) / 8)  # its spectrum lies within the disc
    y = physics.A(x)
    assert (physics.gridding(y) - x).norm() < 2e-3 * x.norm()
    assert (physics.A_adjoint(y) - x).norm() > 10 * x.norm()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trajectories.radial((8, 8), 0), "spokes: expected an integer >= 1, got 0"),
        (lambda: trajectories.radial((8, 8), 3, 0), "samples: expected an integer >= 1, got 0"),
        (lambda: trajectories.radial((8,), 3), r"img_size: expected \(H, W\)"),
        (lambda: trajectories.kooshball((8, 8), 3), r"img_size: expected \(D, H, W\)"),
        (lambda: trajectories.spiral((8, 8), 2, power=0.5), r"power: expected a number in \[1, inf\), got 0\.5"),
        (lambda: trajectories.stack(torch.zeros(3, 3), 2), r"trajectory: expected points \(\.\.\., 2\), got \(3, 3\)"),
        (lambda: trajectories.radial_density(torch.zeros(9, 2), (8, 8)), r"trajectory: expected spokes .* got \(9, 2\)"),
        (lambda: trajectories.radial_density(trajectories.spiral((8, 8), 2), (8, 8)), "expected straight spokes"),
        (lambda: trajectories.iterative_density(torch.zeros(9, 1), (8, 8)), r"trajectory: expected points .* \(9, 1\)"),
        (lambda: trajectories.iterative_density(torch.zeros(9, 2), (8, 8), 0), "iterations: expected an integer >= 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
