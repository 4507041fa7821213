"""The training of a classifier: it learns what can be told, at every noise level, and its batches are as they should be."""

import gzip
import json
import math
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from invdiff.errors import InputError
from invdiff.evaluation.generative.classifier import load_classifier
from invdiff.io.idx import read_idx
from invdiff.priors.checkpoint import write_tensors
from invdiff.training.classifier import (
    ClassifierSettings,
    ClassifierTrainer,
    accuracy,
    load_labelled,
    moved,
    train_classifier,
)
from invdiff.training.short import finished_short, optimise

FASHION = Path(__file__).parents[4] / "shared" / "data" / "fashion_mnist"


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture
def data(tmp_path):
    """300 images of 8 x 8 for training and 60 for testing: bright on the left, on the right, above or below."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 300), ("t10k", 60)):
        labels = rng.integers(0, 4, count).astype(np.uint8)
        images = rng.integers(0, 90, (count, 8, 8), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            half = [np.s_[:, :4], np.s_[:, 4:], np.s_[:4], np.s_[4:]][label]
            image[half] += 150
        write_idx(tmp_path / f"{name}-images.gz", images)
        write_idx(tmp_path / f"{name}-labels.gz", labels)
    return tmp_path


def settings(data, **changes):
    given = {"kind": "classifier", "name": "halves", "steps": 60, "batch": 32, "rate": 3e-3, "warmup": 5, "shift": 1,
             "high": 10.0, "precision": "fp32",
             "data": {"path": str(data), "key": "train-images.gz", "labels": "train-labels.gz", "test": "t10k-images.gz",
                      "test_labels": "t10k-labels.gz", "class_names": ["left", "right", "upper", "lower"]},
             "network": {"widths": [8, 16], "depths": [1, 1], "grid": 2, "num_features": 12, "embedding": 16}}
    return ClassifierSettings(**{**given, **changes})


def test_it_learns_and_knows_when_it_cannot(data):
    """Clean images are told apart, surely; under noise far above them nothing is sure."""
    seen = []
    path = train_classifier(settings(data), data / "run", on_step=lambda done, loss: seen.append(loss))
    classifier = load_classifier(path)
    assert classifier.card["accuracy"]["0"] > 0.95
    assert classifier.card["accuracy"]["0"] >= classifier.card["accuracy"]["5"]
    assert len(seen) == 60
    assert seen[-1] < seen[0] <= math.log(4) + 0.1
    clean = torch.from_numpy(load_labelled(data, "t10k-images.gz", "t10k-labels.gz", 4, 1)[0]) / 255
    far = clean + 10 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    sure, unsure = (classifier.log_probs(x, sigma).exp().max(1).values.mean() for x, sigma in ((clean, 0.0), (far, 10.0)))
    assert sure > 0.8
    assert unsure < 0.65
    lines = [json.loads(line) for line in (data / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 60
    assert str(data) not in json.dumps(classifier.card)


def test_it_goes_on_from_earlier_weights(data):
    """At a rate of almost nothing they stay what they were; another network's are refused."""
    path = train_classifier(settings(data, steps=3), data / "first")
    again = train_classifier(settings(data, steps=2, rate=1e-9, initial=str(path)), data / "second")
    before, after = load_classifier(path), load_classifier(again)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert after.card["training"]["initial"]["settings"]["steps"] == 3
    assert str(data) not in json.dumps(after.card)
    with pytest.raises(InputError, match="another network"):
        ClassifierTrainer(settings(data, initial=str(path), network={"widths": [8], "depths": [1]}))


def test_what_is_done_is_not_done_again(data):
    """The same settings and the same beginning: nothing. Others: anew."""
    first, second, taken = settings(data, steps=3), settings(data, steps=2), []

    def train(given):
        taken.clear()
        return train_classifier(given, data / "run", on_step=lambda done, loss: taken.append(done))

    path = train(first)
    assert len(taken) == 3
    made = path.read_bytes()
    assert (train(first), taken, path.read_bytes()) == (path, [], made)
    train(second)
    assert len(taken) == 2
    other = train_classifier(settings(data, steps=1), data / "other")
    begun = settings(data, steps=2, initial=str(other))
    train(begun)
    assert len(taken) == 2
    train(begun)
    assert not taken
    train_classifier(settings(data, steps=2), data / "other")
    train(begun)
    assert len(taken) == 2
    labels = read_idx(data / "train-labels.gz")
    write_idx(data / "train-labels.gz", labels[::-1])                   # other data of the same names
    train(begun)
    assert len(taken) == 2


@pytest.mark.parametrize("card", [{"training": None}, {"training": []}, {"training": {"settings": 3}}, []])
def test_a_card_of_another_kind_is_no_finished_run(data, card):
    given = settings(data, steps=1)
    path = data / "run" / "halves.safetensors"
    write_tensors(path, {"x": torch.zeros(1)}, {"format": "x", "card": json.dumps(card)})
    assert not finished_short(path, ClassifierTrainer(given).run)
    assert "accuracy" in load_classifier(train_classifier(given, data / "run")).card


def test_half_of_a_batch_is_clean_and_the_rest_log_uniform(data):
    trainer = ClassifierTrainer(settings(data, batch=200, shift=0))
    levels = torch.cat([trainer.batch(step)[1] for step in range(10)]).reshape(10, 200)
    assert (levels[:, :100] == 0).all()
    noisy = levels[:, 100:].flatten().log()
    low, high = math.log(0.002), math.log(10)
    assert low <= noisy.min() < noisy.max() <= high
    assert noisy.mean().item() == pytest.approx((low + high) / 2, abs=4 * (high - low) / 12**0.5 / 1000**0.5)
    assert noisy.std().item() == pytest.approx((high - low) / 12**0.5, rel=0.1)


def test_the_noise_is_as_strong_as_it_is_said_to_be(data):
    trainer = ClassifierTrainer(settings(data, batch=300, shift=0, noisy=1.0))
    x, sigma, _ = trainer.batch(0)
    strong = sigma > 2          # where the images are nothing beside it
    assert (x[strong] / sigma[strong, None, None, None]).std().item() == pytest.approx(1, abs=0.1)


def test_an_epoch_shows_every_image_once_with_its_class(data):
    trainer = ClassifierTrainer(settings(data, batch=30, shift=0, noisy=0.0))
    batches = [trainer.batch(step) for step in range(10)]
    shown = torch.cat([x for x, _, _ in batches]).mul(255).round().to(torch.uint8).flatten(1).tolist()
    where = {tuple(image.flatten().tolist()): label for image, label in zip(trainer.images, trainer.labels, strict=True)}
    assert sorted(map(tuple, shown)) == sorted(where)
    assert [where[tuple(image)] for image in shown] == torch.cat([c for _, _, c in batches]).tolist()
    assert not torch.equal(trainer.batch(0)[0], trainer.batch(10)[0])          # another order in the next epoch


def test_a_batch_is_a_function_of_seed_and_step(data):
    first, second = ClassifierTrainer(settings(data)), ClassifierTrainer(settings(data))
    for a, b in zip(first.batch(7), second.batch(7), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.batch(7)[0], ClassifierTrainer(settings(data, seed=1)).batch(7)[0])


def test_images_are_moved_whole():
    rng = np.random.default_rng(0)
    x = np.zeros((60, 1, 7, 5), np.float32)
    x[:, :, 3, 2] = 1
    got = moved(x, 2, rng)
    assert got.shape == x.shape
    assert (got.sum((1, 2, 3)) == 1).all()
    rows, columns = np.nonzero(got[:, 0])[1:]
    assert (set(rows), set(columns)) == ({1, 2, 3, 4, 5}, {0, 1, 2, 3, 4})
    assert np.array_equal(moved(x, 0, rng), x)


def test_data_that_do_not_fit(data):
    write_idx(data / "train-labels.gz", np.zeros(299, np.uint8))
    with pytest.raises(InputError, match="expected 300 whole numbers"):
        ClassifierTrainer(settings(data))
    write_idx(data / "train-labels.gz", np.full(300, 4, np.uint8))
    with pytest.raises(InputError, match="expected classes 0 to 3"):
        ClassifierTrainer(settings(data))


def test_the_shipped_one_tells_fashion():
    """On the first 1000 test images: at least 90 %, two standard errors below the 92 that all of them give."""
    if not FASHION.is_dir():
        pytest.skip("the shared Fashion-MNIST is not there")
    from invdiff.io.idx import read_idx

    images, labels = (read_idx(FASHION / f"t10k-{name}-ubyte.gz")[:1000] for name in ("images-idx3", "labels-idx1"))
    classifier = load_classifier("fashion-classifier")
    assert classifier.card["accuracy"]["0"] >= 0.915
    assert accuracy(classifier, images[:, None], labels) > 0.9
    assert accuracy(classifier, images[:, None], labels, 0.2) > 0.86
    x = torch.from_numpy(images[:200, None]).float() / 255
    noisy = x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    told, untold = (classifier.log_probs(noisy, level).gather(1, torch.from_numpy(labels[:200, None]).long()).mean()
                    for level in (0.5, 0.0))
    assert told > untold            # it uses the noise level it is told


def test_a_loss_that_is_not_finite_ends_a_short_run_before_the_weights_are_touched():
    trainer = SimpleNamespace(settings=None, network=torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match="step 3: the loss is nan; start anew with a lower rate or precision=fp32"):
        optimise(trainer, 2, torch.tensor(float("nan")))
