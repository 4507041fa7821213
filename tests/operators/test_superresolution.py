import numpy as np
import pytest
import torch
from skimage.measure import block_reduce
from skimage.transform import downscale_local_mean

import operators


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
def test_bad_factors_are_refused(size, factor, message):
    with pytest.raises(ValueError, match=message):
        operators.SuperResolution(size, factor)
