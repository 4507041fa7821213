import math
import shutil

import numpy as np
import pytest
import torch
from deepinv.models import TVDenoiser

import operators
from invdiff.baselines import iterations, mri_sparse
from invdiff.baselines.bart import bart_l1_wavelet
from invdiff.baselines.mri import BASELINES, baseline, default_weight, tuned
from invdiff.baselines.total_variation import total_variation
from invdiff.baselines.wavelets import Wavelets
from invdiff.errors import InputError
from invdiff.problem import Problem
from invdiff.simulation import simulate
from operators.mri import birdcage_maps, phantom, sampling, trajectories

bart = pytest.mark.skipif(not shutil.which("bart"), reason="BART is not installed")
OURS = tuple(name for name in BASELINES if name != "bart_l1_wavelet")
WEIGHTED = tuple(name for name in OURS if BASELINES[name].weight)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def head(size=(64, 64)):
    return phantom.image(size)


def two_sets(size):
    """Orthogonal maps (1, 2, 4, H, W): four coils, and four others that sense what wraps round."""
    maps = birdcage_maps(size, 8)
    first = torch.cat([maps[:, :4], torch.zeros_like(maps[:, :2])], 1)
    second = torch.cat([torch.zeros_like(maps[:, :2]), maps[:, 4:]], 1)
    return torch.stack([first, second], 1)


def cartesian(size=(64, 64), sigma=0.02, truth=None):
    mask = sampling.gaussian_points(size, 3, calib=12)
    return simulate(operators.MultiCoilMRI(mask, birdcage_maps(size, 4)), head(size) if truth is None else truth, sigma)


def radial(size=(48, 48), density=True):
    points = trajectories.radial(size, 24)
    weights = trajectories.radial_density(points, size) if density else None
    return simulate(operators.NonCartesianMRI(points, size, birdcage_maps(size, 4), weights), head(size), 0.02)


def series(frames, size):
    mask = torch.stack([sampling.gaussian_points(size, 2, calib=4, seed=t) for t in range(frames)])
    physics = operators.MultiCoilMRI(mask, birdcage_maps(size, 4), img_size=(2, frames, *size), spatial_dims=2)
    return simulate(physics, torch.rand(2, 2, frames, *size), 0.02)


PROBLEMS = {
    "multi-coil": cartesian,
    "odd sides": lambda: cartesian((45, 52)),
    "two sets": lambda: simulate(operators.MultiCoilMRI(sampling.gaussian_points((48, 48), 2, calib=12), two_sets((48, 48))),
                                 torch.cat([head((48, 48)), 0.3 * head((48, 48)).flip(2)], 1), 0.02),
    "single coil": lambda: simulate(operators.MRI((2, 64, 64), sampling.gaussian_points((64, 64), 2, calib=12)), head(), 0.02),
    "radial": radial,
    "radial without density": lambda: radial(density=False),
}


def error(x, truth):
    return float((x - truth).square().mean().sqrt())


def sparsity(x, positions=16):
    """Σ |W x| over random positions of the image against the wavelets, the mean."""
    wavelets, generator = Wavelets(x.shape[-2:], x), np.random.default_rng(0)
    moved = (x.roll([int(generator.integers(n)) for n in x.shape[-2:]], (-2, -1)) for _ in range(positions))
    return float(sum(mri_sparse.magnitude(wavelets.forward(m)).sum() for m in moved)) / positions


def variation(x):
    return float(mri_sparse.edges(mri_sparse.gradient(x)).sum())


REGULARISERS = {"sense": lambda x: float(x.square().sum()) / 2, "l1_wavelet": sparsity, "total_variation": variation,
                "bart_l1_wavelet": sparsity}


def objective(name, problem, x, weight):
    return float((problem.physics.A(x) - problem.y).square().sum() / 2) + weight * REGULARISERS[name](x)


def test_the_gradient_is_deepinvs_and_has_its_transpose():
    x = torch.randn((1, 2, 5, 7), dtype=torch.float64)
    g = torch.randn((1, 2, 5, 7, 2), dtype=torch.float64)
    torch.testing.assert_close(mri_sparse.gradient(x), TVDenoiser.nabla(x))
    torch.testing.assert_close((mri_sparse.gradient(x) * g).sum(), (x * mri_sparse.gradient_adjoint(g)).sum())


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_each_one_beats_zero_filling_without_a_weight(make):
    problem = make()
    truth = torch.cat([head((48, 48)), 0.3 * head((48, 48)).flip(2)], 1) if problem.image_shape[0] == 4 else head(
        problem.image_shape[-2:])
    errors = {name: error(baseline(name, problem), truth) for name in OURS}
    assert errors["sense"] < errors["zero_filled"] * 1.1
    assert errors["l1_wavelet"] < 0.8 * errors["zero_filled"]
    assert errors["total_variation"] < 0.8 * errors["zero_filled"]


def test_sense_is_what_dense_algebra_says():
    problem = simulate(operators.MultiCoilMRI(sampling.gaussian_points((12, 12), 2, calib=4), birdcage_maps((12, 12), 3)),
                       torch.rand(1, 2, 12, 12), 0.1)
    unit = torch.eye(288).reshape(288, 2, 12, 12)
    a = problem.physics.A(unit).flatten(1).T.double()
    expected = torch.linalg.solve(a.T @ a + 0.3 * torch.eye(288), a.T @ problem.y.flatten().double())
    torch.testing.assert_close(baseline("sense", problem, 0.3).flatten().double(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("make", [lambda: cartesian((24, 23)), lambda: radial((12, 12)), lambda: radial((12, 12), False),
                                  lambda: series(3, (8, 9))])
def test_the_step_is_no_longer_than_one_over_the_largest_eigenvalue(make):
    """And at most a twentieth shorter."""
    problem = make()
    shape = problem.image_shape
    unit = torch.eye(math.prod(shape)).reshape(-1, *shape)
    dense = torch.cat([problem.A_adjoint_A(x[None]).flatten(1) for x in unit])
    largest = float(torch.linalg.eigvalsh(dense.double()).max())
    step = iterations.step_length(problem)
    assert step.shape == (len(problem.y), *[1] * len(shape))
    assert ((1 / step >= largest) & (1 / step < 1.05 * largest)).all()


def test_l1_wavelet_of_one_position_is_a_fixed_point_of_its_prox():
    problem, weight = cartesian(), 0.02
    x = mri_sparse.l1_wavelet(problem, weight, 600, shift=False)
    c = Wavelets((64, 64), x).forward(x)
    slope = Wavelets((64, 64), x).forward(problem.pulled - problem.A_adjoint_A(x)) / weight    # in the subdifferential of Σ |c|
    size = mri_sparse.magnitude(c)
    assert float(mri_sparse.magnitude(slope).max()) < 1.02
    big = (size > 0.02).repeat_interleave(2, 1)
    assert int(big.sum()) > 100
    torch.testing.assert_close(slope[big], (c / size.clamp_min(1e-9).repeat_interleave(2, 1))[big], atol=0.03, rtol=0)


def test_l1_wavelet_of_full_data_is_soft_thresholding():
    x = torch.randn(1, 2, 32, 32)
    problem = Problem(operators.MRI((2, 32, 32), torch.ones(32, 32)), operators.MRI((2, 32, 32), torch.ones(32, 32)).A(x), 0.1)
    c = Wavelets((32, 32), x).forward(x)
    size = torch.complex(c[:, :1], c[:, 1:]).abs()
    got = Wavelets((32, 32), x).forward(mri_sparse.l1_wavelet(problem, 0.8, 100, shift=False))
    torch.testing.assert_close(got, c * (1 - 0.8 / size).clamp_min(0), atol=1e-4, rtol=0)


def test_total_variation_is_that_of_real_images():
    real = head().square().sum(1, keepdim=True).sqrt()
    x = torch.cat([real, 0 * real], 1) + 0.05 * torch.randn(1, 2, 64, 64) * torch.tensor([1.0, 0.0])[:, None, None]
    problem = Problem(operators.Denoising((2, 64, 64)), x, 0.05)
    expected = total_variation(problem, 0.05, 1000)
    torch.testing.assert_close(baseline("total_variation", problem, 0.05, 200), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", WEIGHTED)
def test_no_point_nearby_has_a_lower_objective_and_the_phase_is_free(name):
    problem, weight = cartesian(), 0.01
    x = baseline(name, problem, weight)
    value = objective(name, problem, x, weight)
    generator, slack = torch.Generator().manual_seed(1), 1e-3 if name == "l1_wavelet" else 1e-5    # random positions jitter
    for size in (1e-3, 1e-2):
        assert objective(name, problem, x + size * torch.randn(x.shape, generator=generator), weight) > value * (1 - slack)
        assert objective(name, problem, (1 - size) * x + size * head(), weight) > value * (1 - slack)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    turned = Problem(problem.physics, torch.einsum("ij,bj...->bi...", turn, problem.y), problem.sigma_y)
    torch.testing.assert_close(baseline(name, turned, weight), torch.einsum("ij,bj...->bi...", turn, x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["l1_wavelet", "total_variation"])
@pytest.mark.parametrize("make", [cartesian, radial])
def test_the_iterations_are_enough(name, make):
    problem = make()
    weight = default_weight(name, problem)
    short, long = baseline(name, problem), baseline(name, problem, iterations=600)
    assert objective(name, problem, short, weight) < 1.005 * objective(name, problem, long, weight)


@pytest.mark.parametrize("name", WEIGHTED)
def test_more_weight_is_a_smaller_regulariser_and_a_larger_misfit(name):
    problem = cartesian()
    found = [baseline(name, problem, w) for w in (1e-3, 1e-2, 1e-1)]
    sizes = [REGULARISERS[name](x) for x in found]
    misfits = [objective(name, problem, x, 0.0) for x in found]
    assert sizes == sorted(sizes, reverse=True)
    assert misfits == sorted(misfits)


@bart
@pytest.mark.parametrize("name", ["multi-coil", "two sets", "single coil"])
def test_our_objective_is_not_above_barts(name):
    problem, weight = PROBLEMS[name](), 0.005
    ours, theirs = baseline("l1_wavelet", problem, weight), bart_l1_wavelet(problem, weight, 150)
    assert objective("l1_wavelet", problem, ours, weight) < 1.005 * objective("l1_wavelet", problem, theirs, weight)
    assert error(ours, theirs) < 0.03


def test_our_objective_is_not_above_sigpys():
    app = pytest.importorskip("sigpy.mri.app")
    problem, weight = cartesian(), 0.005
    kspace, maps = torch.complex(problem.y[0, 0], problem.y[0, 1]), birdcage_maps((64, 64), 4)[0]
    found = app.L1WaveletRecon(kspace.numpy(), maps.numpy(), weight, max_iter=100, wave_name="db2", show_pbar=False).run()
    theirs = torch.view_as_real(torch.from_numpy(found)).movedim(-1, 0)[None].float()
    value = objective("l1_wavelet", problem, baseline("l1_wavelet", problem, weight), weight)
    assert value < 1.005 * objective("l1_wavelet", problem, theirs, weight)


def test_without_bart_the_error_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="BART"):
        baseline("bart_l1_wavelet", cartesian())


@pytest.mark.parametrize("size", [(45, 52), (52, 45)])
def test_odd_sides_are_refused_where_bart_would_shift_the_image(size, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with pytest.raises(InputError, match=f"even sides, and got {size[0]} x {size[1]}; l1_wavelet takes it"):
        baseline("bart_l1_wavelet", cartesian(size))


@bart
def test_bart_takes_no_trajectory():
    with pytest.raises(InputError, match="NonCartesianMRI"):
        baseline("bart_l1_wavelet", radial())


@pytest.mark.parametrize("name", OURS)
def test_items_do_not_meet_and_zero_is_zero(name):
    one = cartesian()
    both = Problem(one.physics, torch.cat([one.y, one.y.flip(-1)]), one.sigma_y)
    torch.testing.assert_close(baseline(name, both, iterations=20)[:1], baseline(name, one, iterations=20), atol=1e-5, rtol=0)
    assert not baseline(name, Problem(one.physics, torch.zeros_like(one.y), 0.0), iterations=5).any()


def test_what_no_coil_sees_is_zero():
    maps = birdcage_maps((32, 32), 4)
    maps[..., :8] = 0
    problem = simulate(operators.MultiCoilMRI(sampling.gaussian_points((32, 32), 2, calib=8), maps), head((32, 32)), 0.02)
    for name in OURS:
        x = baseline(name, problem, iterations=20)
        assert not x[..., :8].any()
        assert x[..., 8:].any()


def test_the_search_ends_inside_its_grid_also_far_from_the_default():
    problem = cartesian((32, 32))
    for best in (1e-3, 1.0, 40.0):      # score: how near the solution's norm is to that of the weight `best`
        goal = baseline("sense", problem, best)
        x, weight = tuned("sense", problem, lambda x, goal=goal: -error(x, goal))
        assert best / 1.5 < weight < best * 1.5
        torch.testing.assert_close(x, baseline("sense", problem, weight))


def test_the_default_is_near_the_tuned_one():
    problem = cartesian()
    for name in WEIGHTED:
        best, _ = tuned(name, problem, lambda x: -error(x, head()))
        assert error(baseline(name, problem), head()) < 1.12 * error(best, head())


def test_of_given_weights_the_best_is_taken():
    problem = cartesian((32, 32))
    assert tuned("l1_wavelet", problem, lambda x: -error(x, head((32, 32))), (1e-6, 4e-3, 3.0))[1] == 4e-3
    x, weight = tuned("zero_filled", problem, lambda x: 0.0)
    assert weight == 0 == default_weight("zero_filled", problem)
    torch.testing.assert_close(x, problem.pulled)               # of maps of unit norm
    maps = torch.view_as_complex(problem.physics.coil_maps.contiguous())[:, 0]
    louder = operators.MultiCoilMRI(problem.physics.mask, 3 * maps)
    torch.testing.assert_close(baseline("zero_filled", Problem(louder, problem.y, problem.sigma_y)), x / 3)


def test_senseless_input_is_refused():
    problem = cartesian((32, 32))
    for given in ({"weight": 0.0}, {"weight": float("nan")}, {"weight": float("inf")}, {"iterations": 0}):
        with pytest.raises(InputError, match="expected weight > 0 and iterations >= 1"):
            baseline("sense", problem, **given)
    with pytest.raises(InputError, match="expected one of zero_filled, sense"):
        baseline("grappa", problem)
    with pytest.raises(InputError, match="no weight"):
        baseline("zero_filled", problem, 0.1)
    with pytest.raises(InputError, match="at least one"):
        tuned("sense", problem, lambda x: 0.0, ())
    with pytest.raises(InputError, match="real and imaginary"):
        baseline("sense", Problem(operators.Denoising((3, 8, 8)), torch.rand(1, 3, 8, 8), 0.1))
