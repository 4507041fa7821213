import numpy as np
import pytest
import torch
import torch.nn.functional as F
from deepinv.physics import Downsampling, DownsamplingMatlab
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.measure import block_reduce
from skimage.transform import downscale_local_mean

import operators

FACTORS = [2, 3, 4, 5, 16]
EVERY_KIND = {
    "average": operators.SuperResolution,
    "bicubic": operators.BicubicSuperResolution,
    "cubic": lambda size, factor: operators.BicubicSuperResolution(size, factor, antialias=False),
    "gaussian": operators.GaussianSuperResolution,
}


def image(factor, dtype=torch.float32):
    """(1, 1, H, W): as small as the kernel's support and not square."""
    return torch.rand(1, 1, 4 * factor, 7 * factor, dtype=dtype, generator=torch.Generator().manual_seed(factor))


@pytest.mark.parametrize(("factor", "height", "width"), [(1, 4, 5), (2, 6, 10), (3, 9, 6), (4, 8, 12)])
def test_block_means_are_those_of_scikit_image(factor, height, width):
    x = np.random.default_rng(0).random((height, width))
    physics = operators.SuperResolution((1, height, width), factor)
    y = physics(torch.from_numpy(x)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(y, block_reduce(x, factor, np.mean), atol=1e-14)
    np.testing.assert_allclose(y, downscale_local_mean(x, (factor, factor)), atol=1e-14)
    assert physics.measurement_size == (1, height // factor, width // factor)


def test_the_first_coefficient_of_a_block_is_its_scaled_mean():
    physics = operators.SuperResolution((2, 6, 9), 3).double()
    x = torch.rand(2, 2, 6, 9, dtype=torch.float64)
    torch.testing.assert_close(physics.V_adjoint(x)[..., ::3, ::3], 3 * physics(x))


@pytest.mark.parametrize("factor", [1, *FACTORS])
def test_bicubic_with_antialiasing_is_pillows_and_torchs(factor):
    x = image(factor)
    y = operators.BicubicSuperResolution(x.shape[1:], factor)(x)
    pillow = Image.fromarray(x[0, 0].numpy()).resize((7, 4), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(y[0, 0].numpy(), np.asarray(pillow), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        y, F.interpolate(x, size=(4, 7), mode="bicubic", antialias=True, align_corners=False), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_with_antialiasing_is_matlabs_away_from_the_border(factor):
    x = torch.rand(1, 2, 8 * factor, 9 * factor)
    y = operators.BicubicSuperResolution(x.shape[1:], factor)(x)
    matlab = DownsamplingMatlab(factor=factor)(x)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(y[inner], matlab[inner], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [1, *FACTORS])
def test_bicubic_without_antialiasing_is_torchs(factor):
    x = image(factor)
    y = operators.BicubicSuperResolution(x.shape[1:], factor, antialias=False)(x)
    torch.testing.assert_close(
        y, F.interpolate(x, size=(4, 7), mode="bicubic", antialias=False, align_corners=False), rtol=1e-5, atol=1e-6
    )
    if factor % 2:
        torch.testing.assert_close(y, x[..., factor // 2 :: factor, factor // 2 :: factor])


@pytest.mark.parametrize(("factor", "sigma", "first"), [(2, 0.8, 0), (3, 1.2, 1), (4, 3.0, 3), (16, 8.0, 7)])
def test_the_gaussian_one_is_scipys_filter_read_at_every_factor_th_pixel(factor, sigma, first):
    x = image(factor, torch.float64)
    y = operators.GaussianSuperResolution(x.shape[1:], factor, sigma, first).double()(x)
    radius = int(np.ceil(5 * sigma))  # the widest one goes around the image
    blurred = gaussian_filter(x[0, 0].numpy(), sigma, mode="wrap", radius=radius)
    np.testing.assert_allclose(y[0, 0].numpy(), blurred[first::factor, first::factor], rtol=1e-6)


@pytest.mark.parametrize("factor", [2, 3])
def test_the_gaussian_one_is_gaussian_blur_and_deepinvs_downsampling(factor):
    x = torch.rand(1, 2, 24, 36)
    y = operators.GaussianSuperResolution((2, 24, 36), factor, sigma=1.5)(x)
    blur = operators.GaussianBlur((2, 24, 36), sigma=1.5)
    torch.testing.assert_close(y, blur(x)[..., ::factor, ::factor])
    deepinv = Downsampling((2, 24, 36), filter=blur.kernel[None, None], factor=factor, padding="circular")
    torch.testing.assert_close(y, deepinv(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("factor", FACTORS)
def test_brightness_is_kept_and_channels_do_not_mix(kind, factor):
    physics = EVERY_KIND[kind]((3, 2 * factor, 3 * factor), factor)
    levels = torch.tensor([0.0, 0.3, 1.0])[:, None, None]
    torch.testing.assert_close(physics(levels.expand(1, *physics.img_size)), levels.expand(1, 3, 2, 3))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_by_sixteen_the_svd_is_orthonormal_and_white(kind):
    physics = EVERY_KIND[kind]((1, 64, 64), 16).double()
    x = torch.randn(2, 1, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coefficients = physics.V_adjoint(x)
    torch.testing.assert_close(physics.V(coefficients), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(coefficients.flatten(1) @ coefficients.flatten(1).T, x.flatten(1) @ x.flatten(1).T)
    torch.testing.assert_close(physics.U(physics.singular_values * coefficients), physics.A(x), rtol=0, atol=1e-12)
    assert physics.singular_values.count_nonzero() == 16
    noise = torch.randn(8000, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = physics.U_adjoint(noise)[..., physics.singular_values[0, 0] > 0].flatten(1)
    covariance = seen.T @ seen / len(noise)
    assert (covariance - torch.eye(16)).abs().max() < 5 * (2 / len(noise)) ** 0.5


def test_solve_stationary_drops_what_a_dagger_drops():
    physics = operators.GaussianSuperResolution((1, 24, 24), 2, sigma=4.0).double()
    flat = torch.ones(24, 13, dtype=torch.float64)  # C = I, so (A Aᵀ)⁺ r = (A⁺)ᵀ A⁺ r
    r = torch.randn(2, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pinv = physics.A_dagger(torch.eye(144, dtype=torch.float64).reshape(144, 1, 12, 12)).flatten(1)
    assert torch.linalg.matrix_rank(pinv) < 144
    expected = r.flatten(1) @ pinv @ pinv.T
    got = physics.solve_stationary(flat, r, 0.0).flatten(1)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("size", "factor", "message"),
    [
        ((3, 255, 256), 2, r"divisible by the factor 2, such as \(254, 256\) or \(256, 256\), got \(255, 256\)"),
        ((1, 3, 8), 4, r"divisible by the factor 4, such as \(4, 8\) or \(4, 8\), got \(3, 8\)"),
        ((1, 8, 8), 0, "factor: expected an integer >= 1, got 0"),
        ((1, 8, 8), 2.0, "factor: expected an integer >= 1, got 2.0"),
        ((1, 8, 8), True, "factor: expected an integer >= 1, got True"),
    ],
)
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_bad_factors_are_refused(kind, size, factor, message):
    with pytest.raises(ValueError, match=message):
        EVERY_KIND[kind](size, factor)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: operators.GaussianSuperResolution((1, 8, 12), 2, sigma=0), r"sigma: .* \(0, 12\], got 0"),
        (lambda: operators.GaussianSuperResolution((1, 8, 12), 2, sigma=13), r"sigma: .* \(0, 12\], got 13"),
        (lambda: operators.GaussianSuperResolution((1, 8, 8), 2, sigma=float("nan")), "sigma: .* got nan"),
        (lambda: operators.GaussianSuperResolution((1, 8, 8), 2, first=2), "first: .* less than the factor 2, got 2"),
        (lambda: operators.GaussianSuperResolution((1, 8, 8), 2, first=-1), "first: expected an integer >= 0, got -1"),
        (lambda: operators.BicubicSuperResolution((1, 8, 8), 2, antialias="no"), "antialias: .* got 'no'"),
    ],
)
def test_bad_parameters_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
