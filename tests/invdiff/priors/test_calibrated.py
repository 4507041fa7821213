"""A spectrum measured on request, for any denoiser."""

import pytest
import torch
from deepinv.models import Denoiser, MedianFilter

import operators
from invdiff.errors import InputError
from invdiff.posterior import MomentMatching
from invdiff.priors import EDMDenoiser, Guided, LatentPrior, calibrate
from invdiff.priors.autoencoder import Autoencoder
from invdiff.priors.for_deepinv import ForDeepinv
from invdiff.priors.spectrum import measure_spectrum
from invdiff.priors.unet import UNet
from invdiff.restoration import restore
from invdiff.simulation import simulate


def test_the_report_says_whether_the_spectrum_was_measured():
    denoiser = MedianFilter(kernel_size=3)
    images = list(torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    problem = simulate(operators.GaussianBlur((3, 32, 32), sigma=1.0), images[0][None], 0.05)
    sampler = MomentMatching(steps=3)
    measured = calibrate(denoiser, images, sigmas=(0.01, 0.1, 1.0))
    sources = [restore(problem, prior, sampler).report["error_spectrum"] for prior in (denoiser, measured)]
    assert "model" in sources[0]
    assert "measured on 3 images" in sources[1]


def test_a_calibrated_denoiser_is_the_denoiser_and_its_spectrum_the_measured_one():
    denoiser = MedianFilter(kernel_size=3)
    images = list(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    measured = calibrate(denoiser, images, sigmas=(0.01, 0.1, 1.0))
    assert torch.equal(measured(images[0][None], 0.1), denoiser(images[0][None], 0.1))
    expected = measure_spectrum(denoiser, images, (0.01, 0.1, 1.0), "same")
    assert measured.error_spectrum(3).to_dict()["power"] == expected.to_dict()["power"]
    assert measured.error_spectrum(1) is None


class OfClasses(Denoiser):
    """A denoiser of somebody else's, of grey images of two classes."""

    channels, classes = 1, 2

    def __init__(self):
        super().__init__()
        self.card = {"sigma_range": [0.002, 40.0], "classes": ["left", "right"]}

    def forward(self, x, sigma, classes=None):
        return x / 2 if classes is None else x / (3 + classes.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("make", [OfClasses, lambda: EDMDenoiser(UNet(1, (16, 16), (1, 1), 16, classes=2), 1, 0.3, 0.3)],
                         ids=["somebody's", "ours"])
def test_but_for_its_spectrum_a_calibrated_denoiser_is_what_it_was(make):
    prior, x = make(), torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    prior.card["sigma_range"] = [0.002, 40.0]
    measured = calibrate(prior, list(x), sigmas=(0.1, 1.0))
    assert "measured on 2 images" in measured.error_spectrum(1).source
    assert not any("spectrum" in key for key in prior.card)
    assert (measured.channels, measured.classes, measured.card["sigma_range"]) == (1, 2, [0.002, 40.0])
    assert ForDeepinv(measured).lowest == 0.002
    torch.testing.assert_close(Guided(measured, 1)(x, 0.1), prior(x, 0.1, torch.tensor([1, 1])))


def test_a_prior_of_latents_is_not_calibrated_on_images():
    with pytest.raises(InputError, match="of latents"):
        calibrate(LatentPrior(MedianFilter(), Autoencoder(1, 4, (4,), (1,))), [torch.rand(1, 8, 8)] * 2)
