import pytest
import torch
from toys import OPERATORS, SIZE, coloured_prior, natural_prior, pose

import operators
from invdiff.posterior.covariance import StationaryCovariance, conjugate_gradients, solve
from invdiff.problem import Problem


def system(size=12, count=3, condition=1e3):
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator))
    matrix = basis * torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), size) @ basis.T
    return matrix, torch.randn(count, size, generator=generator)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_conjugate_gradients_solve_to_their_tolerance(warm, preconditioned):
    matrix, b = system()
    start = torch.randn_like(b) if warm else None
    inverse = matrix.diagonal().reciprocal()
    x = conjugate_gradients(lambda v: v @ matrix, b, start, (lambda v: v * inverse) if preconditioned else None, 1e-3, 200)
    assert ((b - x @ matrix).norm(dim=1) < 2e-3 * b.norm(dim=1)).all()


def test_an_item_that_has_converged_is_left_alone():
    matrix, b = system()
    apply = lambda v: v @ matrix  # noqa: E731
    start = torch.zeros_like(b)
    start[0] = torch.linalg.solve(matrix, b[0])
    x = conjugate_gradients(apply, b, start, None, 1e-2, 100)
    assert torch.equal(x[0], start[0])
    torch.testing.assert_close(x[1:], conjugate_gradients(apply, b[1:], start[1:], None, 1e-2, 100), rtol=1e-4, atol=1e-4)


def test_a_zero_right_hand_side_gives_zero():
    matrix, b = system()
    b[1] = 0
    x = conjugate_gradients(lambda v: v @ matrix, b, None, None, 1e-3, 100)
    assert x.isfinite().all()
    assert (x[1] == 0).all()


def test_the_covariance_is_that_of_its_prior():
    for prior, size in ((natural_prior(), (8, 8)), (coloured_prior(), (4, 6))):
        covariance = StationaryCovariance(prior.power, size)
        x = torch.randn(2, *prior.mean.shape)
        torch.testing.assert_close(covariance(x).flatten(1), x.flatten(1) @ prior.cov, rtol=1e-4, atol=1e-5)
        back = covariance.inverse(covariance(x) + 0.3 * x, 0.3)
        torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-5)


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
