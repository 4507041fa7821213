"""What a foreign denoiser does not know, and how units are converted."""

import pytest
import torch

from invdiff.priors.foreign.adapter import BySigma, ForeignDenoiser


def wiener(power, mean):
    """The exact denoiser of white Gaussian images, mean and variance given in its own units."""
    def denoise(x, sigma):
        s = sigma.reshape(-1, 1, 1, 1).square()
        return mean + (x - mean) * power / (power + s)
    return denoise


def prior(model=None, stride=1, **card):
    return ForeignDenoiser(model or wiener(0.04, 0.4), {"name": "test", "channels": 3, **card}, stride)


def test_sigma_is_a_number_a_scalar_or_a_batch():
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(prior()(x, 0.3), prior()(x, torch.tensor(0.3)))
    mixed = prior()(x, torch.tensor([0.3, 1.5]))
    torch.testing.assert_close(mixed[0], prior()(x, 0.3)[0])
    torch.testing.assert_close(mixed[1], prior()(x, 1.5)[1])


@pytest.mark.parametrize("size", [(16, 16), (9, 14), (3, 5), (1, 1)])
def test_any_size_is_padded_to_the_stride(size):
    seen = []

    def model(x, sigma):
        seen.append(x.shape[-2:])
        return x / 2

    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(prior(model, stride=8)(x, 0.3), x / 2)
    assert all(n % 8 == 0 for n in seen[0])


def test_grey_is_the_mean_over_the_channels_of_the_repeated_image():
    def model(x, sigma):
        return x * torch.tensor([0.0, 1.0, 3.5]).reshape(3, 1, 1)

    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(prior(model)(x, 0.1), 1.5 * x)


@pytest.mark.parametrize(("channels", "given"), [(3, 2), (1, 3)])
def test_wrong_channels_are_refused(channels, given):
    with pytest.raises(ValueError, match=f"x: expected {channels} channels, as test has"):
        prior(channels=channels)(torch.rand(1, given, 8, 8), 0.1)


def test_an_output_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="test: expected a denoiser that returns x's shape"):
        prior(lambda x, sigma: x[..., :4])(torch.rand(1, 3, 8, 8), 0.1)
    with pytest.raises(ValueError, match="got tuple"):
        prior(lambda x, sigma: (x, x))(torch.rand(1, 3, 8, 8), 0.1)


def test_noise_below_the_range_holds_the_score():
    """D(x, s) - x = (s / low)^2 (D(x, low) - x); nothing happens without noise."""
    x = torch.rand(1, 3, 8, 8)
    limited, exact = prior(sigma_range=[0.1, 1.0]), prior()
    torch.testing.assert_close(limited(x, 0.05) - x, (exact(x, 0.1) - x) / 4)
    assert torch.equal(limited(x, 0.0), x)
    torch.testing.assert_close(limited(x, 0.001), exact(x, 0.001), rtol=0, atol=1e-5)


def test_noise_above_the_range_is_brought_down_to_it():
    """The model sees noise of its highest level around a flatter image, never a stronger one."""
    seen = []

    def model(x, sigma):
        seen.append((float(x.std()), float(sigma)))
        return x

    prior(model, sigma_range=[0.0, 0.5])(0.5 + 20 * torch.randn(1, 3, 64, 64), 20.0)
    assert seen[0][1] == 0.5
    assert seen[0][0] == pytest.approx(0.5, rel=0.05)


def test_inside_the_range_nothing_is_changed():
    x = torch.rand(2, 3, 8, 8)
    for sigma in (0.1, 0.3, 1.0):
        torch.testing.assert_close(prior(sigma_range=[0.1, 1.0])(x, sigma), prior()(x, sigma), rtol=0, atol=1e-7)


def test_a_gradient_passes():
    x = torch.rand(1, 3, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(prior(stride=4)(x, 0.2).sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, 0.5))


def test_sigma_goes_to_those_who_take_it_and_extras_follow_to_the_device():
    class Blind(torch.nn.Module):
        def forward(self, x):
            return x / 2

    class Third(torch.nn.Module):
        def forward(self, x, physics=None, sigma=None, labels=None):
            return x * sigma.reshape(-1, 1, 1, 1) + labels

    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(BySigma(Blind())(x, torch.ones(2)), x / 2)
    wrapped = BySigma(Third(), labels=torch.tensor([7.0])).double()
    assert wrapped(x, torch.ones(2)).dtype == torch.float64
    torch.testing.assert_close(wrapped(x, torch.tensor([2.0, 3.0]))[1], 3 * x[1].double() + 7)


def test_a_spectrum_on_the_card_answers_for_its_channels_only():
    spectrum = {"sigmas": [0.1, 1.0], "frequencies": [0.0, 0.5], "power": [[[0.01, 0.02]] * 3, [[0.3, 0.4]] * 3], "source": "x"}
    known = prior(spectrum=spectrum)
    assert known.error_spectrum(3).source == "x"
    assert known.error_spectrum(1) is None
    assert known.error_spectrum(2) is None
    assert prior().error_spectrum(3) is None
