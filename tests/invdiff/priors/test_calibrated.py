"""A spectrum measured on request, for a denoiser that has no card."""

import torch
from deepinv.models import MedianFilter

import operators
from invdiff.posterior import MomentMatching
from invdiff.priors import calibrate
from invdiff.priors.spectrum import measure_spectrum
from invdiff.problem import simulate
from invdiff.restoration import restore


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
    assert torch.equal(measured.error_spectrum(3).power, expected.power)
    assert measured.error_spectrum(1) is None
