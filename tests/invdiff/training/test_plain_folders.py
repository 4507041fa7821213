"""Autoencoders and classifiers of the images of a folder, without test images of their own."""

import h5py
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from invdiff.errors import InputError
from invdiff.evaluation.generative.classifier import load_classifier
from invdiff.priors.autoencoder import load_autoencoder
from invdiff.training.autoencoder import AutoencoderSettings, AutoencoderTrainer, train_autoencoder
from invdiff.training.classifier import ClassifierSettings, ClassifierTrainer, train_classifier

SMALL = {"name": "tiny", "steps": 2, "batch": 4, "precision": "fp32"}


def autoencoder(data, **changes):
    return AutoencoderSettings.model_validate({**SMALL, "kind": "autoencoder", "data": data, **changes,
                                               "network": {"latent_channels": 2, "widths": [8], "depths": [1]}})


def classifier(data, **changes):
    return ClassifierSettings.model_validate({**SMALL, "kind": "classifier", "data": data, **changes,
                                              "network": {"widths": [8], "depths": [1], "grid": 2, "embedding": 16}})


def crops(folder, count, value):
    """`count` grey 8 x 8 images in a folder, the first of which has this value and each other one more."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((8, 8), value + i, np.uint8)).save(folder / f"{i:02}.png")


def test_an_autoencoder_is_trained_on_a_folder_and_measured_on_what_is_kept_back(tmp_path):
    """All of the folder and of those below; without test images on the last ones, which are not trained on."""
    crops(tmp_path / "data" / "a", 7, 10)
    crops(tmp_path / "data" / "b", 5, 100)
    for holdout, kept in ((3, [*range(10, 17), 100, 101]), (6, [*range(10, 16)])):
        trainer = AutoencoderTrainer(autoencoder({"path": str(tmp_path / "data"), "holdout": holdout}))
        assert trainer.images[:, 0, 0, 0].tolist() == kept
        assert [*trainer.images[:, 0, 0, 0], *trainer.test[:, 0, 0, 0]] == [*range(10, 17), *range(100, 105)]
    data = {"path": str(tmp_path / "data"), "key": None, "test": None, "holdout": 3}
    card = load_autoencoder(train_autoencoder(autoencoder(data), tmp_path / "out")).card
    assert card["psnr"]["images"] == card["training"]["settings"]["data"]["holdout"] == 3
    with pytest.raises(InputError, match=r"data\.holdout: expected fewer than the 12 images there are, got 32"):
        AutoencoderTrainer(autoencoder({"path": str(tmp_path / "data")}))


def test_test_images_are_not_among_those_of_a_folder_that_is_taken_whole(tmp_path):
    crops(tmp_path / "data" / "train", 4, 10)
    crops(tmp_path / "data" / "test", 2, 100)
    crops(tmp_path / "elsewhere", 2, 200)
    data = {"path": str(tmp_path / "data"), "test": "test"}
    with pytest.raises(InputError, match=r"data\.test: test lies in .*data, all of which is trained on; .*, data\.key"):
        AutoencoderTrainer(autoencoder(data))
    for given, sizes in (({"key": "train"}, (4, 2)), ({"test": str(tmp_path / "elsewhere")}, (6, 2))):
        trainer = AutoencoderTrainer(autoencoder(data | given))
        assert (len(trainer.images), len(trainer.test)) == sizes


def test_what_was_trained_with_test_images_is_still_known_for_done():
    """Nothing is kept back then, and the settings that a card tells of are those of before `holdout`."""
    told = autoencoder({"path": "x.h5", "key": "x", "test": "y"}).model_dump(mode="json", exclude={"data": {"path"}})["data"]
    assert told == {"key": "x", "test": "y", "description": "", "licence": ""}
    assert autoencoder({"path": "x"}).model_dump()["data"]["holdout"] == 32


def folders(path, count):
    """`count` images of 8 x 8 in each of the folders a, b and c, all of one class of one brightness."""
    for k, name in enumerate("abc"):
        (path / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((8, 8), 80 * k, np.uint8)).save(path / name / f"{i}.png")


def test_a_folder_of_folders_is_enough(tmp_path):
    """Of its images, of each class its share is kept back for the card; or there is a folder of test images."""
    folders(tmp_path / "set" / "train", 10)
    folders(tmp_path / "set" / "test", 2)
    names = ["dark", "grey", "bright"]
    one = {"path": str(tmp_path / "set" / "train"), "labels": "folders", "class_names": names, "holdout": 6}
    two = {**one, "path": str(tmp_path / "set"), "key": "train", "test": "test", "test_labels": "folders"}
    for given, counts in ((one, (8, 2)), (two, (10, 2))):
        trainer = ClassifierTrainer(classifier(given))
        for (images, labels), count in zip(((trainer.images, trainer.labels), trainer.test), counts, strict=True):
            assert np.bincount(labels).tolist() == [count] * 3
            assert (images[:, 0, 0, 0] == 80 * labels).all()
    card = load_classifier(train_classifier(classifier(one), tmp_path / "run")).card
    assert set(card["accuracy"]) >= {"0"}
    with pytest.raises(InputError, match=r"data\.test: test lies in .*, all of which is trained on"):
        ClassifierTrainer(classifier({**two, "key": None}))
    with pytest.raises(InputError, match=r"data\.holdout: expected fewer than the 30 images there are, got 32"):
        ClassifierTrainer(classifier({**one, "holdout": 32}))


def test_of_other_labels_the_last_images_are_kept_back(tmp_path):
    """And test images have classes of their own."""
    labels = np.random.default_rng(0).integers(0, 3, 40)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"], file["y"] = np.zeros((40, 8, 8), np.uint8), labels
    given = {"path": str(tmp_path / "x.h5"), "key": "x", "labels": "y", "class_names": ["a", "b", "c"], "holdout": 15}
    trainer = ClassifierTrainer(classifier(given))
    assert (trainer.labels == labels[:25]).all()
    assert (trainer.test[1] == labels[25:]).all()
    with pytest.raises(ValidationError, match="test_labels: says the classes of test; give both, or neither"):
        classifier(given | {"test": "x"})
