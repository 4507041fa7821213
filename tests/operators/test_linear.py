"""What every linear operator must satisfy; adding one is a row in OPERATORS."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import OPERATORS, build, dense, every_case, randn


def assert_dot(physics, batch):
    x = randn(batch, *physics.img_size)
    y = randn(batch, *physics.measurement_size, seed=1)
    ax, aty = physics.A(x), physics.A_adjoint(y)
    assert ax.shape == y.shape
    assert aty.shape == x.shape
    left, right = (ax * y).sum(), (x * aty).sum()
    assert abs(left - right) <= 1e-10 * ax.norm() * y.norm()


@pytest.mark.parametrize("batch", [1, 3])
@every_case()
def test_the_adjoint_passes_the_dot_test(name, size, batch):
    assert_dot(build(name, *size), batch)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(OPERATORS)), st.integers(1, 3), st.integers(1, 13), st.integers(1, 13), st.integers(1, 2))
def test_the_dot_test_holds_at_any_size(name, channels, height, width, batch):
    assert_dot(build(name, channels, height, width), batch)


@every_case()
def test_products_are_those_of_the_matrix(name, size):
    physics = build(name, *size)
    a = dense(physics.A, physics.img_size)
    torch.testing.assert_close(dense(physics.A_adjoint, physics.measurement_size), a.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(dense(physics.A_adjoint_A, physics.img_size), a.T @ a, rtol=0, atol=1e-11)
    torch.testing.assert_close(dense(physics.A_A_adjoint, physics.measurement_size), a @ a.T, rtol=0, atol=1e-11)


@every_case()
def test_a_dagger_is_the_pseudo_inverse(name, size):
    physics = build(name, *size)
    a = dense(physics.A, physics.img_size)
    got = dense(physics.A_dagger, physics.measurement_size)
    torch.testing.assert_close(got, torch.linalg.pinv(a, rtol=1e-5), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "gamma", [0.0, 0.7, 1e3, torch.tensor([0.1, 2.0, 30.0]), torch.tensor([0.1, 2.0, 30.0])[:, None, None, None]]
)
@every_case()
def test_prox_l2_solves_its_normal_equations(name, size, gamma):
    physics = build(name, *size)
    a = dense(physics.A, physics.img_size)
    y = randn(3, *physics.measurement_size)
    for z in (randn(3, *physics.img_size, seed=1), None, 0.5):
        got = physics.prox_l2(z, y, gamma)
        start = z if isinstance(z, torch.Tensor) else torch.full_like(got, z or 0.0)
        for i, g in enumerate(torch.as_tensor(gamma, dtype=torch.float64).flatten().expand(3)):
            system = g * a.T @ a + torch.eye(a.shape[1], dtype=torch.float64)
            expected = torch.linalg.solve(system, g * a.T @ y[i].flatten() + start[i].flatten())
            torch.testing.assert_close(got[i].flatten(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OPERATORS)
def test_prox_l2_of_one_measurement_for_several_images_and_strengths(name):
    physics, gamma = build(name, 2, 6, 6), torch.tensor([0.1, 2.0, 30.0])
    y, z = randn(1, *physics.measurement_size), randn(3, *physics.img_size, seed=1)
    repeated = physics.prox_l2(z, y.expand(3, *y.shape[1:]), gamma)
    torch.testing.assert_close(physics.prox_l2(z, y, gamma), repeated, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OPERATORS)
def test_deepinv_takes_the_operator(name):
    physics = build(name, 2, 6, 6)
    x = randn(1, *physics.img_size)
    assert physics.adjointness_test(x) < 1e-10
    power_iteration = physics.compute_norm(x, squared=False, verbose=False, max_iter=2000, tol=1e-9)
    norm = torch.linalg.matrix_norm(dense(physics.A, physics.img_size), 2)
    torch.testing.assert_close(power_iteration, norm, rtol=1e-3, atol=0)
    gradient = torch.func.vjp(physics.A, x)[1](physics.A(x))[0]
    torch.testing.assert_close(gradient, physics.A_adjoint_A(x))
    torch.testing.assert_close(physics.clone()(x), physics(x), rtol=0, atol=0)
