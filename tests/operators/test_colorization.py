import numpy as np
import pytest
import torch
from deepinv.physics import Decolorize
from PIL import Image

import operators

SIZE = (3, 6, 9)


def test_the_default_is_the_luma_of_rec_601_as_in_pillow_and_deepinv():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    y = operators.Colorization(SIZE)(x)
    pillow = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.abs(y[0, 0].numpy() - pillow).max() < 0.501  # it rounds to whole levels
    torch.testing.assert_close(y, Decolorize()(x), rtol=1e-3, atol=0)  # its weights have four digits


def test_equal_weights_give_the_mean():
    x = torch.rand(2, *SIZE)
    torch.testing.assert_close(operators.Colorization(SIZE, weights=(1 / 3, 1 / 3, 1 / 3))(x), x.mean(1, keepdim=True))


@pytest.mark.parametrize("weights", [(0.299, 0.587, 0.114), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 2.0), (1e-8, 1, 0)])
def test_the_first_coefficient_is_the_measurement_scaled(weights):
    physics = operators.Colorization(SIZE, weights).double()
    x = torch.rand(2, *SIZE, dtype=torch.float64)
    coefficients = physics.V_adjoint(x)
    norm = np.linalg.norm(weights)
    assert physics.singular_values.flatten().tolist() == pytest.approx([norm, 0, 0])
    torch.testing.assert_close(norm * coefficients[:, :1], physics(x), rtol=1e-6, atol=0)
    torch.testing.assert_close(coefficients.square().sum(1), x.square().sum(1))


def test_a_grey_image_comes_back_from_its_mean():
    x = torch.rand(2, 1, 6, 9).expand(2, *SIZE)
    physics = operators.Colorization(SIZE, weights=(1 / 3, 1 / 3, 1 / 3))
    torch.testing.assert_close(physics.A_dagger(physics(x)), x)


@pytest.mark.parametrize(
    ("size", "weights", "message"),
    [
        ((1, 6, 9), (1, 1, 1), r"img_size: expected 3 channels, \(3, H, W\), got \(1, 6, 9\)"),
        (SIZE, (1, 1), r"weights: expected three finite numbers, not all zero, got \(1, 1\)"),
        (SIZE, (0, 0, 0), "weights: expected three"),
        (SIZE, (1, float("nan"), 1), "weights: expected three"),
        (SIZE, ("a", "b", "c"), "weights: expected three"),
        (SIZE, 1.0, "weights: expected three finite numbers, not all zero, got 1.0"),
    ],
)
def test_bad_arguments_are_refused(size, weights, message):
    with pytest.raises(ValueError, match=message):
        operators.Colorization(size, weights)
