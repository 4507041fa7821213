"""What a prior makes of its own draws, of another's, and how often it warns for nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from deepinv.models import Denoiser

from invdiff.errors import InputError
from invdiff.evaluation.novelty import ALARMS, LEVELS, Novelty, Reference, features
from invdiff.io.idx import read_idx
from invdiff.priors import load_prior
from invdiff.priors.analytic import GaussianPrior

FASHION = Path(__file__).parents[4] / "shared" / "data" / "fashion_mnist" / "t10k-images-idx3-ubyte.gz"
SIZE = (1, 16, 16)
SIGMA = torch.tensor(LEVELS, dtype=torch.float64)


def smooth(scale=1.0, size=SIZE):
    """A stationary prior, whose spectrum falls with frequency, of `scale` times a variance."""
    height, width = size[1:]
    f = torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width).square()
    return GaussianPrior.stationary(torch.full(size, 0.5), scale * 0.5 / (1 + 100 * f).square())


def draws(prior, count, seed=0):
    noise = torch.randn(count, prior.mean.numel(), generator=torch.Generator().manual_seed(seed))
    return prior.mean + (noise * prior.values.sqrt() @ prior.vectors.T).reshape(count, *prior.mean.shape)


def many_features(prior, other):
    """Of draws of `other`, each under noise of its own: that of one seed is the same for all."""
    return torch.cat([features(prior, draws(other, 3, seed), seed=seed) for seed in range(50)])


def test_the_loss_of_a_prior_s_own_draws_is_the_trace_of_its_posterior_covariance():
    prior = smooth()
    rows = many_features(prior, prior)
    assert rows.shape == (150, 2 * len(LEVELS))
    assert rows.dtype == torch.float64
    values = prior.values.double()
    trace = (values / (values + SIGMA[:, None].square())).mean(1)       # over sigma^2, for each pixel
    torch.testing.assert_close(rows[:, :4].exp().mean(0), trace, rtol=0.05, atol=0)


def test_the_loss_of_another_s_draws_is_known_too():
    prior, other = smooth(), smooth(scale=4.0)
    rows = many_features(prior, other)
    values = prior.values.double()
    total = values + SIGMA[:, None].square()
    bias, variance = SIGMA[:, None].square() * 4 * values / total.square(), values.square() / total.square()
    torch.testing.assert_close(rows[:, :4].exp().mean(0), (bias + variance).mean(1), rtol=0.05, atol=0)


@pytest.mark.parametrize("scale", [0.1, 6.0])
def test_images_of_another_kind_are_found_on_both_sides(scale):
    prior = smooth()
    reference = Reference.fit(features(prior, draws(prior, 30)))
    own = [reference.judge(row) for row in features(prior, draws(prior, 40, seed=1))]
    assert sum(one.unusual for one in own) <= 6
    assert sum(one.score for one in own) / 40 == pytest.approx(1, abs=0.4)
    others = [reference.judge(row) for row in features(prior, draws(smooth(scale), 40, seed=2))]
    assert sum(one.unusual for one in others) >= 38
    worst = max(others, key=lambda one: one.score)
    assert worst.harder == (scale > 1)
    assert worst.p_value == pytest.approx(1 / 31)
    assert ("harder" if scale > 1 else "easier") in worst.words()
    assert "is like those" in min(own, key=lambda one: one.score).words()


def test_a_small_strange_thing_shows_in_the_roughest_patches():
    prior = smooth(size=(1, 32, 32))
    clean = draws(prior, 1)
    marked = clean.clone()
    marked[..., :10, :10] += torch.randn(10, 10, generator=torch.Generator().manual_seed(1))
    moved = features(prior, marked) - features(prior, clean)
    assert (moved[:, 4:] > moved[:, :4]).all()


@pytest.mark.parametrize("count", range(19, 61))
def test_the_threshold_is_the_least_score_with_that_few_false_alarms(count):
    """One more image like n others has any rank among n + 1 as likely, so it is above the k-th with (n + 1 - k) / (n + 1)."""
    rank = Reference(*torch.eye(3), scores=torch.arange(1, count + 1)).threshold
    assert (count + 1 - rank) / (count + 1) < ALARMS + 1e-9 < (count + 2 - rank) / (count + 1)


@pytest.mark.parametrize("count", [19, 30])
def test_false_alarms_are_as_rare_as_promised(count):
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator).double()
    alarms = []
    for _ in range(60):
        rows = torch.randn(count + 40, 12, generator=generator).double() @ mixing
        reference = Reference.fit(rows[:count])
        alarms += [reference.judge(row).unusual for row in rows[count:]]
    assert 0.005 < sum(alarms) / len(alarms) < 0.06


def test_an_image_does_not_depend_on_what_is_beside_it_and_seeds_differ():
    prior, x = smooth(), draws(smooth(), 3)
    rows = features(prior, x)
    torch.testing.assert_close(features(prior, x[1:2]), rows[1:2])
    assert not torch.allclose(features(prior, x, seed=1), rows)


@pytest.mark.parametrize(("size", "draws"), [((20, 24), 2), ((200, 700), 1)])
def test_calls_are_few_and_one_at_a_time(size, draws):
    batches = []

    class Spy(Denoiser):
        def forward(self, x, sigma, **kwargs):
            batches.append((tuple(x.shape), sigma.tolist()))
            return x

    features(Spy(), torch.rand(1, 2, *size))
    assert batches == [((1, 2, *size), pytest.approx([level])) for level in LEVELS for _ in range(draws)]


def test_a_perfect_guess_is_finite():
    class Knows(Denoiser):
        def forward(self, x, sigma, **kwargs):
            return torch.full_like(x, 0.25)

    assert features(Knows(), torch.full((1, 3, 20, 20), 0.25)).isfinite().all()


def test_air_around_an_image_changes_nothing():
    """Patches of next to nothing, which a prior of such images denoises well, are not of the image."""
    class Within(Denoiser):
        """Shrinks towards grey within a margin, and knows the air around it."""

        def __init__(self, margin):
            super().__init__()
            self.margin = margin

        def forward(self, x, sigma, **kwargs):
            m, (height, width) = self.margin, x.shape[-2:]
            inside = x[..., m : height - m, m : width - m]
            shrunk = 0.5 + (inside - 0.5) * 0.09 / (0.09 + sigma.reshape(-1, 1, 1, 1).square())
            return torch.nn.functional.pad(shrunk, (m, m, m, m))

    x = 0.5 + 0.3 * torch.randn(6, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = features(Within(0), x)
    wide = features(Within(16), torch.nn.functional.pad(x, (16, 16, 16, 16)))
    torch.testing.assert_close(wide, rows, rtol=0, atol=0.15)               # under other noise
    dim = features(Within(16), torch.nn.functional.pad(x, (16, 16, 16, 16), value=0.05))
    torch.testing.assert_close(dim, wide)


def test_features_of_another_number_are_refused():
    rows = features(smooth(), draws(smooth(), 25))
    with pytest.raises(InputError, match=r"expected \(8,\)"):
        Reference.fit(rows).judge(rows[0, :7])


def test_a_reference_survives_json():
    rows = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    reference = Reference.fit(rows)
    again = Reference.from_dict(json.loads(json.dumps(reference.to_dict())))
    got, expected = again.judge(rows[0] + 1), reference.judge(rows[0] + 1)
    assert got.score == pytest.approx(expected.score, rel=1e-12)
    assert (got.threshold, got.p_value) == (expected.threshold, expected.p_value)


@pytest.mark.parametrize(("change", "message"), [
    ({"scores": None}, "expected lists of numbers"),
    ({"mean": ["a"]}, "expected lists of numbers"),
    ({"precision": [[1.0]]}, "reference.precision: expected finite numbers"),
    ({"scale": [float("nan")] * 12}, "reference.scale"),
    ({"scores": []}, "reference.scores"),
])
def test_a_reference_that_is_none(change, message):
    values = Reference.fit(torch.randn(20, 12, generator=torch.Generator().manual_seed(0))).to_dict()
    with pytest.raises(InputError, match=message):
        Reference.from_dict({**values, **change})
    with pytest.raises(InputError, match="mean"):
        Reference.from_dict({key: value for key, value in values.items() if key != "mean"})


def test_the_fashion_prior_knows_fashion_from_noise():
    if not FASHION.is_file():
        pytest.skip("the shared Fashion-MNIST is not here")
    prior = load_prior("fashion")
    images = torch.from_numpy(np.array(read_idx(FASHION)[:70], dtype=np.float32) / 255)[:, None]
    rows = features(prior, images)
    reference = Reference.fit(rows[:40])
    assert sum(reference.judge(row).unusual for row in rows[40:]) <= 4
    noise = torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert all(reference.judge(row).unusual for row in features(prior, noise))


def test_refusals():
    with pytest.raises(InputError, match="at least 19 images"):
        Reference.fit(torch.randn(18, 12))
    with pytest.raises(InputError, match="finite images"):
        features(smooth(), torch.full((1, *SIZE), float("nan")))
    with pytest.raises(InputError, match="finite images"):
        features(smooth(), torch.zeros(SIZE))


@pytest.mark.parametrize(("score", "threshold", "said"), [(2.14, 1.2, "(score 2.1, unusual from 1.2)"),
                                                          (1.2012, 1.1987, "(score 1.201, unusual from 1.199)")])
def test_the_words_do_not_contradict_themselves_by_rounding(score, threshold, said):
    assert said in Novelty(score, threshold, 0.01, True, True).words()


def test_a_reference_speaks_of_images_of_its_own_channels_alone():
    rows = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    colour, complex_ones, unknown = (Reference.fit(rows, channels) for channels in (3, 2, None))
    assert [colour.speaks_of(n) for n in (1, 2, 3)] == [False, False, True]
    assert [complex_ones.speaks_of(n) for n in (1, 2, 3, 4)] == [False, True, False, True]          # 4: two sets of coil maps
    assert unknown.speaks_of(1)
    assert not unknown.speaks_of(1, usual=3)
    assert Reference.from_dict(json.loads(json.dumps(colour.to_dict()))).channels == 3
    for bad in (0, 1.5, True, "3"):
        with pytest.raises(InputError, match=r"reference\.channels: expected a whole number"):
            Reference.from_dict(colour.to_dict() | {"channels": bad})


def test_that_an_image_is_usual_is_not_said_of_what_explains_nothing():
    """A warning is: what is strange may be why."""
    usual, strange = Novelty(0.8, 1.2, 0.5, False, True), Novelty(2.0, 1.2, 0.01, True, True)
    assert "is like those" in usual.words()
    assert usual.words(explained=False).startswith("Whether the image is like those the prior was tried on cannot be told")
    assert strange.words(explained=False) == strange.words()
