import pytest
import torch
from deepinv.models import TVDenoiser
from deepinv.physics import BlurFFT, LinearPhysics

import operators
from invdiff.baselines.total_variation import total_variation
from invdiff.evaluation.metrics import psnr
from invdiff.problem import Problem
from invdiff.simulation import simulate

SIZE = (2, 32, 36)


class Averages(LinearPhysics):
    """Means of neighbouring rows: no SVD, so that prox_l2 is deepinv's conjugate gradients."""

    def A(self, x, **kwargs):
        return (x + x.roll(1, 2)) / 2

    def A_adjoint(self, y, **kwargs):
        return (y + y.roll(-1, 2)) / 2


OPERATORS = {
    "deblur": lambda: operators.GaussianBlur(SIZE, sigma=1.6),
    "motion": lambda: operators.MotionBlur(SIZE, size=9),
    "inpaint": lambda: operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.5, 0)),
    "sr": lambda: operators.SuperResolution(SIZE, 2),
    "denoise": lambda: operators.Denoising(SIZE),
    "no SVD": lambda: Averages(img_size=SIZE),
}


def cartoon():
    """A piecewise constant image and its mirror image, (2, 2, 32, 36)."""
    x = torch.full((1, *SIZE), 0.2)
    x[:, 0, 6:20, 8:28] = 0.8
    x[:, 1, 12:28, 4:18] = 0.6
    return torch.cat([x, x.flip(3)])


def tv_objective(problem, x, weight):
    """What is minimised, for each image."""
    misfit = (problem.physics.A(x) - problem.y).square().flatten(1).sum(1)
    return misfit / 2 + weight * TVDenoiser.nabla(x).norm(dim=-1).flatten(1).sum(1)


@pytest.fixture(params=OPERATORS)
def problem(request):
    return simulate(OPERATORS[request.param](), cartoon(), 0.05)


def as_image(problem):
    y = problem.y
    return y if y.shape[-2:] == SIZE[1:] else torch.nn.functional.interpolate(y, SIZE[1:], mode="bicubic")


def test_it_beats_the_measurement(problem):
    x = total_variation(problem, 0.01, 100)
    assert (psnr(x, cartoon()) > psnr(as_image(problem), cartoon()) + 2).all()


def test_the_objective_falls_to_its_minimum(problem):
    weight = 0.01
    values = torch.stack([tv_objective(problem, total_variation(problem, weight, n), weight) for n in (1, 20, 100, 300)])
    assert (values.diff(dim=0) < 1e-5 * values[0]).all()
    x = total_variation(problem, weight)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-2):       # convex, so a point that no direction improves is the minimiser
        other = x + size * torch.randn(x.shape, generator=generator)
        assert (tv_objective(problem, other, weight) > values[-1]).all()
        assert (tv_objective(problem, (1 - size) * x + size * cartoon(), weight) > values[-1] * (1 - 1e-4)).all()


@pytest.mark.parametrize("name", ["deblur", "inpaint", "sr"])
def test_300_iterations_are_as_good_as_2000(name):
    problem = simulate(OPERATORS[name](), cartoon(), 0.05)
    for weight in (0.002, 0.02):
        short, long = total_variation(problem, weight), total_variation(problem, weight, 2000)
        assert (short - long).square().mean().sqrt() < 2e-3
        gap = tv_objective(problem, short, weight) - tv_objective(problem, long, weight)
        assert (gap.abs() < 1e-3 * tv_objective(problem, long, weight)).all()


def test_denoising_is_the_prox_of_deepinv():
    problem = simulate(operators.Denoising(SIZE), cartoon(), 0.05)
    expected = TVDenoiser(n_it_max=3000, crit=1e-8)(problem.y, ths=0.05)
    torch.testing.assert_close(total_variation(problem, 0.05, 1000), expected, atol=1e-3, rtol=0)


def test_deepinv_physics_will_do():
    kernel = torch.ones(1, 1, 3, 3) / 9
    theirs = simulate(BlurFFT(img_size=SIZE, filter=kernel), cartoon(), 0.05)
    ours = Problem(operators.Blur(SIZE, kernel[0, 0]), theirs.y, 0.05)
    torch.testing.assert_close(total_variation(theirs, 0.01), total_variation(ours, 0.01), atol=1e-4, rtol=1e-4)


def test_items_do_not_meet_and_zero_is_zero():
    problem = simulate(operators.SuperResolution(SIZE, 2), cartoon(), 0.05)
    alone = total_variation(problem.rows(torch.tensor([1])), 0.01, 50)
    torch.testing.assert_close(total_variation(problem, 0.01, 50)[1:], alone, atol=1e-6, rtol=0)
    assert not total_variation(Problem(problem.physics, torch.zeros_like(problem.y), 0.0), 0.01, 5).any()


@pytest.mark.parametrize(("weight", "iterations"), [(0.0, 10), (-1.0, 10), (float("nan"), 10), (float("inf"), 10), (0.1, 0)])
def test_senseless_numbers_are_refused(weight, iterations):
    problem = simulate(operators.Denoising(SIZE), cartoon(), 0.1)
    with pytest.raises(ValueError, match="expected weight > 0 and iterations >= 1"):
        total_variation(problem, weight, iterations)
