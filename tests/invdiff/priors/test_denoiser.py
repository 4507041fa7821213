import pytest
import torch
from deepinv.models import Denoiser
from torch import nn

from invdiff.priors import load_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.unet import UNet


def random_denoiser(channels=3, **settings):
    torch.manual_seed(0)
    network = UNet(channels, widths=(8, 8), depths=(1, 1), embedding=16)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return EDMDenoiser(network, channels, **settings).eval().requires_grad_(False)


class Constant(nn.Module):
    """A network of one output."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, label):
        return torch.full_like(x, self.value)


@pytest.mark.parametrize("size", [(16, 16), (9, 14), (7, 5), (3, 3), (1, 1), (2, 17)])
def test_any_size(size):
    denoiser = random_denoiser()
    assert isinstance(denoiser, Denoiser)
    x = torch.rand(2, 3, *size)
    out = denoiser(x, 0.3)
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert out.isfinite().all()


def test_padding_leaves_what_is_far_from_it_alone():
    denoiser = random_denoiser()
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(denoiser(x[..., :61, :63], 0.3)[..., :24, :24], denoiser(x, 0.3)[..., :24, :24])


def test_sigma_as_float_scalar_and_batch_agree():
    denoiser = random_denoiser()
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(denoiser(x, 0.3), denoiser(x, torch.tensor(0.3)))
    mixed = denoiser(x, torch.tensor([0.3, 1.5]))
    torch.testing.assert_close(mixed[:1], denoiser(x[:1], 0.3), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1:], denoiser(x[1:], 1.5), rtol=1e-4, atol=1e-5)
    assert (mixed[:1] - denoiser(x[:1], 1.5)).abs().max() > 0.01


def test_grey_is_the_mean_over_the_channels_of_the_repeated_image():
    denoiser = random_denoiser()
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(denoiser(x, 0.3), denoiser(x.repeat(1, 3, 1, 1), 0.3).mean(1, keepdim=True))


@pytest.mark.parametrize(("channels", "given"), [(3, 2), (3, 4), (1, 3), (2, 1)])
def test_wrong_channels_are_refused(channels, given):
    with pytest.raises(ValueError, match=rf"x: expected {channels} channels, got \(1, {given}, 8, 8\)"):
        random_denoiser(channels)(torch.rand(1, given, 8, 8), 0.1)


def test_without_noise_the_image_comes_back_whatever_the_network_says():
    """|D - x| <= sigma (|F| + |x - centre| sigma / sigma_data^2): c_skip -> 1 and c_out -> sigma."""
    denoiser = random_denoiser()
    x = torch.rand(1, 3, 16, 16)
    assert (denoiser(x, 0.25) - x).abs().max() > 0.05
    assert (denoiser(x, 1e-4) - x).abs().max() < 1e-3
    torch.testing.assert_close(denoiser(x, 0.0), x, rtol=0, atol=1e-6)
    assert denoiser(x, -0.1).isnan().all()


def test_beyond_its_range_the_network_is_told_the_nearest_level_it_knows():
    told = []

    class Spy(Constant):
        def forward(self, x, log_sigma):
            told.append(log_sigma.exp())
            return super().forward(x, log_sigma)

    denoiser = EDMDenoiser(Spy(2.0), sigma_data=0.2)
    denoiser.card = {"sigma_range": [0.01, 10.0]}
    denoiser(torch.zeros(3, 3, 8, 8), torch.tensor([0.001, 5.0, 300.0]))
    torch.testing.assert_close(told[0], torch.tensor([0.01, 5.0, 10.0]))


@pytest.mark.parametrize("name", ["brain", "fashion", "natural"])
def test_below_its_range_a_shipped_prior_leaves_images_as_they_are(name):
    prior = load_prior(name)
    x = torch.rand(1, prior.channels, 28, 28, generator=torch.Generator().manual_seed(0))
    for sigma in (1e-3, 1e-4, 1e-6):
        assert (prior(x, sigma) - x).abs().max() < 100 * sigma


def test_far_in_the_noise_only_the_network_counts():
    """c_skip -> 0 and c_out -> sigma_data: D -> centre + sigma_data F."""
    denoiser = EDMDenoiser(Constant(2.0), sigma_data=0.2, centre=0.5)
    out = denoiser(0.5 + 1000 * torch.randn(1, 3, 8, 8), 1000.0)
    torch.testing.assert_close(out, torch.full_like(out, 0.5 + 0.2 * 2.0), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("sigma_data", "centre"), [(0.25, 0.5), (0.1, 0.0)])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 4.0])
def test_a_silent_network_gives_the_wiener_estimate(sigma, sigma_data, centre):
    """F = 0 leaves the posterior mean of white x0 ~ N(centre, sigma_data^2)."""
    x = torch.randn(2, 3, 8, 8)
    out = EDMDenoiser(Constant(0.0), sigma_data=sigma_data, centre=centre)(x, sigma)
    torch.testing.assert_close(out, centre + (x - centre) * sigma_data**2 / (sigma_data**2 + sigma**2))


def test_the_network_sees_unit_variance():
    seen = []

    class Spy(nn.Module):
        def forward(self, x, label):
            seen.append((float(x.std()), label))
            return x

    sigmas = torch.tensor([0.01, 0.25, 3.0])
    for sigma in sigmas:
        x0 = 0.5 + 0.25 * torch.randn(4, 3, 64, 64)
        EDMDenoiser(Spy())(x0 + sigma * torch.randn_like(x0), sigma)
    for (std, label), sigma in zip(seen, sigmas, strict=True):
        assert std == pytest.approx(1, rel=0.02)
        torch.testing.assert_close(label, sigma.log().expand(4))
