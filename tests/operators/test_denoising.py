import torch
from deepinv.physics import GaussianNoise

import operators


def test_denoising_measures_the_image_itself():
    physics = operators.Denoising((3, 5, 4))
    x = torch.rand(2, 3, 5, 4)
    assert physics.img_size == physics.measurement_size == (3, 5, 4)
    assert torch.equal(physics(x), x)


def test_the_prox_averages_the_measurement_and_the_start():
    physics = operators.Denoising((1, 4, 4), noise_model=GaussianNoise(0.1))
    y, z = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(physics.prox_l2(z, y, 3.0), (3 * y + z) / 4)


def test_the_measurement_does_not_share_memory_with_the_image():
    x = torch.zeros(1, 1, 4, 4)
    operators.Denoising((1, 4, 4))(x).add_(1)
    assert not x.any()
