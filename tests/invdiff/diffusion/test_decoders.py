import math

import numpy as np
import pytest
import torch
from scipy import stats

from invdiff.diffusion.decoders import (
    bits_per_dim,
    check_grid,
    dequantise,
    gaussian_decoder,
    grid_decoder,
    histogram_of,
)
from invdiff.diffusion.randomness import Streams
from invdiff.errors import InputError

LEVELS = (torch.arange(256, dtype=torch.float64) / 255).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("mean", [-0.3, 0.0, 0.4001, 1.0, 1.2])
@pytest.mark.parametrize("std", [1e-4, 0.002, 0.05, 3.0])
def test_the_gaussian_decoder_sums_to_one_over_levels(mean, std):
    log_p = gaussian_decoder(LEVELS, torch.full_like(LEVELS, mean), torch.tensor(2 * math.log(std)).double())
    assert bool(log_p.isfinite().all())
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)
    inside = slice(1, 255)
    x = LEVELS.flatten().numpy()[inside]
    law = stats.norm(mean, std)
    mass = np.where(x > mean, law.sf(x - 0.5 / 255) - law.sf(x + 0.5 / 255), law.cdf(x + 0.5 / 255) - law.cdf(x - 0.5 / 255))
    seen = mass > 1e-280
    np.testing.assert_allclose(log_p[inside].numpy()[seen], np.log(mass[seen]), rtol=1e-6, atol=1e-7)


def test_the_gaussian_decoder_has_gradients_everywhere():
    mean = torch.linspace(-1, 2, 256).reshape(-1, 1, 1, 1).requires_grad_()
    log_variance = torch.full((256, 1, 1, 1), -12.0, requires_grad=True)
    gaussian_decoder(LEVELS.float(), mean, log_variance).sum().backward()
    assert bool(mean.grad.isfinite().all())
    assert bool(log_variance.grad.isfinite().all())


@pytest.mark.parametrize("histogram", [None, torch.arange(256)])
@pytest.mark.parametrize(("z", "sigma"), [(0.5003, 0.002), (-0.004, 0.002), (1.01, 0.0005), (0.3, 0.05), (0.2, 2.0)])
def test_the_grid_decoder_is_bayes_rule_for_each_value(z, sigma, histogram):
    got = grid_decoder(LEVELS, torch.full_like(LEVELS, z), sigma, histogram)
    prior = np.ones(256) if histogram is None else histogram.numpy() + 0.5
    log_joint = np.log(prior) + stats.norm(LEVELS.flatten().numpy(), sigma).logpdf(z)
    expected = log_joint - np.logaddexp.reduce(log_joint)
    probable = expected > -20
    np.testing.assert_allclose(got.numpy()[probable], expected[probable], atol=1e-6)
    assert float(got.exp().sum()) == pytest.approx(1, abs=1e-6)


def test_a_histogram_tells_black_from_almost_black():
    x0 = torch.zeros(500, 1, 1, 1)
    z = x0 + 0.002 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    counts = histogram_of(torch.cat([torch.zeros(900), torch.arange(100) / 255]))
    assert counts.sum() == 1000
    assert counts[0] == 901
    flat, told = (float(-grid_decoder(x0, z, 0.002, h).mean() / math.log(2)) for h in (None, counts))
    assert told < 0.05 < 0.3 < flat


def test_dequantised_values_stay_in_their_level_and_are_even_in_it():
    images = (torch.arange(256.0) / 255).reshape(1, 1, 16, 16).expand(50, -1, -1, -1)
    noisy, nats = dequantise(images, Streams(range(50)))
    within = noisy * 256 - (images * 255).round()
    assert float(within.min()) > -1e-4
    assert float(within.max()) < 1 + 1e-4
    assert stats.kstest(within.flatten().numpy(), "uniform").pvalue > 1e-3
    assert nats == pytest.approx(256 * math.log(256))
    # a uniform density has 8 bits a value
    assert float(bits_per_dim(torch.tensor([nats]), images)) == pytest.approx(8)


def test_images_off_the_grid_are_refused():
    check_grid(LEVELS.float())
    for images in (LEVELS.float() + 0.001, 2 * LEVELS - 1, LEVELS * 2, torch.zeros(0, 1, 2, 2), LEVELS[0], LEVELS * math.nan):
        with pytest.raises(InputError, match="images: bits per dimension are of 8-bit values over 255"):
            check_grid(images)
