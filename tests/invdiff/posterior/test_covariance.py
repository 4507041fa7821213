import pytest
import torch
from toys import KERNEL, OPERATORS, SIZE, coloured_prior, natural_prior, pose, spectrum

import operators
from invdiff.io.images import sample_image
from invdiff.posterior.covariance import StationaryCovariance, condition, has_closed_form, seen_in_one_pass, solve
from invdiff.posterior.image_space import Whitened
from invdiff.problem import Problem
from invdiff.simulation import simulate
from operators import conjugate_gradients
from operators.mri import birdcage_maps
from operators.mri.sampling import random_lines


def test_the_covariance_is_that_of_its_prior():
    for prior, size in ((natural_prior(), (8, 8)), (coloured_prior(), (4, 6))):
        covariance = StationaryCovariance(prior.power, size)
        x = torch.randn(2, *prior.mean.shape)
        torch.testing.assert_close(covariance(x).flatten(1), x.flatten(1) @ prior.cov, rtol=1e-4, atol=1e-5)
        back = covariance.inverse(covariance(x) + 0.3 * x, 0.3)
        torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-5)


ITERATIVE = {"compressed sensing": lambda size: operators.CompressedSensing(size, 0.5),
           "colours": operators.Colorization,
           "no closed form": lambda size: operators.BicubicSuperResolution(size, 2),
           "multi-coil": lambda size: operators.MultiCoilMRI(random_lines(size[1:], 2, seed=1), birdcage_maps(size[1:], 4))}


@pytest.mark.parametrize("operator", [*OPERATORS, *ITERATIVE])
@pytest.mark.parametrize("started", [False, True])
def test_conditioning_is_the_solution_filtered(operator, started):
    """C A^T (A C A^T + sigma_y^2 I)^-1 r, with an item that has converged beside one that has not."""
    prior = coloured_prior(4, 8) if operator != "multi-coil" else natural_prior((2, 4, 8))
    physics = {**OPERATORS, **ITERATIVE}[operator](tuple(prior.mean.shape))
    problem = pose(physics, prior, 0.1, count=3)
    covariance = StationaryCovariance(prior.power, (4, 8))
    x0 = prior.mean.expand(3, *prior.mean.shape)
    exact = solve(problem, covariance, problem.y - problem.physics.A(x0), tolerance=1e-5, iterations=200)
    accuracy = {"tolerance": 1e-5, "iterations": 200}
    start = None
    if started:
        start = condition(problem, covariance, x0, **accuracy)[1]
        start = None if start is None else start * torch.tensor([1.0, 0.5, 0.0]).reshape(-1, *[1] * (start.ndim - 1))
    u, again = condition(problem, covariance, x0, start, **accuracy)
    assert (again is None) == (operator in ("denoising", "blur", "super-resolution"))
    assert (u - covariance(problem.physics.A_adjoint(exact))).norm() < 1e-3 * u.norm()
    alone, _ = condition(problem.rows(torch.tensor([1])), covariance, x0[1:2], None if start is None else start[1:2],
                         **accuracy)
    torch.testing.assert_close(u[1:2], alone, rtol=1e-4, atol=1e-5)


def test_an_item_without_a_residual_stays_as_it_is():
    """Nothing at all to correct in one item of a batch, and much in the other."""
    prior = coloured_prior(4, 8)
    for name in ("compressed sensing", "no closed form"):
        physics = {**OPERATORS, **ITERATIVE}[name](tuple(prior.mean.shape))
        x = torch.stack([torch.zeros(prior.mean.shape), torch.rand(prior.mean.shape)])
        problem = Problem(physics, physics.A(x), 0.1)
        u, _ = condition(problem, StationaryCovariance(prior.power, (4, 8)), torch.zeros_like(x), tolerance=1e-5, iterations=50)
        assert u.isfinite().all()
        assert u[0].abs().max() == 0 < u[1].abs().max()


def test_weakly_measured_directions_count_where_noise_is_low():
    """Random sums at a hundredth of the image's spread: what a loose measure of the residual takes for solved."""
    prior = natural_prior()
    problem = pose(operators.GaussianSensing(tuple(prior.mean.shape), rate=0.4), prior, 0.002)
    x0, covariance = prior.mean[None], StationaryCovariance(prior.power, (8, 8))
    exact = prior.posterior(problem)[0] - x0
    got, _ = condition(problem, covariance, x0, tolerance=1e-4, iterations=60)
    assert (got - exact.reshape(got.shape)).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("width", [7, 8])
def test_the_whitened_system_is_symmetric_in_the_inner_product_of_images(width):
    physics = operators.blur((1, 6, width), KERNEL, boundary="zero")
    problem = Problem(physics, torch.zeros(1, 1, 6, width), 0.1)
    system = Whitened(problem, spectrum(6, width), 0.01)
    x, z = torch.randn(2, 1, 6, width), torch.randn(2, 1, 6, width)
    a, b = system.pull(x), system.pull(z)
    torch.testing.assert_close(system.dot(a, system(b)), system.dot(system(a), b), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(system.dot(a, b).flatten(), (system.image(a) * z).flatten(1).sum(1), rtol=1e-4, atol=1e-6)


def test_colours_that_are_mixed_are_not_taken_for_a_closed_form():
    """Few iterations do: the closed form for independent channels prepares them."""
    prior = coloured_prior()
    problem = pose(operators.Colorization(tuple(prior.mean.shape)), prior, 0.02)
    a = problem.physics.A(torch.eye(72).reshape(72, 3, 4, 6)).flatten(1).T
    r = problem.y - problem.physics.A(prior.mean[None])
    dense = torch.linalg.solve(a @ prior.cov @ a.T + 0.0004 * torch.eye(24), r.flatten())
    got = solve(problem, StationaryCovariance(prior.power, (4, 6)), r, tolerance=1e-5, iterations=8)
    assert (got.flatten() - dense).norm() < 1e-3 * dense.norm()


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("make", [natural_prior, coloured_prior], ids=["natural", "coloured"])
def test_closed_forms_and_conjugate_gradients_solve_one_system(operator, make):
    """(A C A^T + sigma_y^2 I) w = r, against dense algebra."""
    prior = make()
    problem = pose(operator, prior, 0.1)
    n = prior.mean.numel()
    a = problem.physics.A(torch.eye(n).reshape(n, *prior.mean.shape)).flatten(1).T
    r = problem.y - problem.physics.A(prior.mean[None])
    dense = torch.linalg.solve(a @ prior.cov @ a.T + 0.01 * torch.eye(len(a)), r.flatten())
    covariance = StationaryCovariance(prior.power, tuple(prior.mean.shape[1:]))
    got = solve(problem, covariance, r, tolerance=1e-5, iterations=200)
    assert (got.flatten() - dense).norm() < 1e-3 * dense.norm()


def test_the_preconditioner_spares_operator_calls():
    """Half the pixels of a natural prior: far fewer iterations than the 32 unknowns."""
    prior = natural_prior()
    problem = pose("inpainting", prior, 0.02)
    covariance = StationaryCovariance(prior.power, (8, 8))
    solve(problem, covariance, problem.y, tolerance=1e-2, iterations=100)
    assert 0 < problem.calls.operator < 60


def test_operator_calls_are_counted():
    problem = Problem(operators.GaussianBlur((1, 8, 8), sigma=0.5), torch.rand(3, *SIZE), 0.1)
    solve(problem, StationaryCovariance(torch.ones(8, 5), (8, 8)), problem.y)
    assert problem.calls.operator == 6


def test_an_operator_without_a_closed_form_is_solved_to_the_tolerance_where_much_is_uncertain():
    """A blur seen within its borders, at a high noise level: after 20 iterations 13 % were missing, and samples kept noise."""
    size = (3, 64, 64)
    physics = operators.PaddedBlur(size, operators.gaussian_kernel(1.6), "valid")
    fy, fx = torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)[None]
    covariance = StationaryCovariance((0.3**2 / (1 + 400 * (fy**2 + fx**2)))[None], (64, 64))
    y = 0.5 + 0.02 * torch.randn(1, *physics.measurement_size, generator=torch.Generator().manual_seed(0))
    problem, x0 = Problem(physics, y, 0.02), torch.full((1, *size), 0.5)
    converged = condition(problem, covariance, x0, tolerance=1e-6, iterations=5000)[0]
    assert (condition(problem, covariance, x0)[0] - converged).norm() < 0.03 * converged.norm()


class Lens(operators.Blur):
    """Blurs each channel, or mixtures of them, by as much as it likes."""

    def __init__(self, img_size, gains):
        super().__init__(img_size, KERNEL)
        self.register_buffer("gains", gains)

    def A(self, x, **kwargs):
        return self.gains * super().A(x)

    def A_adjoint(self, y, **kwargs):
        return super().A_adjoint(self.gains * y)

    def solve_stationary(self, power, r, sigma):
        spectrum = power * self.gains**2 * self.response_power + sigma**2
        return torch.fft.irfft2(torch.fft.rfft2(r) / spectrum, s=r.shape[-2:])


@pytest.mark.parametrize(("gains", "closed"), [((1.0, 1.0, 1.0), True), ((1.0, 0.6, 0.3), False)])
def test_a_closed_form_is_for_what_does_the_same_to_all_colours(gains, closed):
    prior = coloured_prior()
    problem = pose(Lens(tuple(prior.mean.shape), torch.tensor(gains).reshape(3, 1, 1)), prior, 0.05)
    assert has_closed_form(problem) is closed
    a = problem.physics.A(torch.eye(72).reshape(72, 3, 4, 6)).flatten(1).T
    r = problem.y - problem.physics.A(prior.mean[None])
    dense = torch.linalg.solve(a @ prior.cov @ a.T + 0.0025 * torch.eye(72), r.flatten())
    got = solve(problem, StationaryCovariance(prior.power, (4, 6)), r, tolerance=1e-5, iterations=200)
    assert (got.flatten() - dense).norm() < 1e-3 * dense.norm()


@pytest.mark.parametrize("make", [operators.SeparableBlur, operators.PaddedBlur])
@pytest.mark.parametrize("boundary", ["valid", "replicate"])
def test_a_blur_within_its_borders_is_prepared_as_the_circular_one(make, boundary):
    """To a thousandth in less than half the iterations, and to the same solution."""
    size = (1, 48, 40)
    problem = simulate(make(size, operators.gaussian_kernel(1.5), boundary), sample_image(size=64)[:, :1, :48, :40], 0.02)
    covariance = StationaryCovariance(spectrum(48, 40), (48, 40))
    plain = conjugate_gradients(lambda v: problem.A(covariance(problem.A_adjoint(v))) + 0.0004 * v, problem.y, tolerance=1e-3,
                                iterations=500)
    before = problem.calls.operator
    prepared = solve(problem, covariance, problem.y, tolerance=1e-3, iterations=500)
    assert problem.calls.operator - before < int(plain.iterations) + 2        # two calls an iteration
    torch.testing.assert_close(prepared, plain.x, rtol=0, atol=0.01 * float(plain.x.abs().max()))


@pytest.mark.parametrize("make", [operators.PaddedBlur, operators.SeparableBlur])
@pytest.mark.parametrize("size", [(1, 20, 17), (3, 21, 16)])
def test_what_a_blur_within_its_borders_sees_of_a_covariance_is_one_filter(make, size):
    """A C A^T, for kernels of even and odd sides and with colours; of other boundaries or a C that is weighted it is not."""
    kernel = torch.outer(torch.tensor([0.1, 0.5, 0.3, 0.1]), torch.tensor([0.2, 0.3, 0.5]))
    problem = simulate(make(size, kernel, "valid"), torch.rand(2, *size), 0.02)
    covariance = StationaryCovariance(spectrum(*size[1:]) * torch.tensor([1.0, 0.5, 0.2])[: size[0], None, None], size[1:])
    v = torch.randn(problem.y.shape)
    expected = problem.A(covariance(problem.A_adjoint(v)))
    got = seen_in_one_pass(problem, covariance)(v)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    weighted = StationaryCovariance(covariance.power, size[1:], torch.rand(1, 1, *size[1:]))
    padded = simulate(make(size, kernel, "replicate"), torch.rand(2, *size), 0.02)
    assert seen_in_one_pass(problem, weighted) is None
    assert seen_in_one_pass(padded, covariance) is None
