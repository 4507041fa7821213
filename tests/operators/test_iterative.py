"""The conjugate-gradient solver, and the least-squares problems that go through it."""

import pytest
import torch
from operator_cases import build, randn

from operators import IterativePhysics, conjugate_gradients, least_squares


def system(size=12, count=3, condition=1e3):
    basis, _ = torch.linalg.qr(randn(size, size))
    return basis * torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), size) @ basis.T, randn(count, size, seed=1)


class Matrix(IterativePhysics):
    """y = a x on vectors."""

    def __init__(self, a, **kwargs):
        super().__init__(img_size=(a.shape[1],), **kwargs)
        self.measurement_size = (a.shape[0],)
        self.register_buffer("a", a)

    def A(self, x, **kwargs):
        return x @ self.a.T

    def A_adjoint(self, y, **kwargs):
        return y @ self.a


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_the_residual_is_below_the_tolerance_and_reported(warm, preconditioned):
    matrix, b = system()
    inverse = matrix.diagonal().reciprocal()
    solution = conjugate_gradients(
        lambda v: v @ matrix, b, torch.randn_like(b) if warm else None,
        precondition=(lambda v: v * inverse) if preconditioned else None, tolerance=1e-3, iterations=200,
    )  # fmt: skip
    true = (b - solution.x @ matrix).norm(dim=1) / b.norm(dim=1)
    assert (solution.residual <= 1e-3).all()
    torch.testing.assert_close(solution.residual, true, rtol=1e-6, atol=1e-9)


def test_a_run_that_is_cut_short_says_so():
    matrix, b = system(40, condition=1e6)
    solution = conjugate_gradients(lambda v: v @ matrix, b, tolerance=1e-8, iterations=3)
    assert (solution.residual > 1e-8).all()
    assert solution.iterations.tolist() == [3, 3, 3]


def test_cg_ends_after_as_many_iterations_as_there_are_eigenvalues():
    basis, _ = torch.linalg.qr(randn(30, 30))
    matrix = basis * torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).repeat(10) @ basis.T
    solution = conjugate_gradients(lambda v: v @ matrix, randn(2, 30, seed=1), tolerance=1e-10, iterations=100)
    assert solution.iterations.tolist() == [3, 3]


def test_an_item_that_has_converged_is_left_alone():
    matrix, b = system()
    start = torch.zeros_like(b)
    start[0] = torch.linalg.solve(matrix, b[0])
    apply = lambda v: v @ matrix  # noqa: E731
    together = conjugate_gradients(apply, b, start, tolerance=1e-2)
    alone = conjugate_gradients(apply, b[1:], start[1:], tolerance=1e-2)
    assert torch.equal(together.x[0], start[0])
    assert together.iterations[0] == 0
    assert torch.equal(together.iterations[1:], alone.iterations)
    torch.testing.assert_close(together.x[1:], alone.x, rtol=1e-9, atol=1e-9)


def test_zeros_give_zero_and_no_iteration():
    matrix, b = system()
    b[1] = 0
    solution = conjugate_gradients(lambda v: v @ matrix, b, tolerance=1e-3)
    assert solution.x.isfinite().all()
    assert not solution.x[1].any()
    assert solution.iterations[1] == 0
    assert solution.residual[1] == 0


@pytest.mark.parametrize("rank", [7, 4])
def test_least_squares_has_the_least_norm_and_starts_where_it_is_told(rank):
    a = randn(9, rank) @ randn(rank, 7, seed=1)
    physics, y = Matrix(a), randn(3, 9, seed=2)
    solution = least_squares(physics, y, tolerance=1e-13)
    expected = y @ torch.linalg.pinv(a, rtol=1e-10).T
    torch.testing.assert_close(solution.x, expected, rtol=1e-8, atol=1e-9)
    assert least_squares(physics, y, start=solution.x, tolerance=1e-10).iterations.tolist() == [0, 0, 0]
    null = randn(3, 7, seed=3)
    null = null - null @ a.T @ torch.linalg.pinv(a, rtol=1e-10).T
    moved = physics.A_dagger(y, x_init=null, tol=1e-13)  # what A does not see stays as it was
    torch.testing.assert_close(moved, expected + null, rtol=1e-8, atol=1e-8)


def test_the_proximal_step_takes_its_limits_from_the_call_or_else_from_the_operator():
    a = randn(6, 6)
    y, z = randn(2, 6, seed=1), randn(2, 6, seed=2)
    exact = torch.linalg.solve(3 * a.T @ a + torch.eye(6, dtype=torch.float64), (3 * y @ a + z).T).T
    torch.testing.assert_close(Matrix(a, tol=1e-13, max_iter=100).prox_l2(z, y, 3.0), exact)
    torch.testing.assert_close(Matrix(a).prox_l2(z, y, 3.0, tol=1e-13, max_iter=100), exact)
    once = Matrix(a).prox_l2(z, y, 3.0, max_iter=1)
    assert (once - exact).norm() > 1e-3 * exact.norm()
    torch.testing.assert_close(Matrix(a).prox_l2(z, y, 3.0, x_init=exact), exact, rtol=0, atol=0)


def test_no_iteration_and_no_tolerance_are_limits_too():
    a, y = randn(6, 6), randn(2, 6, seed=1)
    physics = Matrix(a, tol=0.9)
    assert not physics.A_dagger(y, max_iter=0).any()
    assert not physics.prox_l2(0.0, y, 3.0, max_iter=0).any()
    exact = torch.linalg.solve(a, y.T).T
    torch.testing.assert_close(physics.A_dagger(y, tol=0, max_iter=50), exact, rtol=1e-6, atol=1e-6)
    assert (physics.A_dagger(y) - exact).norm() > 1e-2 * exact.norm()


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1, 1)])
def test_a_strength_for_each_item_has_any_number_of_axes(shape):
    a, gamma = randn(6, 6), torch.tensor([0.2, 3.0], dtype=torch.float64)
    y, z = randn(2, 6, seed=1), randn(2, 6, seed=2)
    got = Matrix(a, tol=1e-13).prox_l2(z, y, gamma.reshape(shape))
    for i, g in enumerate(gamma):
        normal = g * a.T @ a + torch.eye(6, dtype=torch.float64)
        torch.testing.assert_close(got[i], torch.linalg.solve(normal, g * y[i] @ a + z[i]))


def test_gradients_flow_through_the_iterations():
    a = randn(5, 5) + 3 * torch.eye(5, dtype=torch.float64)
    physics = Matrix(a, tol=1e-14, max_iter=50)
    y = randn(2, 5, seed=1).requires_grad_()
    gamma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, gamma: physics.prox_l2(torch.zeros_like(y), y, gamma), (y, gamma), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_host_asks_every_eighth_iteration_only():
    matrix, b = (t.cuda() for t in system(40, condition=1e6))
    asked = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal asked
            asked += func is torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    with Watch():
        conjugate_gradients(lambda v: v @ matrix, b, tolerance=1e-12, iterations=40)
    assert asked == 5


def test_the_closed_forms_agree_with_the_iterations():
    physics = build("blur-odd", 2, 6, 7)
    y = randn(2, *physics.measurement_size)
    solution = least_squares(physics, y, z=0.5, gamma=2.0, tolerance=1e-12, iterations=500)
    torch.testing.assert_close(solution.x, physics.prox_l2(0.5, y, 2.0), rtol=1e-8, atol=1e-8)
