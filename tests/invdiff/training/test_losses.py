"""Every prediction target is the same denoiser under another weight; the learned weight tends to the loss."""

import math

import numpy as np
import pytest
import torch

from invdiff.diffusion.elbo import vlb_terms
from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.priors.checkpoint import save_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.unet import UNet
from invdiff.training.beginning import build_denoiser
from invdiff.training.export import make_card
from invdiff.training.loop import Trainer
from invdiff.training.losses import (
    EDMLoss,
    FlowLoss,
    ImageLoss,
    MinSNRLoss,
    NoiseLoss,
    UncertaintyLoss,
    VelocityLoss,
)
from invdiff.training.noise_levels import LogNormal, LogUniform
from invdiff.training.settings import TrainSettings
from invdiff.training.whole import WholeImages


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x0, noise, estimate = torch.rand(5, 3, 8, 8, generator=generator), *torch.randn(2, 5, 3, 8, 8, generator=generator)
    return x0, noise, torch.tensor([0.01, 0.1, 0.3, 1.0, 9.0]), estimate


def per_item(error):
    return error.square().mean((1, 2, 3))


def in_the_vp_frame(sigma, unit):
    """alpha and s of z = alpha x0 + s n, alpha^2 + s^2 = 1, for images in units of `unit`: sigma = unit s / alpha."""
    angle = torch.atan(sigma / unit).view(-1, 1, 1, 1)
    return angle.cos(), angle.sin()


def test_the_noise_loss_is_the_squared_error_of_the_noise_estimate(batch):
    x0, noise, sigma, estimate = batch
    s = sigma.view(-1, 1, 1, 1)
    predicted = (x0 + s * noise - estimate) / s
    torch.testing.assert_close(NoiseLoss(kind="eps").weight(sigma, 0.25) * per_item(estimate - x0), per_item(predicted - noise),
                               rtol=1e-3, atol=0)


@pytest.mark.parametrize("unit", [0.25, 0.5])
def test_the_velocity_loss_is_the_squared_error_of_v(batch, unit):
    x0, noise, sigma, estimate = batch
    alpha, s = in_the_vp_frame(sigma, unit)
    z = alpha * x0 / unit + s * noise
    truth, predicted = alpha * noise - s * x0 / unit, (alpha * z - estimate / unit) / s
    torch.testing.assert_close(VelocityLoss(kind="v", unit=unit).weight(sigma, 0.25) * per_item(estimate - x0),
                               per_item(predicted - truth), rtol=1e-3, atol=0)


@pytest.mark.parametrize("unit", [0.25, 0.5])
def test_the_flow_loss_is_the_squared_error_of_the_velocity(batch, unit):
    x0, noise, sigma, estimate = batch
    s = sigma.view(-1, 1, 1, 1)
    t = s / (s + unit)
    z = (1 - t) * x0 / unit + t * noise                     # x = x0 + sigma n is z unit / (1 - t)
    truth = noise - x0 / unit
    predicted = (z - estimate / unit) / t                   # as n - x0 / unit = (z - x0 / unit) / t
    torch.testing.assert_close(FlowLoss(kind="flow", unit=unit).weight(sigma, 0.25) * per_item(estimate - x0),
                               per_item(predicted - truth), rtol=1e-3, atol=0)


def test_the_noise_loss_is_sigma_squared_times_that_of_the_score(batch):
    """NCSN's denoising score matching with lambda = sigma^2 (Song & Ermon 2019, Eqs. 5 and 6)."""
    x0, noise, sigma, estimate = batch
    s = sigma.view(-1, 1, 1, 1)
    score, truth = (estimate - (x0 + s * noise)) / s**2, -noise / s
    torch.testing.assert_close(NoiseLoss(kind="eps").weight(sigma, 0.25) * per_item(estimate - x0),
                               sigma**2 * per_item(score - truth), rtol=1e-3, atol=0)


def test_velocity_in_units_of_the_data_is_edm(batch):
    sigma = batch[2]
    torch.testing.assert_close(VelocityLoss(kind="v", unit=0.25).weight(sigma, 0.25), EDMLoss().weight(sigma, 0.25))


def test_the_loss_is_the_error_of_the_network_on_its_own_target():
    """lambda |D - x0|^2 = |F - (x0 - c_skip x) / c_out|^2, around the centre (EDM, Eq. 8)."""
    torch.manual_seed(0)
    denoiser = EDMDenoiser(UNet(3, (8, 8), (1, 1), 16)).requires_grad_(False)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x0, noise, sigma = torch.rand(3, 3, 8, 8), torch.randn(3, 3, 8, 8), torch.tensor([0.01, 0.3, 10.0])
    s, d = sigma.reshape(-1, 1, 1, 1).double(), denoiser.sigma_data
    z0, total = x0.double() - denoiser.centre, s.square() + d**2
    z = z0 + s * noise
    network = denoiser.network((z / total.sqrt()).float(), sigma.log())
    target = (z0 - d**2 / total * z) / (s * d / total.sqrt())
    expected = (network - target).square().mean(dim=(1, 2, 3))
    minimised, got = EDMLoss().objective(denoiser, LogNormal())(x0, noise, sigma)
    assert got.shape == (3,)
    assert torch.equal(minimised, got)
    torch.testing.assert_close(got.double(), expected, rtol=2e-3, atol=0)


def test_a_silent_network_has_a_loss_of_one_at_every_level():
    """For white x0 of standard deviation sigma_data the target has unit variance, whatever sigma is."""
    torch.manual_seed(0)
    sigma = torch.tensor([0.01, 0.25, 5.0])
    x0, noise = 0.5 + 0.25 * torch.randn(3, 3, 64, 64), torch.randn(3, 3, 64, 64)
    untrained = EDMDenoiser(UNet(3, (4, 4), (1, 1), 16)).requires_grad_(False)
    loss = EDMLoss().objective(untrained, LogNormal())(x0, noise, sigma)[1]
    torch.testing.assert_close(loss, torch.ones(3), atol=4 * (2 / x0[0].numel()) ** 0.5, rtol=0)


def test_min_snr_is_the_smaller_of_snr_and_gamma_on_the_image_and_the_noise_loss_above():
    sigma = torch.logspace(-3, 2, 101)
    alpha, s = in_the_vp_frame(sigma, 0.5)
    snr = (alpha / s).square().flatten()
    got = MinSNRLoss(kind="min_snr", gamma=5.0).weight(sigma, 0.25)
    torch.testing.assert_close(got, torch.minimum(snr, torch.tensor(5.0)) * ImageLoss(kind="x0").weight(sigma, 0.25) / 0.25)
    high = sigma >= 0.5 / 5**0.5
    torch.testing.assert_close(got[high], NoiseLoss(kind="eps").weight(sigma, 0.25)[high])
    assert got[~high].unique().numel() == 1


def test_the_learned_uncertainty_tends_to_the_log_of_the_loss():
    """Losses e^f(sigma) times noise of mean one: exp(u) is their mean, within a few per cent after some steps."""
    head = UncertaintyLoss(kind="uncertainty", features=16).head()
    assert torch.equal(head(torch.tensor([0.01, 3.0])), torch.zeros(2))
    generator = torch.Generator().manual_seed(0)

    def expected(sigma):
        return 0.3 + 0.2 * sigma.log().sin()

    optimiser = torch.optim.Adam(head.parameters(), 0.02)
    for step in range(1500):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / 1500)
        sigma = torch.exp(6 * torch.rand(256, generator=generator) - 4)
        losses = expected(sigma) * -torch.rand(256, generator=generator).log()      # exponential, mean one
        u = head(sigma)
        optimiser.zero_grad()
        (losses * (-u).exp() + u).mean().backward()
        optimiser.step()
    sigma = torch.exp(torch.linspace(-3.7, 1.7, 30))
    torch.testing.assert_close(head(sigma).exp(), expected(sigma), rtol=0.12, atol=0)


def test_uncertainty_only_rescales_the_gradient_of_the_denoiser(batch):
    x0, noise, sigma, _ = batch
    denoiser = EDMDenoiser(UNet(3, (4, 4), (1, 1), 16))
    objective = UncertaintyLoss(kind="uncertainty").objective(denoiser, LogNormal())
    torch.nn.init.constant_(objective.head.bias, 2.0)
    minimised, losses = objective(x0, noise, sigma)
    torch.testing.assert_close(minimised, losses / math.exp(2) + 2)
    parameters = list(denoiser.parameters())
    ours = torch.autograd.grad(minimised.sum(), parameters, retain_graph=True)
    plain = torch.autograd.grad(losses.sum(), parameters)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b / math.exp(2))


def small(variance=True, **noise):
    """Settings of a grey network that tells variances, with the hybrid loss."""
    return TrainSettings.model_validate({
        "name": "small", "data": {"path": "nowhere", "patch": [8]}, "precision": "fp32", "loss": {"kind": "hybrid"},
        "network": {"channels": 1, "widths": [8, 8], "depths": [1, 1], "embedding": 16, "variance": variance},
        "noise": {"kind": "linear", "high": 100.0} | noise, "optimiser": {"steps": 4, "batch": 4, "warmup": 1}})


def grey(count=6):
    return WholeImages(list(np.random.default_rng(0).integers(0, 255, (count, 8, 8, 3)).astype(np.uint8)), 1)


def test_the_hybrid_loss_is_the_noise_loss_and_a_share_of_the_bound():
    """Summed over all levels of the chain, it is the bound of `elbo` without its first term."""
    settings = small(steps=20, high=1e9)
    torch.manual_seed(0)
    denoiser = build_denoiser(settings)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    objective, chain = settings.loss.objective(denoiser, settings.noise), settings.noise.bound()
    assert chain.steps == 20
    sigma = chain.sigma(torch.arange(1, 21)).float()
    x0, noise = (torch.randint(0, 256, (1, 1, 8, 8)) / 255).expand(20, -1, -1, -1), torch.randn(20, 1, 8, 8)
    minimised, losses = objective(x0, noise, sigma)
    x = x0 + sigma.view(-1, 1, 1, 1) * noise
    estimate, variance = denoiser.with_variance(x, sigma)
    torch.testing.assert_close(losses, NoiseLoss(kind="eps").objective(denoiser, settings.noise)(x0, noise, sigma)[0])
    terms = [vlb_terms(x0[:1], x[i : i + 1], torch.tensor([i + 1]), estimate[i : i + 1], variance[i : i + 1], chain=chain)
             for i in range(20)]
    torch.testing.assert_close((minimised - losses).mean(), 0.001 * torch.cat(terms).sum().float(), rtol=1e-3, atol=0)


def test_the_bound_trains_the_variance_and_the_noise_loss_the_image():
    settings = small()
    denoiser = build_denoiser(settings)
    objective, head = settings.loss.objective(denoiser, settings.noise), denoiser.network.head
    x0, noise = torch.randint(0, 256, (8, 1, 8, 8)) / 255, torch.randn(8, 1, 8, 8)
    sigma = settings.noise.bound().sigma(torch.tensor([1, 2, 10, 100, 300, 600, 900, 1000])).float()
    minimised, losses = objective(x0, noise, sigma)
    (whole,) = torch.autograd.grad(minimised.sum(), head.bias, retain_graph=True)
    (plain,) = torch.autograd.grad(losses.sum(), head.bias)
    assert whole.isfinite().all()
    torch.testing.assert_close(whole[:4], plain[:4])            # of the image's pixels
    assert (plain[4:] == 0).all()
    assert (whole[4:].abs() > 0).all()


def test_a_prior_that_tells_variances_is_trained_stored_and_used_as_any_other(tmp_path):
    trainer = Trainer(small(), grey())
    for progress in trainer.steps():
        assert math.isfinite(progress.loss)
    save_prior(tmp_path / "small.safetensors", trainer.average, make_card(trainer))
    prior = load_prior(tmp_path / "small.safetensors")
    x = torch.rand(2, 1, 8, 8)
    assert prior(x, 0.3).shape == x.shape
    image, variance = prior.with_variance(x, torch.tensor([0.3, 0.3]))
    assert torch.equal(image, prior(x, 0.3))
    assert variance.shape == x.shape
    assert EDMDenoiser(UNet(1, (4, 4), (1, 1), 16), 1).with_variance(x, torch.ones(2))[1] is None


def test_what_the_hybrid_loss_cannot_train_is_an_input_error():
    with pytest.raises(InputError, match=r"expected noise\.kind linear or cosine, got log_uniform"):
        Trainer(small().model_copy(update={"noise": LogUniform(kind="log_uniform")}), grey())
    with pytest.raises(InputError, match=r"expected a U-Net with network\.variance=true"):
        Trainer(small(variance=False), grey())
