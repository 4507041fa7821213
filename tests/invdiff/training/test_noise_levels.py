"""Where noise levels fall: each kind against the distribution it names."""

import math

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from invdiff.diffusion.schedules import Cosine, DDPMLinear, chain_sigmas, cosine_chain, linear_chain
from invdiff.training.noise_levels import (
    BANDS,
    Adaptive,
    Curriculum,
    LogNormal,
    NoiseSettings,
    RunningLoss,
)

COUNT = 5000
READ = TypeAdapter(NoiseSettings).validate_python


def draw(noise, count=COUNT, step=0, seed=0, losses=None):
    return noise.draw(count, np.random.default_rng(seed), step, losses or RunningLoss(noise.low, noise.high))


def assert_distributed(sample, cdf):
    """Kolmogorov and Smirnov's distance, at most 1.95 / sqrt(n) for one sample in a thousand; ours are stratified."""
    assert stats.kstest(sample, cdf).statistic < 1.95 / len(sample) ** 0.5


def log_uniform(low, high):
    return stats.uniform(math.log(low), math.log(high / low)).cdf


KINDS = [{}, {"kind": "log_uniform"}, {"kind": "linear"}, {"kind": "cosine"}, {"kind": "curriculum"}, {"kind": "adaptive"}]


@pytest.mark.parametrize("spec", KINDS, ids=lambda s: s.get("kind", "default"))
def test_levels_are_in_range_and_follow_the_seed(spec):
    noise = READ(spec | {"low": 0.01, "high": 5.0})
    (sigma, weight), (same, _), (other, _) = draw(noise), draw(noise), draw(noise, seed=1)
    assert sigma.min() >= 0.01
    assert sigma.max() <= 5.0
    assert weight.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(sigma, same)
    assert not np.array_equal(sigma, other)


def test_log_normal_levels_are_log_normal():
    noise = LogNormal(log_mean=-1.0, log_std=1.2, uniform_share=0.0, low=1e-6, high=1e6)
    logs = np.log(draw(noise)[0])
    assert_distributed(logs, stats.norm(-1.0, 1.2).cdf)
    assert np.median(logs) == pytest.approx(-1.0, abs=0.01)         # stratified: far better than 1 / sqrt(n)
    small = np.log(draw(noise, 4)[0])
    assert len(set((stats.norm(-1.0, 1.2).cdf(small) * 4).astype(int))) == 4       # one a quarter


def test_a_share_is_log_uniform_and_the_rest_clipped_to_the_range():
    noise = LogNormal(log_mean=-1.0, log_std=1.2, uniform_share=0.4, low=0.01, high=5.0)
    normal, uniform = stats.norm(-1.0, 1.2), log_uniform(0.01, 5.0)
    sigma = draw(noise)[0]
    inside = np.log(sigma[(sigma > 0.01) & (sigma < 5.0)])
    a, b = normal.cdf(math.log(0.01)), normal.cdf(math.log(5.0))

    def cdf(x):
        return (0.6 * (normal.cdf(x) - a) + 0.4 * uniform(x)) / (0.6 * (b - a) + 0.4)

    assert_distributed(inside, cdf)
    assert_distributed(np.log(draw(noise.model_copy(update={"uniform_share": 1.0}))[0]), uniform)


def test_log_uniform_levels_are_log_uniform():
    assert_distributed(np.log(draw(READ({"kind": "log_uniform", "low": 0.01, "high": 5.0}))[0]), log_uniform(0.01, 5.0))


def test_a_curriculum_is_the_log_normal_above_a_floor_that_falls():
    noise = Curriculum(kind="curriculum", log_mean=-1.0, log_std=1.2, start=1.0, ramp=100, low=0.001, high=1e6)
    for step, floor in ((0, 1.0), (50, 0.001**0.5), (100, 0.001), (10**6, 0.001)):
        assert noise.floor(step) == pytest.approx(floor)
        logs = np.log(draw(noise, step=step)[0])
        assert logs.min() >= math.log(floor) - 1e-9
        assert_distributed(logs, stats.truncnorm((math.log(floor) + 1.0) / 1.2, np.inf, -1.0, 1.2).cdf)


@pytest.mark.parametrize(("chain", "schedule"), [(linear_chain, DDPMLinear()), (cosine_chain, Cosine())])
def test_the_chains_are_the_schedules_that_samplers_use(chain, schedule):
    """The discrete chain against the continuous schedule between two of its levels, t uniform: a per cent or two."""
    levels, shorter = (chain_sigmas(chain(steps)).numpy() for steps in (1000, 200))
    assert (np.diff(levels) > 0).all()
    a, b = 100, 900
    continuous = schedule(b - a + 1, float(levels[a]), float(levels[b])).numpy()[-2::-1]
    np.testing.assert_allclose(levels[a : b + 1], continuous, rtol=0.02)
    assert shorter[99] == pytest.approx(levels[499], rel=0.05)              # shorter chains span the same levels


def test_chain_levels_are_equally_likely():
    noise = READ({"kind": "linear", "steps": 50, "low": 0.05, "high": 10.0})
    inside = chain_sigmas(linear_chain(50)).numpy()
    inside = inside[(inside >= 0.05) & (inside <= 10)]
    sigma = draw(noise, 40 * len(inside))[0]
    values, counts = np.unique(sigma, return_counts=True)
    np.testing.assert_array_equal(values, inside)
    assert set(counts) <= {39, 40, 41}


@pytest.mark.parametrize("spec", [{"kind": "linear"}, {"kind": "cosine", "steps": 20}])
def test_a_chain_is_trained_on_its_own_levels(spec):
    noise = READ(spec)
    low, high = noise.trained_range()
    sigma = draw(noise, 20 * noise.steps)[0]
    assert (sigma.min(), sigma.max()) == (low, high)
    assert low > 0.002
    assert READ({"low": 0.01, "high": 5.0}).trained_range() == (0.01, 5.0)


def test_adaptive_levels_follow_the_loss_and_their_weights_undo_it():
    """Density proportional to the running loss; weighted, the sample is log-uniform again; the weighted loss varies less."""
    noise = Adaptive(kind="adaptive", low=0.01, high=5.0, floor=0.05)
    losses = RunningLoss(noise.low, noise.high)
    assert_distributed(np.log(draw(noise, losses=losses)[0]), log_uniform(0.01, 5.0))      # nothing known yet
    losses.squares, losses.seen = np.linspace(0.1, 3.0, BANDS) ** 2, np.ones(BANDS)
    sigma, weight = draw(noise, losses=losses)
    band = np.searchsorted(losses.edges, np.log(sigma))
    share = np.bincount(band, minlength=BANDS) / COUNT
    np.testing.assert_allclose(share, noise.probabilities(losses), atol=2 / COUNT)
    np.testing.assert_allclose(np.bincount(band, weight, BANDS) / COUNT, 1 / BANDS, rtol=0.05)
    loss = np.sqrt(losses.squares)[band] * weight
    assert loss.mean() == pytest.approx(np.sqrt(losses.squares).mean(), rel=0.01)
    assert loss.std() < 0.3 * np.sqrt(losses.squares).std()
    assert (draw(noise.model_copy(update={"unbiased": False}), losses=losses)[1] == 1).all()


def test_the_running_loss_is_the_mean_square_of_each_band():
    losses = RunningLoss(0.01, 5.0)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        sigma = np.exp(rng.uniform(math.log(0.01), math.log(5.0), 64))
        losses.update(np.where(sigma < 0.2, 3.0, 0.5) * rng.choice([-1, 1], 64), sigma)
    centres = np.exp(np.linspace(math.log(0.01), math.log(5.0), 2 * BANDS + 1)[1::2])
    clear = np.abs(np.log(centres / 0.2)) > 0.3
    np.testing.assert_allclose(losses.squares[clear], np.where(centres < 0.2, 9.0, 0.25)[clear], rtol=1e-3)
    few = RunningLoss(0.01, 5.0)
    few.update(np.array([3.0, 1.0, 2.0]), np.array([0.011, 0.011, 4.9]))
    np.testing.assert_allclose(few.sizes()[[0, -1]], [5**0.5, 2.0])        # the plain mean of the first ones
    np.testing.assert_allclose(few.sizes()[1:-1], 4.5**0.5)                 # where nothing is known, the others' mean


@pytest.mark.parametrize("spec", [{"kind": "other"}, {"low": 2.0, "high": 1.0}, {"kind": "log_uniform", "log_mean": 0.0},
                                  {"kind": "linear", "low": 1e4, "high": 1e5}, {"kind": "curriculum", "start": 50.0},
                                  {"kind": "linear", "steps": 20, "low": 1.0, "high": 1.2}])
def test_what_makes_no_distribution_is_refused(spec):
    with pytest.raises(ValidationError):
        READ(spec)


def test_a_band_that_has_seen_much_forgets_with_each_item():
    losses = RunningLoss(0.01, 5.0)
    losses.squares[:], losses.seen[:] = 0.0, 1e6
    losses.update(np.ones(64), np.full(64, 0.011))
    assert losses.squares[0] == pytest.approx(1 - 0.995**64)
    assert (losses.squares[1:] == 0).all()
