"""The width of a blur that its measurement tells, against what is known of Gaussian images."""

import math

import pytest
import torch

import operators
from invdiff import blind
from invdiff.benchmark.exact import draw_gaussian, gaussian_prior
from invdiff.errors import InputError
from invdiff.io.images import save_image
from invdiff.posterior import MomentMatching
from invdiff.resolving import run_config
from invdiff.restoration import Stop

SIZE, NOISE, WIDTH = (1, 36, 32), 0.02, 1.2


def kernel(width):
    return operators.gaussian_kernel(width, size=9)


@pytest.fixture(scope="module")
def blurred():
    """A prior that is known, and a blurred draw of it, with noise."""
    prior = gaussian_prior("stationary", SIZE)
    x = draw_gaussian(prior.mean, prior.cov, 1, torch.Generator().manual_seed(3)).float().reshape(1, *SIZE)
    y = operators.blur(SIZE, kernel(WIDTH), "valid").A(x)
    return prior, y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))


def likelihood(width, prior, y):
    """log N(y; A mean, A C A^T + noise^2), but for a constant."""
    blur = operators.blur(SIZE, kernel(width), "valid").double()
    a = blur.A(torch.eye(math.prod(SIZE), dtype=torch.float64).reshape(-1, *SIZE)).flatten(1).T
    cov = a @ prior.cov.double() @ a.T + NOISE**2 * torch.eye(len(a), dtype=torch.float64)
    off = y.double().flatten() - a @ prior.mean.double().flatten()
    return float(-(torch.logdet(cov) + off @ torch.linalg.solve(cov, off)) / 2)


@pytest.mark.parametrize("width", [0.8, 1.8])
def test_the_slope_is_that_of_the_likelihood(blurred, width):
    """Of 32 samples a mean, whose standard error is some 20 to 40."""
    prior, y = blurred
    sampler = MomentMatching(steps=40, sigma_min=NOISE / 10, covariance="spectral")
    got = blind._slope(kernel, width, y, NOISE, prior, sampler, 32, 0, "cpu")
    exact = (likelihood(1.01 * width, prior, y) - likelihood(width / 1.01, prior, y)) / (2 * math.log(1.01))
    assert got == pytest.approx(exact, abs=100)


def test_it_is_the_most_likely_width(blurred):
    prior, y = blurred
    found = blind.find_width(blind.Range(kernel, 0.5, 2.5, 1.7), y, NOISE, prior)
    widths = torch.linspace(0.8, 1.8, 41)
    exact = float(widths[torch.tensor([likelihood(float(w), prior, y) for w in widths]).argmax()])
    assert found == pytest.approx(exact, rel=0.12)


def test_the_ends_of_the_range_are_said(blurred):
    prior, y = blurred
    assert blind.find_width(blind.Range(kernel, 2.0, 2.5, 1.7), y, NOISE, prior) == 2.0
    assert blind.find_width(blind.Range(kernel, 0.4, 0.6, 1.7), y, NOISE, prior) == 0.6


def test_each_step_of_each_width_is_told(blurred):
    prior, y = blurred
    seen = []
    blind.find_width(blind.Range(kernel, 0.5, 2.5, 1.7), y, NOISE, prior, on_width=seen.append)
    numbers = [trial.number for trial in seen]
    assert [numbers.count(n) for n in range(1, 10)] == 5 * [blind.STEPS] + 4 * [blind.STEPS * blind.SAMPLES]
    assert {trial.count for trial in seen} == {5 + blind.MORE}
    assert [trial.share for trial in seen if trial.number == 2] == pytest.approx([(i + 1) / 15 for i in range(15)])


@pytest.mark.parametrize("at", [1, blind.STEPS, 3 * blind.STEPS + 4])
def test_stop_ends_the_estimate_with_that_step_be_it_the_last_of_a_sample(blurred, at):
    prior, y = blurred
    seen = []

    def stop(trial):
        seen.append(trial)
        if len(seen) == at:
            raise Stop

    with pytest.raises(Stop):
        blind.find_width(blind.Range(kernel, 0.5, 2.5, 1.7), y, NOISE, prior, on_width=stop)
    assert len(seen) == at


def test_it_looks_where_there_is_most_to_see():
    y = torch.full((1, 1, 200, 300), 0.5)
    y[..., 60:180, 160:280] += 0.1 * torch.randn(120, 120, generator=torch.Generator().manual_seed(0))
    y[..., :128, :128] = 1 - 0.01 * torch.rand(128, 128, generator=torch.Generator().manual_seed(0))      # may be clipped
    seen = blind._detailed(y)
    assert seen.shape == (1, 1, 128, 128)
    assert float((seen - 0.5).abs().max()) < 0.5
    assert blind._detailed(y[..., :50, :300]).shape == (1, 1, 50, 128)


def test_a_config_s_auto_is_found_and_told(tmp_path, monkeypatch, prior):
    monkeypatch.chdir(tmp_path)
    save_image("y.png", torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
    asked = {}

    def found(among, y, sigma_y, prior, *, seed, device, on_width):
        asked.update(shape=tuple(y.shape), sigma_y=sigma_y, kernel=among.kernel, seed=seed)
        return 1.25

    monkeypatch.setattr(blind, "find_width", found)
    config = run_config("deblur", None, ["input=y.png", "sigma_y=0.03", "operator.sigma=auto", f"prior={prior}", "seed=4"])
    known, told = blind.with_width(config)
    assert (config.operator["sigma"], known.operator["sigma"]) == ("auto", 1.25)
    assert asked == {"shape": (1, 3, 64, 64), "sigma_y": 0.03, "kernel": operators.gaussian_kernel, "seed": 4}
    assert told["blur"]["found"] == {"sigma": 1.25}
    assert "sigma = 1.25 pixels" in told["blur"]["words"]
    assert blind.with_width(known) == (known, {})
    save_image("small.png", torch.zeros(3, 20, 64))
    small = run_config("deblur", None, ["input=small.png", "sigma_y=0.03", "operator={name: defocus_blur, radius: auto}"])
    with pytest.raises(InputError, match=r"operator\.radius: auto needs an image of 48 x 48 pixels and more"):
        blind.with_width(small)


def test_what_is_said_of_a_width_is_what_was_measured_of_such():
    gaussian, disc = blind.RANGES["gaussian_blur"], blind.RANGES["defocus_blur"]
    for among, width, compressed, said in (
            (gaussian, 1.5, False, blind.USUALLY), (disc, 3.0, False, blind.USUALLY),
            (gaussian, 1.5, True, "is not known, of a JPEG"), (gaussian, 0.5, False, "is not known, of such a width"),
            (disc, 7.0, False, "is not known, of such a width"), (gaussian, 0.4, True, "shows no Gaussian blur wider"),
            (disc, 8.0, False, "It may be wider")):
        assert said in blind._caveat(among, width, compressed)


def test_a_width_is_found_of_a_measurement_alone():
    with pytest.raises(InputError, match=r"operator\.sigma: auto estimates the blur of an --input; to simulate, give a number"):
        run_config("deblur", None, ["operator.sigma=auto"])
    with pytest.raises(InputError, match="size"):
        run_config("deblur", None, ["input=y.png", "sigma_y=0", "operator={name: uniform_blur, size: auto}"])


def test_of_several_maxima_the_highest_within_is_taken():
    tried = [(0.0, -1.0), (1.0, 1.0), (2.0, -1.0), (3.0, 3.0), (4.0, -9.0), (5.0, 1.0), (6.0, -1.0)]
    assert blind._most_likely(tried) == ((3.0, 3.0), (4.0, -9.0))
    assert blind._most_likely([(0.0, -2.0), (1.0, -1.0)]) is None
