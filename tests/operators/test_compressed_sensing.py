import numpy as np
import pytest
import scipy.fft
import torch
from operator_cases import dense, randn
from scipy.linalg import hadamard, svdvals

import operators

SIZES = [(1, 1), (4, 8), (16, 16), (16, 32), (6, 10), (7, 9), (12, 20), (13, 1)]


def transform_of(kind, n):
    """T (n, n), by SciPy."""
    two = n & -n if kind is operators.CompressedSensing else 1
    return np.kron(hadamard(two) / two**0.5, scipy.fft.dct(np.eye(n // two), axis=0, norm="ortho"))


@pytest.mark.parametrize("kind", [operators.CompressedSensing, operators.DCTSensing])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_it_is_the_product_of_its_four_matrices(kind, height, width):
    n = height * width
    physics = kind((1, height, width), rate=0.6, seed=5).double()
    rng = np.random.default_rng(5)
    shuffle = np.eye(n)[rng.permutation(n)]
    signs = np.diag(rng.choice([-1.0, 1.0], n))
    m = round(0.6 * n)
    kept = np.sort(rng.permutation(n)[:m])
    t = transform_of(kind, n)
    np.testing.assert_allclose(t @ t.T, np.eye(n), atol=1e-12)
    expected = t[kept] @ signs @ shuffle
    assert physics.measurement_size == (1, m)
    np.testing.assert_allclose(dense(physics.A, physics.img_size).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(dense(physics.V, physics.img_size).numpy(), (t @ signs @ shuffle).T, atol=1e-12)
    assert torch.equal(physics.singular_values.flatten().nonzero().flatten(), torch.from_numpy(kept))


@pytest.mark.parametrize("kind", [operators.CompressedSensing, operators.DCTSensing])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 60), (63, 65)])
def test_no_image_hides_from_the_measurements(kind, height, width):
    """The energy of y is that of x by m / n; a transform without the random signs sees nothing of some of these."""
    rows, columns = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    pixel = torch.zeros(height, width, dtype=torch.float64)
    pixel[3, 4] = 1
    images = [pixel, pixel + 1, torch.cos(torch.pi * (rows + 0.5) * 5 / height).expand_as(pixel), (-1.0) ** (rows + columns)]
    x = torch.stack(images)[:, None]
    n, m = height * width, round(0.25 * height * width)
    for seed in range(5):
        physics = kind((1, height, width), rate=0.25, seed=seed).double()
        gain = physics.A(x).square().sum((1, 2)) / x.square().sum((1, 2, 3))
        # m of about n normals, without replacement; six standard deviations
        assert (gain * n / m - 1).abs().max() < 6 * (2 * (1 - m / n) / m) ** 0.5
        # and no coefficient stands out: the largest of n normals of variance 1 / n
        peak = physics.V_adjoint(x).square().amax((1, 2, 3)) / x.square().sum((1, 2, 3))
        assert peak.max() < 2 * np.log(n * 1e6) / n


@pytest.mark.parametrize("kind", [operators.CompressedSensing, operators.DCTSensing, operators.GaussianSensing])
def test_the_operator_follows_its_seed(kind):
    x = torch.rand(1, 2, 6, 10)
    first, same, other = (kind((2, 6, 10), 0.5, seed)(x) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("kind", [operators.CompressedSensing, operators.DCTSensing, operators.GaussianSensing])
def test_it_is_differentiable(kind):
    physics = kind((2, 4, 6), 0.5).double()
    x, y = randn(2, 2, 4, 6).requires_grad_(), randn(2, *physics.measurement_size).requires_grad_()
    for function in (physics.A, physics.V, physics.V_adjoint, physics.U):
        assert torch.autograd.gradcheck(function, x)
    for function in (physics.A_adjoint, physics.A_dagger, physics.U_adjoint):
        assert torch.autograd.gradcheck(function, y)


def test_any_leading_dimensions_and_an_empty_batch():
    physics = operators.CompressedSensing((2, 16, 16))
    x = torch.rand(3, 4, 2, 16, 16)
    torch.testing.assert_close(physics(x)[1, 2], physics(x[1, 2][None])[0])
    assert physics(x[:0, 0]).shape == (0, 2, 64)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_the_gaussian_matrix_has_unit_columns_on_average_and_its_svd_is_lapacks(rate):
    physics = operators.GaussianSensing((2, 20, 15), rate, seed=3).double()
    m, n = round(rate * 300), 300
    matrix = physics.matrix.numpy()
    assert matrix.shape == (m, n)
    z = matrix.ravel() * m**0.5
    assert abs(z.mean()) < 5 / (m * n) ** 0.5
    assert abs(z.var() - 1) < 5 * (2 / (m * n)) ** 0.5
    assert abs((z**4).mean() - 3) < 5 * (96 / (m * n)) ** 0.5  # as of a normal
    np.testing.assert_allclose(physics.singular_values.flatten()[:m].numpy(), svdvals(matrix), rtol=1e-10)
    x = randn(2, 2, 20, 15)
    torch.testing.assert_close(physics.V(physics.V_adjoint(x)), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(physics.U(physics.mask * physics.V_adjoint(x)), physics.A(x), rtol=0, atol=1e-12)
    y = physics.A(x)
    torch.testing.assert_close(physics.A(physics.A_dagger(y)), y, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: operators.CompressedSensing((1, 8, 8), rate=0), r"rate: expected a number in \(0, 1\], got 0"),
        (lambda: operators.CompressedSensing((1, 8, 8), rate=1.1), "rate: .* got 1.1"),
        (lambda: operators.DCTSensing((1, 8, 8), rate=float("nan")), "rate: .* got nan"),
        (lambda: operators.DCTSensing((1, 8, 8), rate=1e-3), "rate: expected at least one measurement of 8 x 8"),
        (lambda: operators.GaussianSensing((1, 8, 8), rate=1e-3), "rate: expected at least one measurement of 8 x 8"),
        (lambda: operators.CompressedSensing((1, 8, 8), seed=-1), "seed: expected an integer >= 0, got -1"),
        (lambda: operators.GaussianSensing((1, 8, 8), seed=0.5), "seed: expected an integer >= 0, got 0.5"),
        (
            lambda: operators.GaussianSensing((3, 256, 256)),
            r"img_size: expected a dense .* got 16384 x 65536 for \(H, W\) = \(256, 256\) .*; CompressedSensing stores",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
