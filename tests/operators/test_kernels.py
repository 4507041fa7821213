"""Kernels of blur by their moments, and bad parameters."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from operators import disc_kernel, gaussian_kernel, motion_kernel, uniform_kernel

KERNELS = {
    "gaussian": lambda: gaussian_kernel(1.3),
    "gaussian-pair": lambda: gaussian_kernel((2.0, 0.6)),
    "gaussian-rotated": lambda: gaussian_kernel((2.0, 0.6), 33.0),
    "gaussian-cut": lambda: gaussian_kernel(3.0, size=(4, 7)),
    "gaussian-tiny": lambda: gaussian_kernel(1e-3),
    "motion": motion_kernel,
    "uniform": lambda: uniform_kernel((3, 4)),
    "disc": lambda: disc_kernel(4.2),
    "disc-tiny": lambda: disc_kernel(0.2),
}


def moments(kernel):
    """Centre (2,) relative to (kh // 2, kw // 2), and covariance (2, 2), rows first."""
    weights = kernel.numpy().ravel()
    place = np.stack(np.indices(kernel.shape), -1).reshape(-1, 2) - np.array(kernel.shape) // 2
    centre = weights @ place
    return centre, np.einsum("n,ni,nj->ij", weights, place - centre, place - centre)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_float64_not_negative_and_sum_to_one(name):
    kernel = KERNELS[name]()
    assert kernel.dtype == torch.float64
    assert kernel.min() >= 0
    assert kernel.sum().item() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("angle", [0, 20, 45, 90, 110, -30, 400])
@pytest.mark.parametrize("sigma", [(3.0, 1.2), (1.2, 3.0), (2.0, 2.0)])
def test_a_gaussian_has_the_covariance_that_it_names(sigma, angle):
    a = np.radians(angle)
    axes = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])  # columns: (row, column) of each principal axis
    centre, covariance = moments(gaussian_kernel(sigma, angle))
    np.testing.assert_allclose(centre, 0, atol=1e-12)
    # what lies outside of five standard deviations: 1 - chi2.cdf(25, 2) = 4e-6 of the weight, at 25 variances and more
    np.testing.assert_allclose(covariance, axes @ np.diag(np.square(sigma)) @ axes.T, atol=3e-4 * 9)


def test_a_gaussian_turns_counter_clockwise():
    upright = gaussian_kernel((3.0, 1.0))
    assert upright.shape == (31, 11)
    for angle in (90, -90, 270):
        assert torch.equal(gaussian_kernel((3.0, 1.0), angle), upright.T)
    assert torch.equal(gaussian_kernel((3.0, 1.0), 180), upright)
    wide = gaussian_kernel((6.0, 3.0), size=61)
    turned = ndimage.rotate(wide.numpy(), 30, reshape=False)  # counter-clockwise
    np.testing.assert_allclose(gaussian_kernel((6.0, 3.0), 30, 61), turned, atol=5e-3 * turned.max())
    assert abs(gaussian_kernel((6.0, 3.0), -30, 61).numpy() - turned).max() > 0.2 * turned.max()


def test_a_gaussian_of_one_width_does_not_depend_on_the_angle():
    assert torch.equal(gaussian_kernel(1.7, 33), gaussian_kernel((1.7, 1.7)))
    # and an angle near 90 is near the exact one
    near, exact = gaussian_kernel((2.0, 1.0), 90 - 1e-7, 21), gaussian_kernel((2.0, 1.0), 90, 21)
    torch.testing.assert_close(near, exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [4, (5, 2)])
def test_a_gaussian_of_given_size_is_cut_about_its_centre(size):
    kernel = gaussian_kernel((1.5, 0.8), 20, size)
    height, width = kernel.shape
    assert (height, width) == ((size, size) if isinstance(size, int) else size)
    assert divmod(int(kernel.argmax()), width) == (height // 2, width // 2)


@pytest.mark.parametrize("radius", [0.3, 0.5, 0.9, 1.5, 2.0, 3.7, 8.25])
def test_a_pixel_of_the_disc_weighs_as_much_as_its_area_in_it(radius):
    kernel = disc_kernel(radius)
    reach, fine = kernel.shape[0] // 2, 200
    assert kernel.shape == (2 * reach + 1,) * 2
    assert reach - 0.5 < radius <= max(reach + 0.5, radius if reach == 0 else 0)
    place = (np.arange(fine * kernel.shape[0]) + 0.5) / fine - reach - 0.5
    inside = place[:, None] ** 2 + place**2 < radius**2
    area = inside.reshape(kernel.shape[0], fine, -1, fine).mean((1, 3))
    # midpoints see a boundary of length L in each pixel to about L / fine
    np.testing.assert_allclose(kernel * np.pi * radius**2, area, atol=2 / fine)
    assert abs(kernel.numpy() * np.pi * radius**2 - area).mean() < 0.1 / fine
    full = area == 1
    np.testing.assert_allclose(kernel.numpy()[full], 1 / (np.pi * radius**2), rtol=1e-13)
    torch.testing.assert_close(kernel, kernel.T.flip(0), rtol=0, atol=1e-14)


def test_the_disc_has_the_second_moment_of_a_disc_and_of_its_pixels():
    _, covariance = moments(disc_kernel(6.3))
    # of the disc, plus that of a pixel: the variance of a sum; but the disc is not constant within a pixel of its border
    np.testing.assert_allclose(covariance, (6.3**2 / 4 + 1 / 12) * np.eye(2), atol=0.02)


def test_a_uniform_kernel_is_the_mean():
    assert torch.equal(uniform_kernel((2, 5)), torch.full((2, 5), 0.1, dtype=torch.float64))
    assert uniform_kernel(3).shape == (3, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_kernel(0), r"sigma: expected a number in \(0, inf\), got 0"),
        (lambda: gaussian_kernel((1.0, -1.0)), r"sigma: expected a number in \(0, inf\), got -1.0"),
        (lambda: gaussian_kernel((1.0, 1.0, 1.0)), r"sigma: expected a number or two, \(down, across\), got \(1.0"),
        (lambda: gaussian_kernel("wide"), "sigma: expected a number in .* got 'wide'"),
        (lambda: gaussian_kernel((2.0, 1.0), float("nan")), r"angle: expected a number in .* got nan"),
        (lambda: gaussian_kernel(1.0, size=0), "size: expected an integer >= 1, got 0"),
        (lambda: gaussian_kernel(1.0, size=(3, 2.5)), "size: expected an integer >= 1, got 2.5"),
        (lambda: uniform_kernel((3, 3, 3)), r"size: expected an integer or two, \(kh, kw\), got \(3, 3, 3\)"),
        (lambda: uniform_kernel("9"), "size: expected an integer >= 1, got '9'"),
        (lambda: disc_kernel(0), r"radius: expected a number in \(0, inf\), got 0"),
        (lambda: disc_kernel(float("inf")), r"radius: expected a number in \(0, inf\), got inf"),
        (lambda: motion_kernel(4), "size: expected an odd number of pixels, got 4"),
        (lambda: motion_kernel(5, 2.0), r"intensity: expected a number in \[0, 1\], got 2.0"),
        (lambda: motion_kernel(5, seed=-1), "seed: expected an integer >= 0, got -1"),
    ],
)
def test_bad_parameters_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
