from itertools import product

import torch

from invdiff.diffusion.randomness import Streams, stream_seed


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
