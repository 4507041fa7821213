from itertools import product

import pytest
import torch

from invdiff.diffusion.randomness import Streams, sample_variance, stream_seed, variance_of_mean


def test_streams_differ_by_seed_measurement_and_sample():
    seeds = {stream_seed(*key) for key in product(range(10), repeat=3)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream_seed(0, 0, 0) == stream_seed(0, 0, 0)
    assert len({stream_seed(0, 1, 2), stream_seed(1, 2, 0), stream_seed(2, 0, 1), stream_seed(0, 2, 1)}) == 4


def test_seeds_zero_and_one_are_streams_of_their_own():
    zero, one = Streams([0]).normal((50,)), Streams([1]).normal((50,))
    assert torch.equal(zero, Streams([0]).normal((50,)))
    assert not torch.equal(zero, one)


def test_a_chain_draws_the_same_whatever_is_beside_it():
    together, alone = Streams([5, 0, 9]), Streams([9])
    for _ in range(3):
        batch = together.normal((2, 4))
        assert batch.shape == (3, 2, 4)
        assert batch.dtype == torch.float32
        assert torch.equal(batch[2:], alone.normal((2, 4)))
    assert not torch.equal(batch[0], batch[1])


def test_noise_is_standard_normal():
    """Mean and variance of n draws: 1 / sqrt(n) and sqrt(2 / n) of standard error; four of each."""
    n = 40_000
    draws = Streams([0, 1]).normal((n,))
    assert (draws.mean(1).abs() < 4 / n**0.5).all()
    assert ((draws.var(1) - 1).abs() < 4 * (2 / n) ** 0.5).all()
    assert abs(float((draws[0] * draws[1]).mean())) < 4 / n**0.5


def test_antithetic_neighbours_have_opposite_noise_and_others_are_strangers():
    seeds = [stream_seed(3, 1, i, antithetic=True) for i in range(4)]
    noise = Streams(seeds)
    for _ in range(2):
        draws = noise.normal((5,))
        assert torch.equal(draws[1], -draws[0])
        assert torch.equal(draws[3], -draws[2])
        assert not torch.equal(draws[2].abs(), draws[0].abs())
    assert [stream_seed(3, 1, 2 * k, antithetic=True) for k in range(2)] == [stream_seed(3, 1, k) for k in range(2)]


@pytest.mark.parametrize("correlation", [0.0, -0.9, -1.0])
@pytest.mark.parametrize("count", [4, 6])
def test_the_variance_of_samples_is_unbiased_whether_neighbours_are_independent_or_antithetic(count, correlation):
    trials = 40_000
    a, b = torch.randn(2, trials, count // 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = torch.stack([a, correlation * a + (1 - correlation**2) ** 0.5 * b], -1)
    found = sample_variance(2 + 3 * pairs.flatten(1), 1)
    assert abs(found.mean() - 9) < 4 * found.std() / trials**0.5
    known = 9 * (1 + correlation) / count
    error = variance_of_mean(2 + 3 * pairs.flatten(1), 1)
    assert abs(error.mean() - known) <= 4 * error.std() / trials**0.5 + 1e-12
    classical = (3 * torch.cat([a, b], 1)).var(1)
    if correlation == 0:
        assert found.var() < 1.2 * classical.var()          # 9 / 8 of it for four samples, 25 / 24 for six
