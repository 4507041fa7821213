"""What a scan's samples are samples of: exact posteriors, and a prior that acts on each image by itself."""

import pytest
import torch
from deepinv.models import Denoiser
from mri_scans import noise

import operators
from invdiff.config import build_sampler
from invdiff.mri.scan_prior import TURNS, ScanPrior, turned
from invdiff.priors.analytic import GaussianPrior
from invdiff.priors.spectrum import ErrorSpectrum
from invdiff.problem import Problem
from invdiff.restoration import restore
from operators import mri

SIZE = (12, 10)


def smooth_power(size=SIZE, total=0.04):
    """A spectrum that falls with frequency, (H, W // 2 + 1)."""
    fy, fx = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])
    return total / (0.02 + fy**2 + fx**2) / 20


def problem(sigma=0.05, sets=1):
    maps = mri.birdcage_maps(SIZE, 4)[:, None]
    if sets == 2:
        maps = torch.cat([maps, maps.flip(2)], 1) / 2**0.5
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, ::2] = mask[:, 4:7] = True
    physics = operators.MultiCoilMRI(mask, maps)
    x = torch.randn(1, 2 * sets, *SIZE, generator=torch.Generator().manual_seed(3)) * 0.3
    y = physics.A(x)
    white = torch.stack([(n := noise(*y.shape[2:], sigma=sigma)).real, n.imag])[None]
    return Problem(physics, y + white * mask, sigma)


@pytest.mark.parametrize("sets", [1, 2])
def test_samples_through_the_scan_prior_have_the_exact_posterior_mean_and_spread(sets):
    posed, count = problem(sets=sets), 300
    prior = GaussianPrior.stationary(torch.zeros(2, *SIZE), smooth_power())
    whole = GaussianPrior.stationary(torch.zeros(2 * sets, *SIZE), smooth_power())       # the same, of all channels at once
    mean, covariance = whole.posterior(posed)
    deviation = covariance.diagonal().sqrt().reshape(mean.shape[1:])
    seen = ScanPrior(prior, torch.ones(1, 2 * sets, *SIZE))

    def off(steps):
        sampler = build_sampler({"name": "moment_matching", "steps": steps, "integrator": {"name": "heun"}})
        samples = restore(posed, seen, sampler, samples=count, batch_size=count).samples[0]
        return ((samples.mean(0) - mean[0]) / deviation).square().mean().sqrt(), (samples.std(0) / deviation).mean()

    error, spread = off(40)
    assert error < 1.5 * count**-0.5                      # that of a mean of so many draws; what the steps add is less
    assert spread == pytest.approx(1, abs=0.06)


class Noting(Denoiser):
    """D = x / (1 + sigma) and its mean, and the shapes and levels that it was asked for."""

    channels = 2

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x, sigma, **kwargs):
        self.asked.append((tuple(x.shape), torch.as_tensor(sigma).flatten().tolist()))
        return x / (1 + torch.as_tensor(sigma).reshape(-1, 1, 1, 1)) + x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("sigma", [0.3, torch.tensor(0.3), torch.tensor([0.3]), torch.tensor([0.1, 0.2, 0.3])])
def test_each_set_is_an_image_of_its_own(sigma):
    x, inner = torch.randn(3, 4, 8, 6, dtype=torch.float64), Noting()       # sums are taken in another order after a turn
    got = ScanPrior(inner, torch.ones(1, 4, 8, 6))(x, sigma)
    levels = torch.as_tensor(sigma)
    parts = [inner(x[:, :2], levels), inner(x[:, 2:], levels)]
    assert torch.allclose(got, torch.cat(parts, 1))
    assert inner.asked[0][0] == (6, 2, 8, 6)              # six images of two channels, at their own levels
    changed = x.clone()
    changed[:, 2:] += 1                                   # of the other set, nothing is seen
    assert torch.equal(ScanPrior(inner, torch.ones(1, 4, 8, 6))(changed, sigma)[:, :2], got[:, :2])


def test_it_is_zero_off_the_support_and_the_priors_own_on_it():
    support = (torch.rand(1, 1, 8, 6) > 0.5).float().expand(1, 4, 8, 6)
    x = torch.randn(2, 4, 8, 6)
    got, whole = (ScanPrior(Noting(), s)(x, 0.2) for s in (support, torch.ones(1, 4, 8, 6)))
    assert torch.equal(got, whole * support)
    assert bool((got[support.expand(2, 4, 8, 6) == 0] == 0).all())


def test_sixteen_turns_each_undone_exactly_and_none_like_another():
    x, all_turns = torch.randn(TURNS, 2, 5, 4), torch.arange(TURNS)
    assert torch.equal(turned(turned(x, all_turns), all_turns, back=True), x)
    of_one = turned(x[:1].expand_as(x), all_turns)
    assert torch.equal(of_one[0], x[0])
    assert len({tuple(each.flatten().tolist()) for each in of_one}) == TURNS
    assert torch.equal(of_one[9], mri.to_channels(mri.to_complex(x[:1].flip(-1)) * 1j)[0])
    assert torch.equal(of_one[6], mri.to_channels(-mri.to_complex(x[:1]).conj())[0])


def test_what_a_network_always_draws_cancels_over_the_steps():
    class Drawing(Noting):
        def forward(self, x, sigma, **kwargs):
            return x + error

    error, x, levels = torch.randn(2, 8, 6), torch.randn(1, 2, 8, 6), torch.logspace(-2, 1, 30)
    prior = ScanPrior(Drawing(), torch.ones(1, 2, 8, 6))
    left = torch.cat([prior(x, float(sigma)) for sigma in levels]) - x
    assert torch.allclose(left.square().sum((1, 2, 3)), error.square().sum(), rtol=1e-4)        # at each of them, all of it
    assert left.mean(0).norm() < 2 * len(levels) ** -0.5 * error.norm()                         # as of so many random turns
    assert torch.equal(prior(x, 0.3), prior(torch.cat([x, x + 1]), 0.3)[:1])                    # and alone as in company


def test_the_spectrum_is_the_same_for_every_set():
    class Measured(Noting):
        def error_spectrum(self, channels):
            assert channels == 2
            return ErrorSpectrum(torch.tensor([0.1, 1.0]), torch.tensor([0.0, 0.5]), torch.rand(2, 2, 2), "measured")

    inner = Measured()
    spectrum = ScanPrior(inner, torch.ones(1, 6, 8, 6)).error_spectrum(6)
    at = spectrum.at(0.3, (8, 6))
    assert at.shape == (6, 8, 4)
    assert torch.equal(at[:2], at[2:4])
    assert torch.equal(at[:2], at[4:])
    assert ScanPrior(inner, torch.ones(1, 2, 8, 6)).error_spectrum(2).power.shape == (2, 2, 2)
    assert ScanPrior(Noting(), torch.ones(1, 4, 8, 6)).error_spectrum(4) is None


def test_a_prior_of_photographs_is_refused():
    inner = Noting()
    inner.channels = 3
    with pytest.raises(ValueError, match="2 channels, got 3"):
        ScanPrior(inner, torch.ones(1, 2, 8, 6))
