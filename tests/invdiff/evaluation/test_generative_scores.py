"""Scores of generated images against closed forms, cases counted by hand, torchmetrics, and their known limits."""

import importlib
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from invdiff.errors import InputError
from invdiff.evaluation.generative import scores
from invdiff.evaluation.generative.evaluate import METRICS, Reference, chosen_metrics, evaluate, floor
from invdiff.evaluation.generative.features import Looked
from invdiff.evaluation.generative.scores import (
    Statistics,
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)


def normal(count, size, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


class TestFrechet:
    def test_two_gaussians_of_one_dimension(self):
        a, b = (Statistics(torch.tensor([m]).double(), torch.tensor([[s**2]]).double(), 9) for m, s in ((1.0, 2.0), (4.0, 0.5)))
        assert frechet_distance(a, b) == pytest.approx(3**2 + 1.5**2)

    def test_covariances_that_do_not_commute(self):
        """Against trace((AB)^1/2) from the eigenvalues of the product, which need no symmetry."""
        x, y = normal(50, 5), normal(60, 5, 1) @ normal(5, 5, 2) + 1
        a, b = Statistics.of(x), Statistics.of(y)
        cross = torch.linalg.eigvals(a.covariance @ b.covariance).sqrt().real.sum()
        want = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
        assert frechet_distance(a, b) == pytest.approx(float(want), rel=1e-9)
        assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)

    def test_agrees_with_torchmetrics(self):
        fid = pytest.importorskip("torchmetrics.image.fid")
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.Tanh()).double()
        network.num_features = 12
        images = [torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(i)).double() ** (i + 1) for i in (0, 1)]
        metric = fid.FrechetInceptionDistance(feature=network, input_img_size=(3, 4, 4)).set_dtype(torch.float64)
        with torch.no_grad():
            for x, real in zip(images, (True, False), strict=True):
                metric.update(x[:120], real=real)
                metric.update(x[120:], real=real)
            ours = frechet_distance(*(Statistics.of(network(x)) for x in images))
        assert ours == pytest.approx(float(metric.compute()), rel=1e-6)

    def test_fewer_samples_than_features(self):
        """The covariance is singular: the distance of a set to itself is still 0, to a moved one the move."""
        x = normal(6, 20)
        assert frechet_distance(Statistics.of(x), Statistics.of(x)) == pytest.approx(0, abs=1e-6)
        assert frechet_distance(Statistics.of(x), Statistics.of(x + 1)) == pytest.approx(20, rel=1e-6)

    def test_the_bias_of_finite_counts_is_as_theory_says(self):
        """For two sets of n from one N(0, 1) in F dimensions the mean difference alone gives 2 F / n, the covariances the rest:
        together (2 F + F (F + 1) / 2) / n + O(1/n²); the mean of 40 has a standard deviation of some 6 %."""
        size, n = 4, 2000
        sets = [Statistics.of(normal(n, size, i)) for i in range(80)]
        found = [frechet_distance(a, b) for a, b in zip(sets[::2], sets[1::2], strict=True)]
        want = (2 * size + size * (size + 1) / 2) / n
        assert torch.tensor(found).mean().item() == pytest.approx(want, rel=0.2)

    def test_one_image_has_no_covariance(self):
        with pytest.raises(ValueError, match="at least 2"):
            Statistics.of(normal(1, 3))


class TestKernel:
    def test_all_images_in_the_subset_give_the_unbiased_estimate(self):
        """One subset of all images, so all of them are the same: the spread is 0, the mean as written out."""
        x, y = 0.5 * normal(40, 6), 0.5 * normal(40, 6, 1) * 1.5 + 0.2      # smaller than one, and so not scaled

        def kernel(a, b):
            return (a @ b.T / 6 + 1) ** 3

        off = 1 - torch.eye(40)
        want = ((kernel(x, x) + kernel(y, y)) * off).sum() / (40 * 39) - 2 * kernel(x, y).mean()
        mean, spread = kernel_distance(x, y)
        assert mean == pytest.approx(float(want), rel=1e-9)
        assert spread is None                       # all subsets are the whole
        assert kernel_distance(x, y, subset=20)[1] > 0
        unit = x / x.square().mean().sqrt()
        assert kernel_distance(1000 * x, 1000 * y)[0] == pytest.approx(kernel_distance(unit, y * (unit / x)[0, 0])[0], rel=1e-4)

    def test_seeded_and_leaves_the_global_generator_alone(self):
        x, y = normal(60, 6), normal(60, 6, 1)
        before = torch.get_rng_state()
        first = kernel_distance(x, y, subset=20)
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(3)
        assert kernel_distance(x, y, subset=20) == first
        assert kernel_distance(x, y, subset=20, seed=1) != first

    def test_without_torchmetrics_it_says_what_to_install(self, monkeypatch):
        def missing(name):
            raise ImportError(name)

        monkeypatch.setattr(importlib, "import_module", missing)
        with pytest.raises(InputError, match=r"invdiff\[evaluate\]"):
            scores.torchmetrics("kid")


class TestInceptionScore:
    def test_certain_and_balanced_is_the_number_of_classes(self):
        probabilities = torch.eye(5).repeat_interleave(400, 0).clamp_min(1e-12)
        mean, _ = inception_score(probabilities.log(), splits=1)
        assert mean == pytest.approx(5, rel=1e-4)

    def test_uncertain_or_all_of_one_class_is_one(self):
        for probabilities in (torch.full((200, 5), 0.2), torch.eye(5)[:1].expand(200, 5).clamp_min(1e-12)):
            assert inception_score(probabilities.log())[0] == pytest.approx(1, rel=1e-4)

    def test_few_images_are_not_split_into_parts_that_cannot_score(self):
        """Ten classes, certain and balanced, score 10: 40 images in tenths of 4 scored at most 4."""
        for count, spread in ((40, False), (250, True)):
            mean, found = inception_score(torch.eye(10).repeat(count // 10, 1).clamp_min(1e-12).log())
            assert mean == pytest.approx(10, rel=0.05)
            assert (found is not None) == spread

    def test_half_certain_is_as_computed_by_hand(self):
        """Two classes at 0.9 and 0.1, balanced: exp(log 2 - H(0.9))."""
        probabilities = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).repeat(500, 1)
        entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
        assert inception_score(probabilities.log(), splits=1)[0] == pytest.approx(2 * math.exp(-entropy), rel=1e-4)


class TestNeighbours:
    REAL = column(0, 1, 3, 7)           # distances to the nearest other one: 1, 1, 2, 4

    def test_counted_by_hand(self):
        """With k = 1 the balls are [-1, 1], [0, 2], [1, 5], [3, 11]."""
        fake = column(-0.5, 1.5, 4, 20)        # in 1, 2, 2, 0 of them; they cover all four
        precision, recall = precision_recall(self.REAL, fake, k=1)
        assert precision == 3 / 4
        # the fakes' radii are 2, 2, 2.5, 16: [-2.5, 1.5], [-0.5, 3.5], [1.5, 6.5], [4, 36] hold 0, 1, 3 and 7
        assert recall == 1
        density, coverage = density_coverage(self.REAL, fake, k=1)
        assert density == (1 + 2 + 2 + 0) / 4
        assert coverage == 1

    def test_fakes_in_one_place_are_precise_and_cover_little(self):
        fake = column(1.5, 1.5, 1.5, 1.5)
        assert precision_recall(self.REAL, fake, k=1) == (1, 0)
        assert density_coverage(self.REAL, fake, k=1) == (2, 2 / 4)

    def test_fakes_elsewhere_score_nothing(self):
        x = normal(100, 3)
        assert precision_recall(x, x + 100) == (0, 0)
        assert density_coverage(x, x + 100) == (0, 0)

    def test_a_set_is_precise_about_itself_even_with_duplicates(self):
        x = torch.cat([normal(50, 3), normal(50, 3)])       # every radius of k = 1 is 0
        assert precision_recall(x, x, k=1) == (1, 1)
        assert density_coverage(x, x, k=1)[1] == 1

    def test_two_sets_of_one_distribution(self):
        """Naeem et al. 2020: expectation of density 1, of coverage 1 - Π (M - 1 - i) / (2 M - 1 - i)."""
        count, k = 1500, 5
        density, coverage = density_coverage(normal(count, 4), normal(count, 4, 1), k)
        expected = 1 - math.prod((count - 1 - i) / (2 * count - 1 - i) for i in range(k))
        assert expected == pytest.approx(1 - 2**-k, abs=1e-3)
        assert coverage == pytest.approx(expected, abs=4 * (expected * (1 - expected) / count) ** 0.5)
        assert density == pytest.approx(1, abs=0.05)

    def test_chunks_change_nothing(self, monkeypatch):
        x, y = normal(90, 3), normal(70, 3, 1)
        whole = precision_recall(x, y), density_coverage(x, y)
        monkeypatch.setattr(scores, "_PAIRS", 300)
        assert (precision_recall(x, y), density_coverage(x, y)) == whole

    def test_far_from_the_origin_nothing_is_lost(self):
        """Whole numbers moved by ten million: float32 would have merged neighbours."""
        fake = column(-0.5, 1.5, 4, 20)
        assert density_coverage(self.REAL + 1e7, fake + 1e7, k=1) == density_coverage(self.REAL, fake, k=1)

    def test_more_neighbours_than_there_are(self):
        with pytest.raises(ValueError, match="k: expected 1 to 3"):
            precision_recall(self.REAL, self.REAL, k=4)


def looked(count, seed, move=0.0, classes=True):
    """Features of a mixture of three classes, that are told apart almost surely."""
    labels = torch.arange(count) % 3
    features = (normal(count, 4, seed) + 6 * torch.eye(4, dtype=torch.float64)[labels] + move).float()
    log_probs = (4 * (features[:, :3] - move)).log_softmax(1)
    return Looked(features, log_probs, labels if classes else None)


class TestEvaluate:
    def test_real_images_are_near_the_floor_and_moved_ones_are_not(self):
        pytest.importorskip("torchmetrics")
        reference = Reference.of(looked(900, 0), looked(600, 1))
        lowest = floor(reference, 600)
        good, bad = evaluate(looked(600, 2), reference), evaluate(looked(600, 2, move=3.0), reference)
        assert good["fid"] == pytest.approx(lowest["fid"], abs=0.1)
        assert bad["fid"] == pytest.approx(4 * 3.0**2, rel=0.1)
        assert good["precision"] > 0.8 > 0.5 > bad["precision"]
        assert good["coverage"] > 0.9 > 0.5 > bad["coverage"]
        assert abs(good["kid"]) < 0.1 * bad["kid"]
        assert good["class_accuracy"] > 0.99
        assert good["inception_score"] == pytest.approx(3, rel=0.05)

    def test_only_what_was_asked_for(self):
        reference = Reference.of(looked(30, 0))
        assert set(evaluate(looked(30, 1), reference, ["fid"])) == {"fid"}
        assert set(evaluate(looked(30, 1), reference, ["pr", "dc"])) == {"precision", "recall", "density", "coverage"}
        assert evaluate(looked(30, 1, classes=False), reference, ["accuracy"]) == {}
        assert floor(reference, 30) == {}

    def test_the_floor_has_the_samples_classes(self):
        reference = Reference.of(looked(900, 0), looked(600, 1))
        balanced = floor(reference, 60, ["fid", "accuracy"], classes=torch.arange(60) % 3)
        random = floor(reference, 60, ["fid", "accuracy"])
        assert balanced["fid"] < 0.7 * random["fid"]            # that of random counts of classes has their spread as well
        assert 0 < balanced["fid_spread"] < balanced["fid"]
        one = floor(reference, 60, ["fid"], classes=torch.ones(60, dtype=torch.long))
        second = reference.kept_apart.take(torch.arange(1, 180, 3))
        assert one["fid"] == pytest.approx(evaluate(second, reference, ["fid"])["fid"], rel=0.1)
        assert set(floor(reference, 600, ["fid"], classes=torch.arange(600) % 3)) == {"fid"}       # all of them: no spread

    def test_images_of_another_size_are_not_compared(self):
        reference = Reference.of(replace(looked(30, 0), size=(28, 28)))
        with pytest.raises(InputError, match="expected images of 28 x 28, as the real ones, got 64 x 64"):
            evaluate(replace(looked(30, 1), size=(64, 64)), reference, ["fid"])

    def test_unknown_classes_do_not_count(self):
        samples = looked(30, 1)
        half = Looked(samples.features, samples.log_probs, torch.where(torch.arange(30) < 15, samples.classes, -1))
        assert evaluate(half, Reference.of(samples), ["accuracy"]) == {"class_accuracy": 1.0}

    def test_too_few_images(self):
        with pytest.raises(InputError, match="at least 10 images, got 9"):
            Reference.of(looked(9, 0))
        with pytest.raises(InputError, match="at least 10 images, got 9"):
            evaluate(looked(9, 0), Reference.of(looked(30, 0)))

    def test_metrics_by_name(self):
        assert chosen_metrics("fid, kid,fid") == ("fid", "kid")
        assert chosen_metrics(",".join(METRICS)) == tuple(METRICS)
        for text in ("", "fid,fod"):
            with pytest.raises(InputError, match="expected some of"):
                chosen_metrics(text)
