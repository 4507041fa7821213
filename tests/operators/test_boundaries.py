import numpy as np
import pytest
import torch
from operator_cases import dense, kernel, randn, sharp_kernel, symmetric_kernel
from scipy import fft, ndimage, signal

import operators

SCIPY = {"circular": "wrap", "reflect": "reflect", "replicate": "nearest", "zero": "constant"}
BOUNDARIES = [*SCIPY, "valid"]
SIZE = (2, 9, 12)


def rounded(array):
    """The array in numbers that float32 holds exactly, so that an operator keeps them."""
    return np.asarray(array).astype(np.float32).astype(np.float64)


def scipys(x, weights, boundary):
    """x (B, C, H, W) convolved by SciPy."""
    if boundary == "valid":
        return torch.from_numpy(signal.fftconvolve(x, np.asarray(weights)[None, None], mode="valid", axes=(2, 3)))
    planes = [ndimage.convolve(plane, np.asarray(weights), mode=SCIPY[boundary]) for plane in x.flatten(0, 1).numpy()]
    return torch.from_numpy(np.stack(planes)).reshape(x.shape)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 5), (2, 2), (4, 7), (7, 2), (9, 12), (8, 11)])
def test_padded_blur_is_scipys(kernel_size, boundary):
    weights = rounded(kernel(*kernel_size))
    x = randn(2, *SIZE)
    physics = operators.PaddedBlur(SIZE, weights, boundary)
    expected = scipys(x, weights, boundary)
    # in float32 directly where the kernel is small, otherwise by Fourier transforms
    torch.testing.assert_close(physics(x.float()), expected.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(physics.double()(x), expected, rtol=1e-11, atol=1e-12)
    assert physics.measurement_size == expected.shape[1:]


@pytest.mark.parametrize("make", [operators.PaddedBlur, operators.SeparableBlur])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_border_is_what_a_measurement_lacks_of_the_image(make, boundary):
    weights = np.zeros((4, 7))
    weights[2, 3] = 1                       # the centre, so nothing is blurred
    physics, x = make(SIZE, weights, boundary), randn(1, *SIZE).float()
    (top, bottom), (left, right) = physics.border
    torch.testing.assert_close(physics.A(x), x[..., top : SIZE[1] - bottom, left : SIZE[2] - right])
    assert (boundary == "valid") is (physics.border == [(1, 2), (3, 3)])


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("kernel_size", [(1, 3), (3, 5), (4, 2), (9, 12)])
def test_separable_blur_is_scipys(kernel_size, boundary):
    weights = np.outer(kernel(1, kernel_size[0], seed=1), kernel(1, kernel_size[1], seed=2))
    physics = operators.SeparableBlur(SIZE, weights, boundary).double()
    x = randn(2, *SIZE)
    torch.testing.assert_close(physics.kernel, torch.from_numpy(weights), rtol=1e-5, atol=0)
    expected = scipys(x, physics.kernel, boundary)
    torch.testing.assert_close(physics(x), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(physics.rows @ x @ physics.columns.T, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 5), (9, 11), (9, 3)])
def test_reflect_blur_is_scipys_and_diagonal_in_scipys_dct(kernel_size):
    weights = rounded(symmetric_kernel(*kernel_size))
    physics = operators.ReflectBlur(SIZE, weights).double()
    x = randn(2, *SIZE)
    torch.testing.assert_close(physics(x), scipys(x, weights, "reflect"), rtol=1e-11, atol=1e-12)
    before, after = (torch.from_numpy(fft.dctn(a.numpy(), axes=(2, 3), norm="ortho")) for a in (x, physics(x)))
    torch.testing.assert_close(after.abs(), physics.mask * before.abs(), rtol=0, atol=1e-11)
    torch.testing.assert_close(physics.V_adjoint(x), before, rtol=0, atol=1e-12)
    assert torch.equal(physics.A_adjoint(x), physics(x))


def test_reflect_blur_takes_even_kernels_whose_first_entries_are_zero():
    weights = np.pad(symmetric_kernel(7, 11), [(1, 0), (1, 0)])
    physics = operators.ReflectBlur((2, 8, 12), weights).double()  # as large as the image
    x = randn(1, 2, 8, 12)
    torch.testing.assert_close(physics(x), scipys(x, rounded(weights), "reflect"), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 5, 6), (2, 9, 12)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_adjoint_in_float32_is_exact_too(boundary, size):
    physics = operators.PaddedBlur(size, kernel(4, 5), boundary)
    a, at = (dense(lambda v, f=f: f(v.float()), s) for f, s in
             ((physics.A, physics.img_size), (physics.A_adjoint, physics.measurement_size)))  # fmt: skip
    torch.testing.assert_close(at, a.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradients_are_those_of_the_matrix(boundary):
    for physics in (
        operators.PaddedBlur((1, 5, 6), kernel(4, 3), boundary),
        operators.PaddedBlur((1, 5, 6), kernel(4, 3), boundary).double(),
    ):
        x = randn(1, 1, 5, 6).to(physics.kernel.dtype).requires_grad_()
        y = randn(*(1, *physics.measurement_size), seed=1).to(x).requires_grad_()
        gradient, other = torch.autograd.grad((physics.A(x) * y).sum(), (x, y))
        torch.testing.assert_close(gradient, physics.A_adjoint(y))
        torch.testing.assert_close(other, physics.A(x))
        (back,) = torch.autograd.grad((physics.A_adjoint(y) * x).sum(), y)
        torch.testing.assert_close(back, physics.A(x))


@pytest.mark.parametrize("boundary", ["circular", "reflect", "replicate"])
def test_a_flat_image_stays_flat_and_valid_is_its_middle(boundary):
    weights = operators.motion_kernel(9, 0.7, 3)
    flat = torch.full((1, 3, 20, 17), 0.4)
    torch.testing.assert_close(operators.PaddedBlur((3, 20, 17), weights, boundary)(flat), flat)
    x = torch.rand(2, 3, 20, 17)
    middle = operators.PaddedBlur((3, 20, 17), weights, boundary)(x)[..., 4:-4, 4:-4]
    torch.testing.assert_close(operators.PaddedBlur((3, 20, 17), weights, "valid")(x), middle)


GAUSSIAN = operators.gaussian_kernel(0.7)
TURNED = operators.gaussian_kernel((0.9, 0.4), 30)
SHAKE = operators.motion_kernel(5, 0.9, 1)
ONE_SIDED = operators.uniform_kernel((2, 4))


@pytest.mark.parametrize(
    ("boundary", "weights", "expected"),
    [
        *[("circular", weights, operators.Blur) for weights in (GAUSSIAN, TURNED, SHAKE, ONE_SIDED)],
        ("reflect", GAUSSIAN, operators.ReflectBlur),
        ("reflect", operators.disc_kernel(2.3), operators.ReflectBlur),
        ("reflect", operators.gaussian_kernel((0.9, 0.4), 90), operators.ReflectBlur),
        ("reflect", ONE_SIDED, operators.SeparableBlur),
        ("reflect", TURNED, operators.PaddedBlur),
        *[(b, weights, operators.SeparableBlur) for b in BOUNDARIES[2:] for weights in (GAUSSIAN, ONE_SIDED)],
        *[(b, weights, operators.PaddedBlur) for b in BOUNDARIES[1:] for weights in (TURNED, SHAKE)],
    ],
)
def test_blur_picks_the_class_that_knows_most(boundary, weights, expected):
    size = (3, 13, 17)
    physics = operators.blur(size, weights, boundary)
    assert type(physics) is expected
    x = torch.rand(2, *size)
    torch.testing.assert_close(physics(x), operators.PaddedBlur(size, weights, boundary)(x))
    noisy = operators.blur(size, weights, boundary, noise_model=lambda y, **kwargs: y + 1)
    torch.testing.assert_close(noisy(x), physics.A(x) + 1)


def test_blur_is_circular_by_default_and_has_no_svd_of_huge_matrices():
    assert type(operators.blur((1, 16, 16), GAUSSIAN)) is operators.Blur
    assert type(operators.blur((1, 9, 2049), GAUSSIAN, "zero")) is operators.PaddedBlur


def test_a_kernel_rounded_to_float32_is_still_separable_and_symmetric():
    wide = operators.gaussian_kernel(4.0)
    for weights in (wide.float(), wide, wide.numpy() * 1e-8):
        assert type(operators.blur((1, 64, 64), weights, "zero")) is operators.SeparableBlur
        assert type(operators.blur((1, 64, 64), weights, "reflect")) is operators.ReflectBlur
    spoilt = wide.clone()
    spoilt[20, 21] *= 1.001
    assert type(operators.blur((1, 64, 64), spoilt, "zero")) is operators.PaddedBlur
    assert type(operators.blur((1, 64, 64), spoilt, "reflect")) is operators.PaddedBlur


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_conjugate_gradients_undo_a_sharp_kernel(boundary):
    size = (2, 21, 30)
    physics = operators.PaddedBlur(size, sharp_kernel(5, 4), boundary, tol=1e-7).double()
    x = randn(2, *size)
    restored = physics.A_dagger(physics.A(x))
    torch.testing.assert_close(physics.A(restored), physics.A(x), rtol=0, atol=1e-5)
    if boundary != "valid":
        torch.testing.assert_close(restored, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cls", [operators.PaddedBlur, operators.SeparableBlur, operators.ReflectBlur])
def test_the_operator_keeps_its_own_copy_of_the_kernel(cls):
    weights = torch.ones(3, 3)
    physics = cls((1, 8, 8), weights)
    x = torch.rand(1, 1, 8, 8)
    before = physics(x)
    weights.zero_()
    assert torch.equal(physics(x), before)
    assert physics.kernel.all()


@pytest.mark.parametrize("cls", [operators.PaddedBlur, operators.SeparableBlur, operators.ReflectBlur, operators.blur])
@pytest.mark.parametrize(
    ("size", "weights", "message"),
    [
        ((8, 9), np.ones((3, 3)), r"img_size: expected three integers"),
        ((1, 8, 9), np.ones(3), r"kernel: expected \(kh, kw\), got \(3,\)"),
        ((1, 8, 9), np.ones((9, 9)), r"kernel: expected at most \(H, W\) = \(8, 9\), got \(9, 9\)"),
        ((1, 8, 9), np.ones((3, 3)) * 1j, "kernel: expected real numbers, got torch.complex128"),
        ((1, 8, 9), np.full((3, 3), np.inf), "kernel: expected finite numbers"),
        ((1, 8, 9), np.zeros((3, 3)), "kernel: expected finite numbers, not all zero"),
    ],
)
def test_bad_parameters_are_refused(cls, size, weights, message):
    with pytest.raises(ValueError, match=message):
        cls(size, weights)


def test_unfit_boundaries_and_kernels_are_refused():
    for call in (operators.PaddedBlur, operators.SeparableBlur, operators.blur):
        with pytest.raises(ValueError, match="boundary: expected one of circular, reflect, replicate, zero, valid, got 'wrap'"):
            call((1, 8, 8), np.ones((3, 3)), "wrap")
    with pytest.raises(ValueError, match=r"kernel: expected an outer product of two vectors, .* PaddedBlur"):
        operators.SeparableBlur((1, 8, 8), SHAKE)
    for weights in (TURNED, ONE_SIDED, np.ones((3, 2))):
        with pytest.raises(ValueError, match=r"kernel: expected the same values when mirrored .* PaddedBlur"):
            operators.ReflectBlur((1, 12, 12), weights)


@pytest.mark.parametrize("boundary", ["replicate", "zero", "valid"])
@pytest.mark.parametrize("kernel", [operators.gaussian_kernel(0.6), operators.motion_kernel(5, seed=2)],
                         ids=["gaussian", "motion"])
def test_far_from_the_borders_all_are_the_circular_filter(kernel, boundary):
    physics = operators.blur((1, 24, 19), kernel, boundary)
    x = torch.zeros(1, 1, 24, 19)
    x[..., 9:15, 8:11] = torch.rand(6, 3)
    expected = torch.fft.irfft2(torch.fft.rfft2(x) * physics.response_power, s=(24, 19))
    torch.testing.assert_close(physics.A_adjoint_A(x), expected, rtol=0, atol=1e-6)
    assert physics.double().response_power.dtype == torch.float64
    physics.update_parameters(kernel=kernel / 2)
    torch.testing.assert_close(physics.response_power, operators.Blur((1, 24, 19), kernel / 2).double().response_power)
