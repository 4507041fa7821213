"""The scale of the error's covariance by the misfit to the data."""

import pytest
import torch
from toys import KERNEL

import operators
from invdiff.posterior import MomentMatching
from invdiff.posterior.covariance import StationaryCovariance
from invdiff.posterior.misfit import Surplus
from invdiff.priors.analytic import GaussianPrior
from invdiff.priors.spectrum import ErrorSpectrum
from invdiff.problem import simulate

SIZE = (1, 48, 40)
MAKE = {
    "denoising": lambda: operators.Denoising(SIZE),
    "blur": lambda: operators.Blur(SIZE, KERNEL),
    "super-resolution": lambda: operators.SuperResolution(SIZE, 2),
    "inpainting": lambda: operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.5)),
    "sensing": lambda: operators.CompressedSensing(SIZE, 0.25),
}


def spectrum_of(scale=1.0):
    fy, fx = torch.fft.fftfreq(SIZE[1])[:, None], torch.fft.rfftfreq(SIZE[2])[None]
    return scale * (0.002 / (fy.square() + 2 * fx.square() + 0.05) + 0.001)[None]


def residuals(operator, scale, count=20, sigma_y=0.05):
    """y - A D of `count` images whose errors have `scale` times the spectrum's power."""
    generator = torch.Generator().manual_seed(0)
    error = StationaryCovariance(spectrum_of(scale).sqrt(), SIZE[1:])(torch.randn(count, *SIZE, generator=generator))
    problem = simulate(MAKE[operator](), error, sigma_y, seed=1)
    return problem, problem.y


@pytest.mark.parametrize("operator", MAKE)
def test_errors_as_they_are_expected_are_not_scaled(operator):
    problem, r = residuals(operator, 1.0)
    assert (Surplus(problem)(spectrum_of(), r) == 1).all()
    assert (Surplus(problem)(spectrum_of(), 0.3 * r) == 1).all()


@pytest.mark.parametrize("operator", MAKE)
def test_errors_that_are_larger_scale_it_to_their_size(operator):
    """By less than they are, for the margin of chance."""
    problem, r = residuals(operator, 16.0)
    factor = Surplus(problem)(spectrum_of(), r)
    assert factor.shape == (20, 1, 1, 1)
    assert 16 * 0.4 < float(factor.mean()) < 16
    torch.testing.assert_close(Surplus(problem)(spectrum_of().expand(20, -1, -1, -1), r), factor)      # one for each image
    for item in (0, 7):         # each measurement by itself
        alone = Surplus(problem.rows(torch.tensor([item])))(spectrum_of(), r[[item]])
        torch.testing.assert_close(alone[0], factor[item])


@pytest.mark.parametrize("operator", MAKE)
def test_traces_are_those_of_the_operator(operator):
    """By many random images, of which one image's |A C^1/2 z|^2 is a draw."""
    problem, r = residuals(operator, 1.0, count=400, sigma_y=0.0)
    squares = r.square().flatten(1).sum(1)
    trace = Surplus(problem.rows(torch.tensor([0])))._trace(spectrum_of())
    exact = operator in ("denoising", "blur", "inpainting", "sensing")
    error = squares.std() * (4 / 20 if exact else 4)        # four standard errors of the mean, or the spread of a single draw
    assert abs(float(trace) - float(squares.mean())) < float(error)


class Underrated(GaussianPrior):
    """Says of its errors that they are a quarter as large as they are, as a card does for a hard image."""

    def error_spectrum(self, channels):
        levels = torch.logspace(-2, 1, 13)
        variance = float(self.power.mean())
        power = torch.stack([(s**2 * variance / (variance + s**2)).expand(1, 2) for s in levels])
        return ErrorSpectrum(levels, torch.tensor([0.0, 0.7]), power / 16, "measured")


def test_samples_of_a_hard_image_leave_what_noise_leaves(monkeypatch):
    """Without the scale the data have too little weight, and the residual is too large."""
    prior = Underrated.stationary(torch.full(SIZE, 0.5), torch.full((SIZE[1], SIZE[2] // 2 + 1), 0.04))
    generator = torch.Generator().manual_seed(0)
    truth = 0.5 + 0.2 * torch.randn(1, *SIZE, generator=generator)
    problem = simulate(MAKE["denoising"](), truth, 0.05, seed=0)

    def level():
        *_, last = MomentMatching().steps(prior, problem, [0, 1])
        return float((problem.y - last.x0).square().mean().sqrt()) / 0.05

    scaled = level()
    monkeypatch.setattr("invdiff.posterior.guidance.Surplus", lambda problem: None)
    assert abs(scaled - 1) < 0.06 < 0.12 < level() - 1
