import deepinv
import numpy as np
import pytest
import torch
from scipy import ndimage

import operators

PINNED = [0.049439, 0.04865, 0.044806, 0.041452, 0.040261, 0.043525, 0.078569, 0.202339, 0.112337, 0.169983, 0.032774]


def image(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def blurred(physics, x):
    return physics.double()(torch.from_numpy(x)[None])[0].numpy()


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (5, 3), (3, 7), (9, 12), (8, 12)])
def test_blur_is_scipys_circular_convolution(kernel_size):
    kernel = image(*kernel_size, seed=1) - 0.3
    x = image(2, 9, 12)
    expected = np.stack([ndimage.convolve(channel, kernel, mode="wrap") for channel in x])
    np.testing.assert_allclose(blurred(operators.Blur(x.shape, kernel), x), expected, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [(2, 2), (3, 3), (4, 5)])
def test_an_impulse_becomes_the_kernel_about_its_centre(kernel_size):
    kernel = image(*kernel_size, seed=1)
    x = np.zeros((1, 9, 10))
    x[0, 4, 5] = 1
    y = blurred(operators.Blur(x.shape, kernel), x)
    top, left = 4 - kernel_size[0] // 2, 5 - kernel_size[1] // 2
    np.testing.assert_allclose(y[0, top : top + kernel_size[0], left : left + kernel_size[1]], kernel, atol=1e-6)
    assert np.abs(y).sum() == pytest.approx(kernel.sum(), abs=1e-5)


def test_blur_agrees_with_deepinv():
    kernel = torch.from_numpy(image(5, 3, seed=1)).float()
    x = torch.rand(2, 3, 16, 17)
    theirs = deepinv.physics.BlurFFT(img_size=(3, 16, 17), filter=kernel[None, None])
    torch.testing.assert_close(operators.Blur((3, 16, 17), kernel)(x), theirs(x))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0, 2.5])
def test_gaussian_blur_is_scipys(sigma):
    x = image(1, 31, 27)
    expected = ndimage.gaussian_filter(x[0], sigma, mode="wrap", truncate=8)
    physics = operators.GaussianBlur(x.shape, sigma)
    np.testing.assert_allclose(blurred(physics, x)[0], expected, atol=1e-5)
    assert physics.kernel.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kernel_size", [(3, 3), (4, 7), (12, 9)])
def test_blur_agrees_with_scipy_to_rounding(kernel_size):
    kernel = image(*kernel_size, seed=1).astype(np.float32)  # which the operator keeps to the last bit
    x = image(2, 13, 12)
    expected = np.stack([ndimage.convolve(channel, kernel.astype(float), mode="wrap") for channel in x])
    np.testing.assert_allclose(blurred(operators.Blur(x.shape, kernel), x), expected, rtol=1e-12)


def test_white_noise_stays_white_where_deepinvs_does_not():
    kernel = torch.from_numpy(image(3, 3, seed=1)).float()
    noise = torch.randn(4000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = operators.Blur((1, 8, 8), kernel).U_adjoint(noise).square().mean(0)
    theirs = deepinv.physics.BlurFFT(img_size=(1, 8, 8), filter=kernel[None, None]).U_adjoint(noise).square().mean(0)
    deviation = (2 / 4000) ** 0.5  # of a variance measured on 4000 normals
    assert (ours - 1).abs().max() < 6 * deviation
    # real and imaginary part of a real image's Fourier coefficient: variance 1/2 each, or 1 and 0 where it is real
    assert (theirs - 1).abs().min() < 6 * deviation
    assert (theirs - 0.5).abs().median() < 6 * deviation
    assert theirs.min() < 1e-6


def test_gaussian_blur_of_two_widths_is_scipys():
    x = image(1, 45, 27)
    expected = ndimage.gaussian_filter(x[0], (4.0, 1.2), mode="wrap", truncate=8)
    np.testing.assert_allclose(blurred(operators.GaussianBlur(x.shape, (4.0, 1.2)), x)[0], expected, atol=1e-5)
    turned = operators.GaussianBlur(x.shape, (1.2, 4.0), angle=90.0)
    np.testing.assert_allclose(blurred(turned, x)[0], expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"sigma: expected at most 2.6 pixels, .* got \(1.2, 4.0\)"):
        operators.GaussianBlur(x.shape, (1.2, 4.0))


def test_named_blurs_are_those_of_their_kernels():
    size = (3, 24, 31)
    pairs = [
        (operators.GaussianBlur(size, (2.0, 1.0), 20), operators.gaussian_kernel((2.0, 1.0), 20)),
        (operators.MotionBlur(size, 9, 0.3, 4), operators.motion_kernel(9, 0.3, 4)),
        (operators.UniformBlur(size, (2, 5)), operators.uniform_kernel((2, 5))),
        (operators.UniformBlur(size), operators.uniform_kernel(9)),
        (operators.DefocusBlur(size, 2.5), operators.disc_kernel(2.5)),
    ]
    for physics, kernel in pairs:
        assert torch.equal(physics.kernel, kernel.float())


@pytest.mark.parametrize("radius", [0.4, 0.5, 3.5])
def test_the_widest_disc_fits(radius):
    assert operators.DefocusBlur((1, 8, 7), radius).kernel.shape == (2 * int(radius - 0.5) + 1,) * 2


@pytest.mark.parametrize("size", [2, (3, 2)])
def test_uniform_blur_is_scipys_mean(size):
    x = image(1, 9, 12)
    expected = ndimage.uniform_filter(x[0], size, mode="wrap")
    # SciPy centres its even windows at n // 2 of a correlation, ours are convolutions
    shift = [-1 if n % 2 == 0 else 0 for n in np.broadcast_to(size, 2)]
    np.testing.assert_allclose(blurred(operators.UniformBlur(x.shape, size), x)[0], np.roll(expected, shift, (0, 1)), atol=1e-6)


@pytest.mark.parametrize("intensity", [0, 0.5, 1])
@pytest.mark.parametrize("seed", [0, 1, 2, 12345])
def test_motion_kernels_are_centred_and_keep_brightness(intensity, seed):
    kernel = operators.MotionBlur((1, 32, 32), 15, intensity, seed).kernel.double()
    place = torch.arange(15, dtype=torch.float64)
    assert kernel.shape == (15, 15)
    assert kernel.min() >= 0
    assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
    assert (kernel.sum(1) @ place).item() == pytest.approx(7, abs=1e-5)
    assert (kernel.sum(0) @ place).item() == pytest.approx(7, abs=1e-5)


def test_motion_kernels_follow_their_seed():
    a, b, c = (operators.MotionBlur((1, 32, 32), seed=seed).kernel for seed in (0, 1, 0))
    assert torch.equal(a, c)
    assert not torch.allclose(a, b, atol=1e-3)
    # pinned, so that a kernel named by its seed stays the same in later versions and on other machines
    np.testing.assert_allclose(a.sum(0)[5:16], PINNED, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_without_intensity_the_motion_is_a_straight_line(seed):
    kernel = operators.MotionBlur((1, 32, 32), 21, 0, seed).kernel.double().numpy()
    y, x = np.indices(kernel.shape) - 10
    covariance = np.array([[(kernel * y * y).sum(), (kernel * y * x).sum()], [0, (kernel * x * x).sum()]])
    thickness, length = np.sqrt(np.linalg.eigvalsh(covariance, UPLO="U"))
    assert length == pytest.approx(20 / 12**0.5, rel=0.03)  # a uniform line of 20 pixels, whatever its direction
    assert thickness < 0.6


def test_frequencies_that_the_kernel_removes_have_singular_value_zero():
    physics = operators.Blur((1, 14, 21), np.full((7, 7), 1 / 49))  # a mean of seven removes sevenths of a turn
    for dtype in (torch.float32, torch.float64):
        zero = physics.to(dtype).singular_values[0, 0] == 0
        assert zero.sum() == 14 * 21 - 8 * 15
        assert zero[2::2].all()
        assert zero[:, 3::3].all()


def test_float64_holds_to_its_own_precision():
    physics = operators.GaussianBlur((1, 64, 64), 3.0).to(torch.float64)
    x = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(physics.U(physics.mask * physics.V_adjoint(x)), physics.A(x), rtol=0, atol=1e-14)
    torch.testing.assert_close(physics.U_adjoint(physics.U(x)), x, rtol=0, atol=1e-13)


def test_the_pseudo_inverse_does_not_amplify_rounding():
    physics = operators.GaussianBlur((1, 64, 64), 3.0)  # its spectrum falls far below the rounding of float32
    x = torch.rand(1, 1, 64, 64)
    y = physics(x)
    # dividing by at least 1e-5 turns a rounding error of 1e-7 into at most 1e-2
    assert (physics(physics.A_dagger(y)) - y).abs().max() < 1e-4
    assert physics.A_dagger(y).abs().max() < 3
    solved = physics.solve_stationary(torch.ones(1, 1, 64, 33), y, 0.0)
    torch.testing.assert_close(physics.A_adjoint(solved), physics.A_dagger(y), rtol=0, atol=1e-2)


def test_the_operator_keeps_its_own_copy_of_the_kernel():
    kernel = torch.ones(3, 3)
    physics = operators.Blur((1, 8, 8), kernel)
    kernel.zero_()
    assert physics.kernel.all()
    operators.Blur((1, 8, 8), image(3, 3)[::-1])  # a view with negative strides


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: operators.Blur(s, np.ones(3)), r"kernel: expected \(kh, kw\), got \(3,\)"),
        (lambda s: operators.Blur(s, np.ones((3, 3, 3))), r"kernel: expected one for all images .*, got \(3, 3, 3\)"),
        (lambda s: operators.Blur(s, np.ones((0, 3))), r"kernel: expected \(kh, kw\), got \(0, 3\)"),
        (lambda s: operators.Blur(s, np.ones((3, 10))), r"kernel: expected at most \(H, W\) = \(8, 9\), got \(3, 10\)"),
        (lambda s: operators.Blur(s, np.ones((3, 3)) * 1j), "kernel: expected real numbers, got torch.complex128"),
        (lambda s: operators.Blur(s, np.full((3, 3), np.nan)), "kernel: expected finite numbers"),
        (lambda s: operators.Blur(s, np.zeros((3, 3))), "kernel: expected finite numbers, not all zero"),
        (lambda s: operators.GaussianBlur(s, 0), r"sigma: expected a number in \(0, inf\), got 0"),
        (lambda s: operators.GaussianBlur(s, float("inf")), r"sigma: expected a number in \(0, inf\), got inf"),
        (lambda s: operators.GaussianBlur(s, "wide"), "sigma: expected a number in .* got 'wide'"),
        (lambda s: operators.GaussianBlur(s, 0.7), r"sigma: expected at most 0.6 pixels, .* \(8, 9\), got 0.7"),
        (lambda s: operators.GaussianBlur(s, (0.7, 0.5)), r"sigma: expected at most 0.6 pixels, .* got \(0.7, 0.5\)"),
        (lambda s: operators.GaussianBlur(s, 1e9), r"sigma: expected at most 0.6 pixels"),
        (lambda s: operators.UniformBlur(s, 9), r"kernel: expected at most \(H, W\) = \(8, 9\), got \(9, 9\)"),
        (lambda s: operators.UniformBlur(s, 10**9), r"kernel: expected at most \(H, W\) = \(8, 9\)"),
        (lambda s: operators.UniformBlur(s, 0), "size: expected an integer >= 1, got 0"),
        (lambda s: operators.DefocusBlur(s, 3.6), r"radius: expected at most 3.5 pixels, .* \(8, 9\), got 3.6"),
        (lambda s: operators.DefocusBlur(s, 1e9), r"radius: expected at most 3.5 pixels"),
        (lambda s: operators.DefocusBlur(s, 0), r"radius: expected a number in \(0, inf\), got 0"),
        (lambda s: operators.MotionBlur(s, size=10**9 + 1), r"kernel: expected at most \(H, W\) = \(8, 9\)"),
        (lambda s: operators.MotionBlur(s, size=4), "size: expected an odd number of pixels, got 4"),
        (lambda s: operators.MotionBlur(s, size=1), "size: expected an integer >= 3, got 1"),
        (lambda s: operators.MotionBlur(s, size=11), r"kernel: expected at most \(H, W\) = \(8, 9\), got \(11, 11\)"),
        (lambda s: operators.MotionBlur(s, size=5, intensity=1.1), r"intensity: .* \[0, 1\], got 1.1"),
        (lambda s: operators.MotionBlur(s, size=5, seed=-1), "seed: expected an integer >= 0, got -1"),
    ],
)
def test_bad_parameters_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call((1, 8, 9))
