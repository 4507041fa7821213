"""The scale of the error's covariance by the misfit to the data."""

import pytest
import torch
from toys import KERNEL

import operators
from invdiff.posterior import MomentMatching
from invdiff.posterior.covariance import StationaryCovariance
from invdiff.posterior.surplus import CHANCE, LARGEST, Surplus
from invdiff.priors.analytic import GaussianPrior
from invdiff.priors.spectrum import ErrorSpectrum
from invdiff.problem import Problem
from invdiff.simulation import simulate

SIZE = (3, 45, 39)
MAKE = {
    "denoising": lambda: operators.Denoising(SIZE),
    "blur": lambda: operators.Blur(SIZE, KERNEL),
    "strong blur": lambda: operators.GaussianBlur(SIZE, sigma=2),
    "super-resolution": lambda: operators.SuperResolution(SIZE, 3),
    "inpainting": lambda: operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.5)),
    "sensing": lambda: operators.CompressedSensing(SIZE, 0.25),
}


def spectrum_of(scale=1.0):
    fy, fx = torch.fft.fftfreq(SIZE[1])[:, None], torch.fft.rfftfreq(SIZE[2])[None]
    grey = 0.002 / (fy.square() + 2 * fx.square() + 0.05) + 0.001
    return scale * torch.stack([grey, grey / 3, grey / 5])


def residuals(operator, scale, count=20, sigma_y=0.05):
    """y - A D of `count` images whose errors have `scale` times the spectrum's power."""
    generator = torch.Generator().manual_seed(0)
    error = StationaryCovariance(spectrum_of(scale).sqrt(), SIZE[1:])(torch.randn(count, *SIZE, generator=generator))
    problem = simulate(MAKE[operator](), error, sigma_y, seed=1)
    return problem, problem.y


@pytest.mark.parametrize("operator", MAKE)
def test_errors_as_they_are_expected_are_not_scaled(operator):
    """Beyond three standard errors is one in some hundreds, and little beyond."""
    problem, r = residuals(operator, 1.0, count=400)
    factor = Surplus(problem)(spectrum_of(), r)
    assert float((factor > 1).float().mean()) < 0.01
    assert float(factor.max()) < 1.1
    assert (Surplus(problem)(spectrum_of(), 0.3 * r) == 1).all()


@pytest.mark.parametrize("operator", MAKE)
def test_errors_that_are_larger_scale_it_to_their_size(operator):
    """By less than they are, for what chance may do, which is less with more values."""
    problem, r = residuals(operator, 3.0)
    surplus = Surplus(problem)
    factor = surplus(spectrum_of(), r)
    assert factor.shape == (20, 1, 1, 1)
    trace, error = (float(part.mean()) for part in surplus._trace(spectrum_of()))
    noise = float(surplus.values.mean()) * 0.05**2 / trace
    expected = 3 - CHANCE * error * (1 + noise)
    assert abs(float(factor.mean()) - expected) < error * (3 + noise)           # the trace's own error, and the mean's
    torch.testing.assert_close(surplus(spectrum_of().expand(20, -1, -1, -1), r), factor)      # one for each image
    for item in (0, 7):         # each measurement by itself
        alone = Surplus(problem.rows(torch.tensor([item])))(spectrum_of(), r[[item]])
        torch.testing.assert_close(alone[0], factor[item])
    assert (surplus(spectrum_of(), 100 * r) == LARGEST).all()


def test_what_stands_where_nothing_is_measured_does_not_count():
    """A photo, say, whose missing pixels are not black."""
    prior = Underrated.stationary(torch.full((1, 24, 20), 0.5), torch.full((24, 11), 0.04))
    physics = operators.Inpainting((1, 24, 20), operators.random_mask((1, 24, 20), 0.5))
    truth, noise = torch.randn(2, 1, 1, 24, 20, generator=torch.Generator().manual_seed(0))
    problem = simulate(physics, 0.5 + 0.2 * truth, 0.1)
    photo = Problem(physics, problem.y + 5.0 * ~problem.observed(), 0.1)
    for sigma in (2.0, 0.3, 0.05):
        x = 0.5 + 0.2 * truth + sigma * noise
        found = [MomentMatching().posterior_denoiser(prior, p)(x, sigma) for p in (problem, photo)]
        torch.testing.assert_close(*found)


def test_operators_that_do_not_treat_all_of_an_image_alike_are_left_alone():
    assert all(Surplus.suits(residuals(name, 1.0, count=1)[0]) for name in MAKE)
    for physics in (operators.MRI((2, 8, 6), torch.ones(8, 6)), operators.GaussianSensing((1, 8, 6), rate=0.5),
                    operators.MultiCoilMRI(torch.ones(8, 6), torch.ones(3, 8, 6, dtype=torch.complex64))):
        x = torch.zeros(1, *physics.img_size)
        assert not Surplus.suits(simulate(physics, x, 0.1))


@pytest.mark.parametrize("operator", MAKE)
def test_traces_are_those_of_the_operator(operator):
    """By many random images, of which one image's |A C^1/2 z|^2 is a draw."""
    problem, r = residuals(operator, 1.0, count=400, sigma_y=0.0)
    squares = r.square().flatten(1).sum(1)
    trace, _ = Surplus(problem.rows(torch.tensor([0])))._trace(spectrum_of())
    exact = operator in ("blur", "strong blur", "inpainting", "sensing")
    error = squares.std() * (4 / 20 if exact else 4)        # four standard errors of the mean, or the spread of a single draw
    assert abs(float(trace) - float(squares.mean())) < float(error)


class Underrated(GaussianPrior):
    """Says of its errors that they are half as large as they are, as a card does for a hard image."""

    def error_spectrum(self, channels):
        levels = torch.logspace(-2, 1, 13)
        variance = float(self.power.mean())
        power = torch.stack([(s**2 * variance / (variance + s**2)).expand(1, 2) for s in levels])
        return ErrorSpectrum(levels, torch.tensor([0.0, 0.7]), power / 4, "measured")


def test_samples_of_a_hard_image_leave_what_noise_leaves(monkeypatch):
    """Without the scale the data have too little weight, and the residual is too large."""
    size = (1, 40, 32)
    prior = Underrated.stationary(torch.full(size, 0.5), torch.full((40, 17), 0.04))
    truth = 0.5 + 0.2 * torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    problem = simulate(operators.Denoising(size), truth, 0.05, seed=0)

    def level():
        *_, last = MomentMatching().steps(prior, problem, [0, 1])
        return float((problem.y - last.x0).square().mean().sqrt()) / 0.05

    scaled = level()
    monkeypatch.setattr(Surplus, "suits", lambda problem: False)
    assert abs(scaled - 1) < 0.1 < 0.3 < level() - 1
