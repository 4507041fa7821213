"""What every linear operator must satisfy; adding one is a row in OPERATORS."""

import numpy as np
import pytest
import torch
from deepinv.physics import GaussianNoise
from hypothesis import given, settings
from hypothesis import strategies as st

import operators


def kernel(height, width, seed=0):
    """A kernel with no symmetry, of both signs."""
    return np.random.default_rng(seed).standard_normal((height, width))


def masks(batch, channels, height, width):
    return np.random.default_rng(1).random((batch, channels, height, width)) < 0.6


OPERATORS = {  # name: (smallest image side, what it must be a multiple of, constructor from img_size)
    "denoising": (1, 1, operators.Denoising),
    "blur-odd": (5, 1, lambda s: operators.Blur(s, kernel(3, 5))),
    "blur-even": (5, 1, lambda s: operators.Blur(s, kernel(4, 2))),
    "blur-box": (5, 1, lambda s: operators.Blur(s, np.full((2, 2), 0.25))),  # singular where H or W is even
    "gaussian": (5, 1, lambda s: operators.GaussianBlur(s, sigma=0.4)),
    "motion": (5, 1, lambda s: operators.MotionBlur(s, size=5, intensity=0.8)),
    "inpainting": (2, 1, lambda s: operators.Inpainting(s, operators.random_mask(s, keep=0.6))),
    "inpainting-channels": (2, 1, lambda s: operators.Inpainting(s, masks(1, *s)[0])),
    "sr-1": (1, 1, lambda s: operators.SuperResolution(s, factor=1)),
    "sr-2": (2, 2, lambda s: operators.SuperResolution(s, factor=2)),
    "sr-3": (3, 3, lambda s: operators.SuperResolution(s, factor=3)),
}
STATIONARY = [name for name in OPERATORS if "inpainting" not in name]
SIZES = [(1, 6, 6), (3, 7, 9), (2, 5, 8), (1, 8, 7), (2, 12, 6)]


def allowed(name, n):
    low, multiple, _ = OPERATORS[name]
    return max(-(-n // multiple) * multiple, low)


def build(name, channels, height, width):
    """The operator in float64, on the nearest size it allows."""
    return OPERATORS[name][2]((channels, allowed(name, height), allowed(name, width))).to(torch.float64)


def every_case(names=tuple(OPERATORS)):
    cases = [pytest.param(n, s, id=f"{n}-{s[0]}x{s[1]}x{s[2]}") for n in names for s in SIZES]
    return pytest.mark.parametrize(("name", "size"), cases)


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(function, size):
    """Matrix of a linear function of images of `size`."""
    basis = torch.eye(np.prod(size), dtype=torch.float64)
    return function(basis.reshape(-1, *size)).reshape(len(basis), -1).T


def stationary(size, zero=False, seed=0):
    """A power spectrum (1, C, H, W // 2 + 1) and the dense covariance it stands for, built by shifting the kernel."""
    _, height, width = size
    power = torch.fft.fft2(randn(1, *size, seed=seed)).abs() ** 2 / (height * width)  # symmetric: of a real image
    if zero:
        power[..., 0, 0] = 0
    lags = torch.fft.ifft2(power).real[0]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    blocks = lags[:, (rows[:, None] - rows) % height, (columns[:, None] - columns) % width]
    return power[..., : width // 2 + 1], torch.block_diag(*blocks)


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


@every_case()
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
    if "inpainting" not in name:  # whose measurement has entries that are never observed
        torch.testing.assert_close(u @ ut, torch.eye(len(u), dtype=torch.float64), rtol=0, atol=1e-12)


@every_case()
def test_white_noise_stays_white_through_u_adjoint(name, size):
    physics = build(name, *size)
    count = 4000
    coefficients = physics.U_adjoint(randn(count, *physics.measurement_size))
    seen = physics.singular_values.expand(1, *physics.img_size)[0] > 0
    variance = coefficients.square().mean(0)[seen]
    # the variance of n normals has the standard deviation sqrt(2 / n); six of them for a few hundred coefficients
    assert (variance - 1).abs().max() < 6 * (2 / count) ** 0.5


def test_coefficients_that_are_not_observed_are_zero():
    for name in ("inpainting", "inpainting-channels", "sr-2", "sr-3"):
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
    expected = r.reshape(2, -1) @ torch.linalg.pinv(system, hermitian=True, rtol=1e-12)
    got = physics.solve_stationary(power, r, sigma)
    assert got.isfinite().all()
    back = got.reshape(2, -1) @ system  # the pseudo-inverse, up to what its own conditioning hides
    torch.testing.assert_close(back, expected @ system, rtol=1e-8, atol=1e-10)
    if sigma:
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
    physics = OPERATORS[name][2]((1, 12, 12))
    power = torch.logspace(-44, 4, 7).expand(1, 1, 12, 7)  # from denormal numbers up
    got = physics.solve_stationary(power, randn(2, *physics.measurement_size).float(), sigma)
    assert got.dtype == torch.float32
    assert got.isfinite().all()


@pytest.mark.parametrize("name", OPERATORS)
def test_calls_never_change_the_operator(name):
    physics = build(name, 2, 6, 6)
    x, y = randn(2, *physics.img_size), randn(2, *physics.measurement_size)
    inputs = x.clone(), y.clone()
    state = {key: value.clone() for key, value in physics.state_dict().items()}
    attributes = {key: value for key, value in vars(physics).items() if not key.startswith("_")}
    before = physics(x), physics.A_adjoint(y), physics.A_dagger(y)
    other = {"mask": torch.full((1, 1, 6, 6), 0.5), "filter": torch.ones(1, 1, 3, 3), "kernel": torch.ones(3, 3)}
    for call, argument in [(physics, x), (physics.A, x), (physics.A_adjoint_A, x), (physics.A_adjoint, y),
                           (physics.A_A_adjoint, y), (physics.A_dagger, y)]:  # fmt: skip
        torch.testing.assert_close(call(argument, **other), call(argument), rtol=0, atol=0)
        call(argument).zero_()
    physics.prox_l2(x, y, 0.5, max_iter=1, solver="lsqr").zero_()
    after = physics(x), physics.A_adjoint(y), physics.A_dagger(y)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    torch.testing.assert_close((x, y), inputs, rtol=0, atol=0)
    torch.testing.assert_close(dict(physics.state_dict()), state, rtol=0, atol=0)
    assert {key: value for key, value in vars(physics).items() if not key.startswith("_")} == attributes


@pytest.mark.parametrize("name", OPERATORS)
def test_deepinv_takes_the_operator(name):
    physics = build(name, 2, 6, 6)
    x = randn(1, *physics.img_size)
    assert physics.adjointness_test(x) < 1e-10
    power_iteration = physics.compute_norm(x, squared=False, verbose=False, max_iter=2000, tol=1e-9)
    torch.testing.assert_close(power_iteration, physics.singular_values.max(), rtol=1e-3, atol=0)
    gradient = torch.func.vjp(physics.A, x)[1](physics.A(x))[0]
    torch.testing.assert_close(gradient, physics.A_adjoint_A(x))
    torch.testing.assert_close(physics.clone()(x), physics(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_noise_models_are_deepinvs(name):
    physics = build(name, 1, 64, 64)
    x = randn(4, *physics.img_size)
    torch.testing.assert_close(physics(x), physics.A(x), rtol=0, atol=0)
    physics.set_noise_model(GaussianNoise(0.1, rng=torch.Generator().manual_seed(0)))
    noise = physics(x) - physics.A(x)
    seen = physics.mask.expand_as(noise) > 0 if "inpainting" in name else torch.ones_like(noise, dtype=torch.bool)
    assert noise[seen].std().item() == pytest.approx(0.1, rel=0.1)
    assert not noise[~seen].any()


@pytest.mark.parametrize("name", OPERATORS)
def test_moving_to_float64_and_back_keeps_the_operator(name):
    physics = OPERATORS[name][2]((2, 6, 6))
    x = randn(2, 2, 6, 6).float()
    before = physics.A(x)
    assert before.dtype == torch.float32
    torch.testing.assert_close(physics.to(torch.float64).A(x.double()).float(), before)
    assert all(b.dtype == torch.float64 for key, b in physics.named_buffers() if "device" not in key)
    torch.testing.assert_close(physics.float().A(x), before, rtol=0, atol=0)
    copy = OPERATORS[name][2]((2, 6, 6))
    copy.load_state_dict(physics.state_dict())
    torch.testing.assert_close(copy.A(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_tensors_of_another_size_or_type_are_refused(name):
    physics = build(name, 2, 6, 6)
    x, y = randn(2, *physics.img_size), randn(2, *physics.measurement_size)
    calls = {"A": x, "A_adjoint": y, "A_adjoint_A": x, "A_A_adjoint": y, "A_dagger": y}
    for method, argument in calls.items():
        with pytest.raises(ValueError, match=r"^[xy]: expected .* got \(2, 2, \d+, \d+\)$"):
            getattr(physics, method)(argument[..., :-1])
        with pytest.raises(ValueError, match=r"expected a real floating-point tensor, got torch\.int64"):
            getattr(physics, method)(argument.long())
    with pytest.raises(ValueError, match="expected"):
        physics.prox_l2(x[..., :-1], y, 1.0)
    with pytest.raises(TypeError, match="sigm"):
        type(physics)((2, 32, 32), sigm=1)


@pytest.mark.parametrize("img_size", [(6, 6), (1, 0, 6), (1, 6, 6.5), 6, (2, 1, 6, 6)])
@pytest.mark.parametrize(
    "constructor",
    [
        operators.Denoising,
        operators.GaussianBlur,
        operators.MotionBlur,
        operators.SuperResolution,
        operators.random_mask,
        operators.box_mask,
        lambda s: operators.Blur(s, np.ones((1, 1))),
        lambda s: operators.Inpainting(s, np.ones((6, 6))),
    ],
)
def test_img_size_is_checked(constructor, img_size):
    with pytest.raises(ValueError, match=r"img_size: expected .* got "):
        constructor(img_size)
