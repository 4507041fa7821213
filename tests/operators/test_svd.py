"""What every operator with an SVD must satisfy, and those with a closed form for stationary covariances."""

import numpy as np
import pytest
import torch
from operator_cases import OPERATORS, STATIONARY, SVD, build, dense, every_case, randn, stationary


@every_case(SVD)
def test_the_svd_is_orthonormal_and_gives_back_the_operator(name, size):
    physics = build(name, *size)
    n = int(np.prod(physics.img_size))
    eye = torch.eye(n, dtype=torch.float64)
    v = dense(physics.V, physics.img_size)
    s = physics.singular_values.expand(1, *physics.img_size).flatten()
    u = dense(physics.U, physics.img_size)
    ut = dense(physics.U_adjoint, physics.measurement_size)
    assert s.min() >= 0
    assert physics.singular_values is physics.mask
    torch.testing.assert_close(v.T @ v, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(dense(physics.V_adjoint, physics.img_size), v.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(ut, u.T, rtol=0, atol=1e-12)
    seen = s > 0
    torch.testing.assert_close((u.T @ u)[seen][:, seen], eye[seen][:, seen], rtol=0, atol=1e-12)
    torch.testing.assert_close(u * s @ v.T, dense(physics.A, physics.img_size), rtol=0, atol=1e-11)
    if not OPERATORS[name].masked:
        torch.testing.assert_close(u @ ut, torch.eye(len(u), dtype=torch.float64), rtol=0, atol=1e-12)


@every_case(SVD)
def test_white_noise_stays_white_through_u_adjoint(name, size):
    physics = build(name, *size)
    count = 4000
    coefficients = physics.U_adjoint(randn(count, *physics.measurement_size))
    seen = physics.singular_values.expand(1, *physics.img_size)[0] > 0
    variance = coefficients.square().mean(0)[seen]
    # the variance of n normals has the standard deviation sqrt(2 / n); six of them for a few hundred coefficients
    assert (variance - 1).abs().max() < 6 * (2 / count) ** 0.5


def test_coefficients_that_are_not_observed_are_zero():
    for name in [n for n in SVD if OPERATORS[n].masked or n.startswith("sr-")]:
        physics = build(name, 2, 6, 6)
        coefficients = physics.U_adjoint(randn(2, *physics.measurement_size))
        assert coefficients.shape == (2, *physics.img_size)
        assert not coefficients[(physics.singular_values == 0).expand_as(coefficients)].any()


@pytest.mark.parametrize("zero", [False, True], ids=["positive", "with-a-zero"])
@pytest.mark.parametrize("sigma", [0.3, 0.0])
@every_case(STATIONARY)
def test_solve_stationary_is_the_pseudo_inverse(name, size, sigma, zero):
    physics = build(name, *size)
    power, covariance = stationary(physics.img_size, zero)
    a = dense(physics.A, physics.img_size)
    system = a @ covariance @ a.T + sigma**2 * torch.eye(len(a), dtype=torch.float64)
    r = randn(2, *physics.measurement_size)
    r = (r.reshape(2, -1) @ system / system.norm()).reshape(r.shape)  # in the range, where rounding has no say
    got = physics.solve_stationary(power, r, sigma)
    assert got.isfinite().all()
    back = got.reshape(2, -1) @ system
    # pinv(system) @ system is the projection on the range; a product of the two would lose 1e-10 and more to pinv's rounding
    values, vectors = torch.linalg.eigh(system)
    seen = vectors[:, values.abs() > 1e-12 * values.abs().max()]
    torch.testing.assert_close(back, r.reshape(2, -1) @ seen @ seen.T, rtol=1e-8, atol=1e-10)
    if sigma:
        expected = r.reshape(2, -1) @ torch.linalg.pinv(system, hermitian=True, rtol=1e-12)
        torch.testing.assert_close(got.reshape(2, -1), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", STATIONARY)
def test_solve_stationary_takes_a_sigma_for_each_image_and_broadcast_powers(name):
    physics = build(name, 2, 6, 9)
    _, height, width = physics.img_size
    power, _ = stationary(physics.img_size)
    r = randn(3, *physics.measurement_size)
    sigmas = torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)
    together = physics.solve_stationary(power, r, sigmas)
    torch.testing.assert_close(together, physics.solve_stationary(power, r, sigmas[:, None, None, None]))
    for i, sigma in enumerate(sigmas.tolist()):
        torch.testing.assert_close(together[i : i + 1], physics.solve_stationary(power, r[i : i + 1], sigma))
    flat = physics.solve_stationary(torch.tensor(2.0), r, 0.1)
    torch.testing.assert_close(flat, physics.solve_stationary(torch.full((height, width // 2 + 1), 2.0), r, 0.1))
    with pytest.raises(ValueError, match=r"power: expected .* got \(4, 4\)"):
        physics.solve_stationary(torch.ones(4, 4), r, 0.1)


@pytest.mark.parametrize("sigma", [0.0, 1e-3])
@pytest.mark.parametrize("name", STATIONARY)
def test_solve_stationary_stays_finite_in_float32(name, sigma):
    physics = OPERATORS[name].make((1, 12, 12))
    power = torch.logspace(-44, 4, 7).expand(1, 1, 12, 7)  # from denormal numbers up
    got = physics.solve_stationary(power, randn(2, *physics.measurement_size).float(), sigma)
    assert got.dtype == torch.float32
    assert got.isfinite().all()
