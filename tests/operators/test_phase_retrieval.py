"""Phase retrieval: the model against NumPy, its symmetries, and the estimates to start from."""

import numpy as np
import pytest
import skimage.data
import skimage.transform
import torch

from operators import CodedPhaseRetrieval, PhaseRetrieval


def photograph(side, channels=1):
    image = skimage.transform.resize(skimage.data.astronaut()[:256, 96:352], (side, side), anti_aliasing=True)
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    return x if channels == 3 else x.mean(1, keepdim=True)


def correlation(a, b):
    """Of the images without their means, (B, C)."""
    a, b = (v - v.mean((-2, -1), keepdim=True) for v in (a, b))
    return (a * b).sum((-2, -1)) / (a.square().sum((-2, -1)) * b.square().sum((-2, -1))).sqrt()


@pytest.mark.parametrize("size", [(3, 7, 9), (1, 8, 6), (2, 1, 5)])
@pytest.mark.parametrize("oversampling", [1.0, 1.4, 2.0])
def test_magnitudes_are_numpys(size, oversampling):
    physics = PhaseRetrieval(size, oversampling).to(torch.float64)
    x = torch.randn(2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, height, width = physics.measurement_size
    assert (height, width) == (int(np.ceil(oversampling * size[1])), int(np.ceil(oversampling * size[2])))
    expected = np.abs(np.fft.fftshift(np.fft.fft2(x.numpy(), s=(height, width), axes=(-2, -1), norm="ortho"), (-2, -1)))
    y = physics.A(x)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    torch.testing.assert_close(y.norm(), x.norm())
    torch.testing.assert_close(physics.A(-x), y)
    torch.testing.assert_close(physics.A(x.flip((-2, -1))), y)
    at_zero = physics.A(torch.ones_like(x))[..., height // 2, width // 2]
    torch.testing.assert_close(at_zero, torch.full_like(at_zero, size[1] * size[2] / (height * width) ** 0.5))


def test_the_gradient_is_finite_where_magnitudes_are_zero():
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    physics = PhaseRetrieval((1, 8, 8), 1.0).to(torch.float64)
    assert (physics.A(x) == 0).sum() > 50
    v = torch.ones(1, *physics.measurement_size, dtype=torch.float64)
    torch.testing.assert_close(physics.A_vjp(x, v), torch.full_like(x, 1 / 8))  # that of the mean alone
    for operator in (physics, CodedPhaseRetrieval((1, 8, 8)).to(torch.float64)):
        ones = torch.ones(1, *operator.measurement_size, dtype=torch.float64)
        assert not operator.A_vjp(torch.zeros_like(x), ones).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_estimate_finds_an_image_twice_oversampled_up_to_a_turn(channels):
    x = photograph(32, channels)
    physics = PhaseRetrieval(x.shape[1:]).to(torch.float64)
    y = physics.A(x)
    estimate = physics.A_dagger(y)
    assert estimate.min() >= 0
    assert (physics.A(estimate) - y).norm() < 0.02 * y.norm()
    best = torch.maximum(correlation(estimate, x).min(), correlation(estimate.flip((-2, -1)), x).min())
    assert best > 0.97  # all channels turned alike
    assert (physics.A(physics.A_dagger(y, max_iter=5)) - y).norm() > (physics.A(estimate) - y).norm()
    torch.testing.assert_close(physics.A_dagger(y, x_init=x, max_iter=1), x)
    if channels == 3:
        torch.testing.assert_close(physics.A_dagger(y, x_init=torch.cat([x[:, :1], x[:, 1:].flip((-2, -1))], 1), max_iter=1), x)


def test_the_estimate_bears_noise_and_less_oversampling():
    x = photograph(32)
    for oversampling, bound in ((2.0, 0.05), (1.5, 0.1)):
        physics = PhaseRetrieval(x.shape[1:], oversampling).to(torch.float64)
        y = physics.A(x)
        noisy = y + 0.005 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
        assert (physics.A(physics.A_dagger(noisy)) - y).norm() < bound * y.norm()


def test_coded_patterns_are_numpys_with_four_valued_masks():
    physics = CodedPhaseRetrieval((2, 5, 6), masks=3, seed=4).to(torch.float64)
    masks = physics.masks.numpy()
    assert masks.shape == (3, 5, 6)
    assert set(masks.flatten().tolist()) == {1, 1j, -1, -1j}
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    waves = np.fft.fftshift(np.fft.fft2(x.numpy()[:, :, None] * masks, norm="ortho"), (-2, -1))
    y = physics.A(x)
    np.testing.assert_allclose(y, np.abs(waves).reshape(2, 6, 5, 6), atol=1e-12)
    energy = y.unflatten(1, (2, 3)).square().sum((-2, -1))  # of each pattern: that of the image
    torch.testing.assert_close(energy, x.square().sum((-2, -1))[..., None].expand(-1, -1, 3))


def test_a_seed_is_one_set_of_masks():
    assert torch.equal(CodedPhaseRetrieval((1, 8, 8), seed=3).masks, CodedPhaseRetrieval((3, 8, 8), seed=3).masks)
    assert not torch.equal(CodedPhaseRetrieval((1, 8, 8), seed=3).masks, CodedPhaseRetrieval((1, 8, 8)).masks)


@pytest.mark.parametrize(("masks", "least"), [(3, 0.7), (4, 0.75), (8, 0.85)])
def test_the_spectral_estimate_correlates_and_has_the_right_scale(masks, least):
    x = photograph(48, 3)
    physics = CodedPhaseRetrieval(x.shape[1:], masks).to(torch.float64)
    estimate = physics.spectral_estimate(physics.A(x))
    assert correlation(estimate, x).min() > least
    torch.testing.assert_close(estimate.square().sum((-2, -1)), x.square().sum((-2, -1)))
    torch.testing.assert_close(physics.spectral_estimate(physics.A(-3 * x)), 3 * estimate)


def test_coded_phase_retrieval_recovers_the_image():
    x = photograph(48, 3)
    physics = CodedPhaseRetrieval(x.shape[1:]).to(torch.float64)
    y = physics.A(x)
    torch.testing.assert_close(physics.A_dagger(y), x, rtol=0, atol=1e-4)
    torch.testing.assert_close(physics.A_dagger(y, max_iter=150), x, rtol=0, atol=1e-10)
    torch.testing.assert_close(physics.A_dagger(y, max_iter=0), physics.spectral_estimate(y), rtol=0, atol=0)
    noisy = y + 0.02 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    assert (physics.A_dagger(noisy) - x).std() < 0.02  # four looks at each pixel, with half the noise in the phase


def test_no_light_gives_no_image():
    for physics in (PhaseRetrieval((1, 8, 8)), CodedPhaseRetrieval((1, 8, 8))):
        assert not physics.A_dagger(torch.zeros(1, *physics.measurement_size)).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: PhaseRetrieval((1, 8, 8), 0.9),
        lambda: PhaseRetrieval((1, 8, 8), float("nan")),
        lambda: CodedPhaseRetrieval((1, 8, 8), 0),
        lambda: CodedPhaseRetrieval((1, 8, 8), seed=-1),
        lambda: PhaseRetrieval((1, 8, 8)).A_dagger(torch.ones(1, 1, 16, 16), max_iter=0),
        lambda: PhaseRetrieval((1, 8, 8)).A_dagger(torch.ones(1, 1, 16, 16), x_init=torch.ones(1, 1, 4, 4)),
    ],
)
def test_parameters_are_checked(make):
    with pytest.raises(ValueError, match=r"(oversampling|masks|seed|max_iter|x_init): expected .* got "):
        make()
