"""Bits a dimension of 8-bit images whose probabilities are known: points on the grid, and their exact denoiser."""

import json
import math

import pytest
import torch

from invdiff.diffusion.decoders import grid_decoder, histogram_of
from invdiff.diffusion.randomness import Streams, stream_seed
from invdiff.errors import InputError
from invdiff.evaluation.likelihood import evaluate_likelihood
from invdiff.priors.analytic import MixturePrior

PLACE = {"sigma_max": 20.0, "centre": 0.45, "spread": 0.035}


def points(count):
    generator = torch.Generator().manual_seed(1)
    means = torch.randint(100, 130, (20, 1, 1, 3), generator=generator).double() / 255
    prior = MixturePrior(torch.rand(20, generator=generator, dtype=torch.float64) + 0.2, means, 0.0)
    k = torch.multinomial(prior.weights, count, replacement=True, generator=generator)
    return prior, means[k], prior.weights[k].log()


def test_both_ways_give_the_probability_of_an_image_and_the_decoder_s_cost():
    """With the exact denoiser each is E[-log p(z) + log q(z | x0) - log P(x0 | z)], worked out here with the mixture's own
    density; it is at least -log P(x0), and that where sigma_min is well below a level."""
    prior, images, log_p = points(800)
    for sigma, tight in ((0.0006, True), (0.0015, False)):
        got = evaluate_likelihood(prior, images, sigma_min=sigma, steps=64, draws=16, seed=3, batch_size=800, **PLACE)
        noise = Streams([stream_seed(3, i, 0) for i in range(800)]).normal((1, 1, 3)).double()
        z = images + sigma * noise
        log_q = -(noise.square() + math.log(2 * math.pi * sigma**2)).flatten(1).sum(1) / 2
        exact = (log_q - prior.log_prob(z, sigma) - grid_decoder(images, z, sigma)) / (3 * math.log(2))
        assert got["ode_bits_per_dim"] == pytest.approx(float(exact.mean()), abs=4 * got["standard_error"]["ode"])
        assert got["elbo_bits_per_dim"] == pytest.approx(float(exact.mean()), abs=4 * got["standard_error"]["elbo"])
        assert abs(got["ode_step_error"]) < 0.05
        truth = -float(log_p.mean()) / (3 * math.log(2))
        above = float(exact.mean()) - truth
        assert abs(above) < 0.01 if tight else above > 0.1


def test_terms_sum_and_the_report_is_plain():
    prior, images, _ = points(10)
    calls = []
    got = evaluate_likelihood(prior, images, sigma_min=0.001, steps=4, draws=6, batch_size=4, histogram=histogram_of(images),
                              on_batch=lambda done, total: calls.append((done, total)), **PLACE)
    assert sum(got["elbo_terms"].values()) == pytest.approx(got["elbo_bits_per_dim"])
    assert sum(got["ode_terms"].values()) == pytest.approx(got["ode_bits_per_dim"])
    assert sum(got["diffusion_by_level"]["bits_per_dim"]) == pytest.approx(got["elbo_terms"]["diffusion"])
    assert set(got["standard_error"]) == {"elbo", "ode", "difference"}
    assert calls == [(4, 10), (8, 10), (10, 10)]
    # of the bound, of the flow, and of the flow in twice the steps for the first eight
    assert got["network_calls"] == 10 * 6 + 10 * 8 + 8 * 16
    assert json.loads(json.dumps(got)) == got


def test_batches_change_nothing_and_seeds_do():
    prior, images, _ = points(5)
    runs = [evaluate_likelihood(prior, images, sigma_min=0.001, steps=4, draws=4, batch_size=size, seed=seed, **PLACE)
            for size, seed in ((5, 0), (2, 0), (5, 1))]
    for key in ("elbo_bits_per_dim", "ode_bits_per_dim", "ode_step_error"):
        assert runs[0][key] == pytest.approx(runs[1][key], rel=1e-9)
        assert runs[0][key] != runs[2][key]


def test_levels_and_place_come_from_the_denoiser():
    prior, images, _ = points(2)
    prior.card, prior.sigma_data, prior.centre = {"sigma_range": [0.003, 7.0]}, 0.04, 0.44
    settings = evaluate_likelihood(prior, images, steps=2, draws=2)["settings"]
    assert [settings[key] for key in ("sigma_min", "sigma_max", "centre", "spread")] == [0.003, 7.0, 0.44, 0.04]
    given = evaluate_likelihood(prior, images, steps=2, draws=2, sigma_min=0.001, **PLACE)["settings"]
    assert [given[key] for key in ("sigma_min", "sigma_max", "centre", "spread")] == [0.001, 20.0, 0.45, 0.035]


def test_a_level_of_zero_is_no_default():
    prior, images, _ = points(2)
    with pytest.raises(InputError, match=r"expected 0 < sigma_min < sigma_max.*, got 0\.0, 20\.0"):
        evaluate_likelihood(prior, images, steps=2, draws=2, sigma_min=0.0, **PLACE)


def test_images_that_are_not_8_bit_are_refused():
    prior, images, _ = points(2)
    with pytest.raises(InputError, match="images: bits per dimension are of 8-bit values over 255"):
        evaluate_likelihood(prior, images + 0.001)
