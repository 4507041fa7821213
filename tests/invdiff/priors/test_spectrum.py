import json
import math

import pytest
import torch
from deepinv.models import Denoiser

from invdiff.priors.analytic import GaussianPrior
from invdiff.priors.spectrum import (
    ErrorSpectrum,
    measure_spectrum,
    model_spectrum,
    radial_spectrum,
    rotate_colours,
    rotate_colours_back,
)


def radius(height, width):
    return (torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width)[None].square()).sqrt()


def coloured(power, count, size, generator):
    """Stationary fields (count, 1, H, W) of spectrum `power` (H, W // 2 + 1)."""
    return torch.fft.irfft2(power.sqrt() * torch.fft.rfft2(torch.randn(count, 1, *size, generator=generator)), s=size)


@pytest.mark.parametrize("size", [(32, 32), (33, 24)])
@pytest.mark.parametrize("s", [0.1, 3.0])
def test_white_noise_is_flat_at_its_variance(size, s):
    """A ring of m frequencies over n fields has a relative error of about sqrt(2 w / (m n)); w ~ 2.3 for the window."""
    count, bins = 400, 8
    frequencies, power = radial_spectrum(s * torch.randn(count, 2, *size, generator=torch.Generator().manual_seed(0)), bins)
    assert power.shape == (2, len(frequencies))
    assert (frequencies.diff() > 0).all()
    grid = (torch.fft.fftfreq(size[0])[:, None].square() + torch.fft.fftfreq(size[1])[None].square()).sqrt()
    members = torch.bincount((grid / 0.5**0.5 * bins).long().clamp_max(bins - 1).flatten())
    tolerance = 5 * (2 * 2.3 / (count * members)).sqrt()
    assert ((power / s**2 - 1).abs() < tolerance).all()


def test_coloured_noise_keeps_its_spectrum():
    """Smooth over a window's main lobe (2 / 64 cycles a pixel), so that leakage is below the 5 % left to sampling."""
    size = (64, 64)
    power = torch.exp(-(radius(*size) / 0.25).square())
    frequencies, got = radial_spectrum(coloured(power, 100, size, torch.Generator().manual_seed(0)), 16)
    expected = torch.exp(-(frequencies / 0.25).square())
    inside = (frequencies > 0.05) & (frequencies < 0.5)
    assert ((got[0] / expected - 1).abs()[inside] < 0.08).all()


def test_the_spectrum_of_a_complex_error_does_not_depend_on_its_phase():
    real = coloured(1 / (radius(64, 64) + 0.1), 5, (64, 64), torch.Generator().manual_seed(0))
    turned = [torch.cat([math.cos(angle) * real, math.sin(angle) * real], 1) for angle in (0.0, 0.7, math.pi / 2)]
    first, *others = (radial_spectrum(error, 16)[1] for error in turned)
    assert torch.equal(first[0], first[1])
    torch.testing.assert_close(first.sum(0), radial_spectrum(real, 16)[1][0])
    for other in others:
        torch.testing.assert_close(other, first)


def test_the_window_keeps_edges_out_of_high_frequencies():
    ramp = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    frequencies, power = radial_spectrum(ramp, 16)
    assert (power[0, frequencies > 0.2] < 1e-4).all()


def test_measured_error_of_a_wiener_filter_is_its_spectrum():
    """A stationary Gaussian prior errs by sigma^2 S / (S + sigma^2) at each frequency; 16 images, rings of >= 40."""
    size = (24, 24)
    power = (0.02 / (radius(*size) + 0.15)).float()
    prior = GaussianPrior.stationary(torch.full((1, *size), 0.5), power)
    images = list(0.5 + coloured(power, 40, size, torch.Generator().manual_seed(1)))
    sigmas = [0.05, 0.2, 1.0]
    measured = measure_spectrum(prior, images, sigmas, "a test", bins=8)
    assert measured.source == "a test"
    torch.testing.assert_close(measured.sigmas, torch.tensor(sigmas))
    for sigma in sigmas:
        got, exact = measured.at(sigma, size), prior.error_spectrum(1).at(sigma, size)
        middle = (radius(*size) > 0.08) & (radius(*size) < 0.6)
        assert ((got / exact - 1).abs()[0, middle]).mean() < 0.1
        assert float(got.mean() / exact.mean()) == pytest.approx(1, abs=0.1)


def test_measuring_depends_on_the_seed_alone():
    prior = GaussianPrior(torch.zeros(1, 8, 8), torch.eye(64))
    images = list(torch.rand(2, 1, 8, 8))
    one, same, other = (measure_spectrum(prior, images, [0.1, 1.0], "", bins=4, seed=seed).power for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("images", "sigmas"), [([torch.rand(1, 8, 8)], [0.1]), ([], [0.1, 1.0]),
                                                ([torch.rand(1, 8, 8), torch.rand(1, 8, 9)], [0.1, 1.0])])
def test_too_little_to_measure_is_refused(images, sigmas):
    with pytest.raises(ValueError, match="measure_spectrum: expected at least two noise levels and images of one size"):
        measure_spectrum(GaussianPrior(torch.zeros(1, 8, 8), torch.eye(64)), images, sigmas, "")


@pytest.fixture
def spectrum():
    generator = torch.Generator().manual_seed(0)
    sigmas, frequencies = torch.tensor([0.05, 0.2, 1.0]), torch.tensor([0.0, 0.125, 0.25, 0.5, 0.6])
    return ErrorSpectrum(sigmas, frequencies, torch.rand(3, 3, 5, generator=generator) * 0.008 + 1e-4, "made up")


def test_a_knot_is_returned(spectrum):
    for level, sigma in enumerate(spectrum.sigmas.tolist()):
        at = spectrum.at(sigma, (8, 8))
        assert at.shape == (3, 8, 5)
        for knot, (row, column) in enumerate([(0, 0), (0, 1), (2, 0), (4, 0)]):                # k / 8 cycles a pixel
            expected = spectrum.power[level, :, knot].clamp_max(sigma**2)
            torch.testing.assert_close(at[:, row, column], expected, rtol=1e-4, atol=0)


def test_between_knots_it_is_between_them_and_beyond_them_it_is_the_last(spectrum):
    at = spectrum.at(0.1, (16, 16))
    corners = [spectrum.power[l, :, k] for l in (0, 1) for k in (0, 1)]
    assert (at[:, 0, 1] <= torch.stack(corners).amax(0)).all()
    assert (at[:, 0, 1] >= torch.stack(corners).amin(0)).all()
    torch.testing.assert_close(spectrum.at(50.0, (8, 8)), spectrum.at(1.0, (8, 8)))
    torch.testing.assert_close(spectrum.at(1.0, (8, 8))[:, 4, 4], spectrum.power[2, :, -1])    # 0.707 cycles a pixel


def test_it_never_exceeds_the_noise_and_falls_with_it(spectrum):
    for sigma in (1e-4, 1e-3, 0.01, 0.03, 0.2, 10.0):
        at = spectrum.at(sigma, (9, 8))
        assert (at > 0).all()
        assert (at <= sigma**2 * (1 + 1e-5)).all()
    torch.testing.assert_close(spectrum.at(0.025, (8, 8)), spectrum.at(0.05, (8, 8)) / 4)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 5)])
def test_it_is_even_in_frequency(spectrum, size):
    """As the spectrum of a real symmetric filter must be: C(-f) = C(f), so its impulse response is symmetric."""
    at = spectrum.at(0.3, size)
    torch.testing.assert_close(at[:, 1:], at[:, 1:].flip(1))
    response = torch.fft.irfft2(at, s=size)
    torch.testing.assert_close(response, response.flip(1, 2).roll((1, 1), (1, 2)))


def test_round_trip_through_json(spectrum):
    again = ErrorSpectrum.from_dict(json.loads(json.dumps(spectrum.to_dict())))
    for name in ("sigmas", "frequencies", "power"):
        torch.testing.assert_close(getattr(again, name), getattr(spectrum, name), rtol=1e-5, atol=0)
    assert again.source == spectrum.source


def test_colours_are_rotated_by_an_orthonormal_matrix():
    x, y = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(rotate_colours_back(rotate_colours(x)), x)
    torch.testing.assert_close(rotate_colours(rotate_colours_back(x)), x)
    torch.testing.assert_close((rotate_colours(x) * y).sum(), (x * rotate_colours_back(y)).sum(), rtol=1e-4, atol=1e-5)
    grey = rotate_colours(torch.ones(1, 3, 2, 2))
    torch.testing.assert_close(grey[0, :, 0, 0], torch.tensor([3**0.5, 0.0, 0.0]))
    for channels in (1, 2, 4):
        image = torch.randn(1, channels, 2, 2)
        assert torch.equal(rotate_colours(image), image)


def test_the_model_finds_the_amplitude_of_a_natural_spectrum():
    """S = a / (f^2 + f0^2) on three channels of different strength; the error is then the Wiener filter's."""
    size, amplitudes = (64, 64), torch.tensor([4e-4, 1e-4, 2e-5])
    shape = radius(*size).square() + (0.5 / 64) ** 2
    generator = torch.Generator().manual_seed(0)
    opponent = torch.cat([coloured(a / shape, 1, size, generator) for a in amplitudes], 1)
    model = model_spectrum(0.5 + rotate_colours_back(opponent))
    assert "1/f^2" in model.source
    sigma = 100.0                                                        # far above the signal the error is the signal
    (signal,) = model.at(sigma, size)                                   # one image, one spectrum
    ratio = signal * shape / amplitudes[:, None, None]
    middle = (radius(*size) > 0.05) & (radius(*size) < 0.4)
    assert (ratio[:, middle] < 1.6).all()
    assert (ratio[:, middle] > 1 / 1.6).all()
    sigma = 0.02
    wiener = 1 / (1 / sigma**2 + shape / amplitudes[:, None, None])
    assert (model.at(sigma, size)[0][:, middle] / wiener[:, middle]).log().abs().max() < 0.5


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 2)])
def test_a_model_of_a_flat_image_is_finite(size):
    at = model_spectrum(torch.full((1, 1, *size), 0.5)).at(0.1, size)
    assert at.isfinite().all()
    assert (at > 0).all()


def test_measure_spectrum_gives_the_denoiser_its_own_sigma():
    seen = []

    class Spy(Denoiser):
        def forward(self, x, sigma, **kwargs):
            seen.append((float(x.std()), float(sigma)))
            return x

    spectrum = measure_spectrum(Spy(), [torch.zeros(3, 32, 32)] * 4, [0.1, 2.0], "", bins=4)
    assert all(std == pytest.approx(sigma, rel=0.1) for std, sigma in seen)
    torch.testing.assert_close(spectrum.power[1].mean(), torch.tensor(4.0), rtol=0.2, atol=0)


@pytest.mark.parametrize(("key", "values"), [
    ("sigmas", [1.0, 0.1]), ("sigmas", [math.nan, 1.0]), ("sigmas", [0.0, 1.0]), ("sigmas", [-1.0, 1.0]),
    ("sigmas", [1.0, math.inf]), ("sigmas", [[0.1, 1.0]]), ("sigmas", 0.1),
    ("frequencies", [0.5, 0.1]), ("frequencies", [0.1, 0.1]),
    ("frequencies", [math.nan, 0.5]), ("frequencies", [-0.1, 0.5])])
def test_knots_that_do_not_rise_are_refused(key, values):
    known = {"sigmas": [0.1, 1.0], "frequencies": [0.0, 0.5], "power": [[[0.1, 0.1]], [[0.2, 0.2]]], "source": "a test"}
    ErrorSpectrum.from_dict(known)
    with pytest.raises(ValueError, match=r"do not rise|power of"):
        ErrorSpectrum.from_dict({**known, key: values})


def test_what_is_measured_does_not_depend_on_the_callers_modes():
    """The default type, and a denoiser left in training mode, which would drop out."""
    class Half(Denoiser):
        def forward(self, x, sigma, **kwargs):
            return torch.nn.functional.dropout(x / 2, training=self.training)

    images = list(torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)))
    expected = measure_spectrum(Half().eval(), images, (0.1, 1.0), "a test", bins=4)
    torch.set_default_dtype(torch.float64)
    try:
        got = measure_spectrum(Half(), images, (0.1, 1.0), "a test", bins=4)
        plane = ErrorSpectrum.from_dict(got.to_dict()).at(0.3, (12, 12))
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(got.power, expected.power)
    torch.testing.assert_close(got.local.power, expected.local.power, rtol=1e-4, atol=1e-5)
    assert plane.dtype == torch.float32
