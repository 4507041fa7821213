import pytest
import torch
from toys import OPERATORS, SIZE, coloured_prior, natural_prior, pose

import operators
from invdiff.posterior.covariance import StationaryCovariance, condition, solve
from invdiff.problem import Problem


def test_the_covariance_is_that_of_its_prior():
    for prior, size in ((natural_prior(), (8, 8)), (coloured_prior(), (4, 6))):
        covariance = StationaryCovariance(prior.power, size)
        x = torch.randn(2, *prior.mean.shape)
        torch.testing.assert_close(covariance(x).flatten(1), x.flatten(1) @ prior.cov, rtol=1e-4, atol=1e-5)
        back = covariance.inverse(covariance(x) + 0.3 * x, 0.3)
        torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-5)


ITERATIVE = {"compressed sensing": lambda size: operators.CompressedSensing(size, 0.5),
           "colours": operators.Colorization,
           "no closed form": lambda size: operators.BicubicSuperResolution(size, 2)}


@pytest.mark.parametrize("operator", [*OPERATORS, *ITERATIVE])
@pytest.mark.parametrize("started", [False, True])
def test_conditioning_is_the_solution_filtered(operator, started):
    """C A^T (A C A^T + sigma_y^2 I)^-1 r, with an item that has converged beside one that has not."""
    prior = coloured_prior(4, 8)
    physics = {**OPERATORS, **ITERATIVE}[operator](tuple(prior.mean.shape))
    problem = pose(physics, prior, 0.1, count=3)
    covariance = StationaryCovariance(prior.power, (4, 8))
    r = problem.y - problem.physics.A(prior.mean.expand(3, *prior.mean.shape))
    accuracy = {"tolerance": 1e-5, "iterations": 200}
    exact = solve(problem, covariance, r, **accuracy)
    start = exact * torch.tensor([1.0, 0.5, 0.0]).reshape(-1, *[1] * (r.ndim - 1)) if started else None
    u, w = condition(problem, covariance, r, start, **accuracy)
    assert (w is None) == (operator in ("denoising", "blur", "super-resolution"))
    assert w is None or (w - exact).norm() < 1e-3 * exact.norm()
    assert (u - covariance(problem.physics.A_adjoint(exact))).norm() < 1e-3 * u.norm()
    alone, _ = condition(problem.rows(torch.tensor([1])), covariance, r[1:2], None if start is None else start[1:2],
                         **accuracy)
    torch.testing.assert_close(u[1:2], alone, rtol=1e-4, atol=1e-5)


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
