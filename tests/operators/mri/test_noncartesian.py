"""NonCartesianMRI against the dense transform, the Cartesian operators, SigPy and BART; its Toeplitz form against itself."""

import math
import shutil
import subprocess

import numpy as np
import pytest
import torch

import operators
from operators.mri import toeplitz, trajectories

for module in ("mrinufft", "finufft"):
    pytest.importorskip(module, reason="NonCartesianMRI needs mri-nufft with finufft (invdiff[mri])")

SIZES = [(6, 6), (7, 9), (5, 8), (1, 6), (4, 5, 6)]
each_size = pytest.mark.parametrize("size", SIZES, ids=lambda s: "x".join(map(str, s)))


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def scattered(count, size, seed=0):
    points = torch.rand(count, len(size), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.5
    return points * torch.tensor(size)


def fourier_matrix(points, size):
    """(K, prod(size)) by its definition, the origin at index size // 2."""
    places = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) - n // 2 for n in size], indexing="ij")
    places = torch.stack(places, dim=-1).reshape(-1, len(size)) / torch.tensor(size)
    angle = -2 * torch.pi * points.double() @ places.T
    return torch.polar(torch.ones_like(angle), angle) / math.prod(size) ** 0.5


def to_complex(x):
    return torch.complex(x[:, 0], x[:, 1])


def relative(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


def blobs(height, width):
    """A smooth phantom (1, 2, H, W) whose spectrum lies well within the disc that spokes cover."""
    y, x = torch.meshgrid(torch.arange(height) - height // 2, torch.arange(width) - width // 2, indexing="ij")
    blob = lambda cy, cx, s: torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * s * s))  # noqa: E731
    return torch.stack([blob(3, -8, 6) + 0.5 * blob(-10, 9, 4), blob(-5, 5, 5)])[None]


@each_size
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_a_is_the_dense_transform_of_the_coil_images(size, dtype, tolerance):
    maps = randn(2, 3, *size, dtype=dtype.to_complex())  # two items, each with its own
    physics = operators.NonCartesianMRI(scattered(50, size), size, maps)
    x = randn(2, *physics.img_size, dtype=dtype)
    matrix = fourier_matrix(physics.trajectory, size)
    expected = (to_complex(x).to(torch.complex128)[:, None] * maps).flatten(2) @ matrix.T
    y = physics.A(x)
    assert y.dtype == dtype
    assert y.shape == (2, 2, 3, 50)
    assert relative(to_complex(y), expected) < tolerance
    back = (maps.conj().flatten(2) * (expected @ matrix.conj())).sum(1)
    assert relative(to_complex(physics.A_adjoint(y)).flatten(1), back) < 2 * tolerance


@pytest.mark.parametrize("size", [(6, 6), (7, 9), (8, 5)])
def test_on_the_grid_it_is_the_cartesian_operator(size):
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) - n // 2 for n in size], indexing="ij"), dim=-1)
    maps = randn(1, 2, 3, *size, dtype=torch.complex64)  # two sets of maps
    ours = operators.NonCartesianMRI(grid, (4, *size), maps)
    cartesian = operators.MultiCoilMRI(torch.ones(size), maps)
    x = randn(2, 4, *size, dtype=torch.float32)
    y = cartesian.A(x)
    assert relative(ours.A(x), y.flatten(3)) < 1e-5
    assert relative(ours.A_adjoint(y.flatten(3)), cartesian.A_adjoint(y)) < 1e-5
    assert relative(ours.A_adjoint_A(x), cartesian.A_adjoint_A(x)) < 1e-5


@each_size
@pytest.mark.parametrize("sets", [1, 2])
def test_the_dot_test_holds_in_double_precision(size, sets):
    maps = randn(3, sets, 2, *size, dtype=torch.complex128)
    physics = operators.NonCartesianMRI(scattered(40, size), (2 * sets, *size), maps)
    x, y = randn(3, *physics.img_size), randn(3, *physics.measurement_size, seed=1)
    ax = physics.A(x)
    assert abs((ax * y).sum() - (x * physics.A_adjoint(y)).sum()) <= 1e-10 * ax.norm() * y.norm()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex64, 1e-5), (torch.complex128, 1e-9)])
@pytest.mark.parametrize(("size", "batch"), [((64, 48), 2), ((33, 40), 1), ((31, 1), 1), ((8, 9, 10), 1)])
def test_the_toeplitz_form_is_the_normal_operator(size, batch, dtype, tolerance, monkeypatch):
    maps = randn(batch, 2, 3, *size, dtype=dtype)
    physics = operators.NonCartesianMRI(scattered(3000, size), (4, *size), maps)
    x = randn(2, *physics.img_size, dtype=dtype.to_real())
    normal = physics.A_adjoint_A(x)
    assert relative(normal, physics.A_adjoint(physics.A(x))) < tolerance
    monkeypatch.setattr(toeplitz, "CPU_CHUNK", 1)  # a coil and an item at a time
    assert relative(physics.A_adjoint_A(x), normal) < 1e-6


def test_nufft_and_sense_agree_with_sigpy():
    sigpy = pytest.importorskip("sigpy", reason="SigPy is not installed")
    from sigpy.mri.linop import Sense

    size = (96, 80)
    points = trajectories.radial(size, 60, 128).numpy()
    maps = randn(4, *size, dtype=torch.complex64)
    x = blobs(*size).float()
    physics = operators.NonCartesianMRI(points, size, maps)
    precise = sigpy.linop.NUFFT(maps.shape, points, oversamp=2, width=8) * sigpy.linop.Multiply(size, maps.numpy())
    image = to_complex(x)[0].numpy()
    y = precise(image).reshape(4, -1)
    assert relative(to_complex(physics.A(x))[0], torch.from_numpy(y)) < 1e-5
    adjoint = torch.from_numpy(precise.H(y.reshape(precise.oshape)))
    assert relative(to_complex(physics.A_adjoint(physics.A(x)))[0], adjoint) < 1e-5
    assert relative(to_complex(physics.A_adjoint_A(x))[0], adjoint) < 1e-5
    sense = Sense(maps.numpy(), coord=points)  # width 4 and oversampling 1.25: good for 1e-2
    assert relative(to_complex(physics.A(x))[0], torch.from_numpy(sense(image).reshape(4, -1))) < 3e-2


def test_the_transform_agrees_with_bart(tmp_path):
    if shutil.which("bart") is None:
        pytest.skip("BART is not installed")

    def write(name, array):  # BART's files are column-major: its first dimension is our last
        (tmp_path / f"{name}.hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape[::-1])) + "\n")
        (tmp_path / f"{name}.cfl").write_bytes(np.ascontiguousarray(array, np.complex64).tobytes())

    size = (48, 40)
    points = trajectories.radial(size, 20, 64).reshape(-1, 2)
    x = blobs(*size).float()
    write("x", to_complex(x)[0].numpy())
    write("t", np.stack([points[:, 1], points[:, 0], 0 * points[:, 0]], axis=-1)[None].reshape(1, -1, 3))
    subprocess.run(["bart", "nufft", "-P", "-s", "t", "x", "y"], cwd=tmp_path, check=True, capture_output=True)
    y = torch.from_numpy(np.fromfile(tmp_path / "y.cfl", np.complex64))
    physics = operators.NonCartesianMRI(points, size)
    assert relative(to_complex(physics.A(x))[0, 0] * math.prod(size) ** 0.5, y) < 1e-5  # its slow form is not scaled


@pytest.mark.parametrize("weights", ["none", "ramp", "too large"])
def test_a_dagger_gives_back_a_fully_sampled_phantom(weights):
    size = (48, 40)
    spokes = trajectories.radial(size, 80, 96)
    ramp = trajectories.radial_density(spokes, size)
    density = {"none": None, "ramp": ramp, "too large": 1e3 * torch.ones_like(ramp)}[weights]
    maps = torch.exp(2j * torch.rand(4, *size, generator=torch.Generator().manual_seed(0))) / 2  # squares sum to 1
    physics = operators.NonCartesianMRI(spokes, size, maps, density, tol=1e-6)
    x = blobs(*size).float()
    assert relative(physics.A_dagger(physics.A(x)), x) < 1e-4


def test_the_density_is_for_gridding_alone():
    size = (48, 40)
    spokes = trajectories.radial(size, 80, 96)
    ramp = trajectories.radial_density(spokes, size)
    plain, weighted = operators.NonCartesianMRI(spokes, size), operators.NonCartesianMRI(spokes, size, density=ramp)
    x = blobs(*size).float()
    y = plain.A(x)
    torch.testing.assert_close(weighted.A(x), y, rtol=0, atol=0)
    torch.testing.assert_close(weighted.A_adjoint(y), plain.A_adjoint(y), rtol=0, atol=0)
    torch.testing.assert_close(weighted.A_adjoint_A(x), plain.A_adjoint_A(x), rtol=0, atol=0)
    torch.testing.assert_close(weighted.gridding(y), plain.A_adjoint(y * ramp.flatten().float()))
    assert relative(weighted.gridding(y), x) < 0.03  # what the ramp is good for
    with pytest.raises(ValueError, match="density: expected weights for gridding, got None"):
        plain.gridding(y)


def test_a_series_is_its_frames():
    size, frames = (12, 10), 3
    maps = randn(2, *size, dtype=torch.complex128)
    spokes = torch.stack([trajectories.radial(size, 5, golden=True, first=5 * t) for t in range(frames)])
    density = torch.rand(spokes.shape[:-1], dtype=torch.float64)
    series = operators.NonCartesianMRI(spokes, (2, frames, *size), maps, density)
    x = randn(2, 2, frames, *size)
    y = series.A(x)
    assert y.shape == (2, *series.measurement_size) == (2, 2, 2, frames, 5 * 24)
    back, normal, gridded = series.A_adjoint(y), series.A_adjoint_A(x), series.gridding(y)
    for t in range(frames):
        one = operators.NonCartesianMRI(spokes[t], size, maps, density[t])
        torch.testing.assert_close(y[:, :, :, t], one.A(x[:, :, t]), rtol=0, atol=1e-12)
        torch.testing.assert_close(back[:, :, t], one.A_adjoint(y[:, :, :, t]), rtol=0, atol=1e-11)
        torch.testing.assert_close(normal[:, :, t], one.A_adjoint_A(x[:, :, t]), rtol=0, atol=1e-11)
        torch.testing.assert_close(gridded[:, :, t], one.gridding(y[:, :, :, t]), rtol=0, atol=1e-11)
    assert abs((y * y).sum() - (x * back).sum()) <= 1e-10 * y.norm() ** 2
    gamma = torch.tensor([0.1, 1.0], dtype=torch.float64)
    per_item, as_images = (series.prox_l2(x, y, given) for given in (gamma, gamma.reshape(2, 1, 1, 1)))
    assert torch.equal(per_item, as_images)


def test_a_dagger_without_an_iteration_is_gridding_at_its_best_scale():
    size = (24, 20)
    spokes = trajectories.radial(size, 20, 48)
    physics = operators.NonCartesianMRI(spokes, size, density=7 * trajectories.radial_density(spokes, size))
    y = physics.A(blobs(*size).float())
    got, gridded = physics.A_dagger(y, max_iter=0), physics.gridding(y)
    torch.testing.assert_close(got, gridded * (got.norm() / gridded.norm()))


def test_it_is_differentiable_to_any_order_and_mapped():
    size = (4, 5)
    physics = operators.NonCartesianMRI(scattered(9, size), size, randn(2, *size, dtype=torch.complex128))
    x = randn(2, 2, *size).requires_grad_()
    y = randn(2, *physics.measurement_size).requires_grad_()
    for function, argument in [(physics.A, x), (physics.A_adjoint, y), (physics.A_adjoint_A, x)]:
        assert torch.autograd.gradcheck(function, argument, check_forward_ad=True, fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda v, f=function: f(v).square().sum(), argument, fast_mode=True)
        stacked = torch.stack([argument, 2 * argument]).detach()
        torch.testing.assert_close(torch.vmap(function)(stacked), torch.stack([function(s) for s in stacked]))


def test_calls_repeat_bit_for_bit_with_threads_and_in_any_batch():
    size, threads = (64, 64), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for coils in (1, 4):
            maps = randn(coils, *size, dtype=torch.complex128)
            physics = operators.NonCartesianMRI(trajectories.radial(size, 400), size, maps)
            y = randn(2, *physics.measurement_size)
            once = physics.A_adjoint(y)
            for _ in range(5):
                torch.testing.assert_close(physics.A_adjoint(y), once, rtol=0, atol=0)
            torch.testing.assert_close(physics.A_adjoint(y[1:]), once[1:], rtol=0, atol=0)
    finally:
        torch.set_num_threads(threads)


def test_another_density_has_the_shape_of_the_points_or_is_flat():
    size = (8, 8)
    points = trajectories.radial(size, 5, 16)
    physics = operators.NonCartesianMRI(points, size)
    for weights in (torch.rand(5, 16), torch.rand(80)):
        physics.update_parameters(density=weights)
        assert torch.equal(physics.density, weights.flatten())
    with pytest.raises(ValueError, match=r"density: expected one weight a point, \(5, 16\), got \(16, 5\)"):
        physics.update_parameters(density=torch.rand(16, 5))
    physics.update_parameters(trajectory=points.reshape(10, 8, 2), density=torch.rand(10, 8))
    physics.update_parameters(density=torch.rand(10, 8))


def test_half_precision_is_of_the_maps_and_not_of_the_points():
    size = (64, 64)
    physics = operators.NonCartesianMRI(scattered(500, size), size)  # maps of ones, exact in bfloat16
    x = randn(1, 2, *size, dtype=torch.float32)
    before = physics.A(x)
    half = physics.to(torch.bfloat16)
    assert half.coil_maps.dtype == torch.bfloat16
    torch.testing.assert_close(half.A(x), before, rtol=0, atol=0)
    assert half.A(x.bfloat16()).dtype == torch.float32


def test_what_is_derived_from_the_trajectory_follows_it():
    size = (6, 7)
    first, second = (operators.NonCartesianMRI(scattered(50, size, seed=s), size) for s in (0, 1))
    x = randn(1, 2, *size, dtype=torch.float32)
    before = first.A(x), first.A_adjoint_A(x)
    expected = second.A(x), second.A_adjoint_A(x)
    assert relative(before[1], expected[1]) > 0.1
    copy = first.clone()
    torch.testing.assert_close((copy.A(x), copy.A_adjoint_A(x)), before, rtol=0, atol=0)
    copy.load_state_dict(second.state_dict())
    torch.testing.assert_close((copy.A(x), copy.A_adjoint_A(x)), expected, rtol=0, atol=0)
    copy = first.clone()
    torch.testing.assert_close((copy.A(x), copy.A_adjoint_A(x)), before, rtol=0, atol=0)
    copy.trajectory = second.trajectory.clone()
    torch.testing.assert_close((copy.A(x), copy.A_adjoint_A(x)), expected, rtol=0, atol=0)
    torch.testing.assert_close((first.A(x), first.A_adjoint_A(x)), before, rtol=0, atol=0)
    double = first.to(torch.float64)
    expected = to_complex(x.double()).flatten(1) @ fourier_matrix(double.trajectory, size).T
    assert relative(to_complex(double.A(x.double()))[:, 0], expected) < 1e-12  # and not the 1e-6 of float32
    with torch.inference_mode():
        inside = operators.NonCartesianMRI(scattered(50, size), size)
        torch.testing.assert_close(inside.A(x), before[0], rtol=0, atol=0)
