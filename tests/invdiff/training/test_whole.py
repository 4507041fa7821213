"""Whole images with their classes, from idx files, HDF5 datasets and folders."""

import gzip

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from invdiff import InputError, load_prior
from invdiff.datasets.labels import class_names, read_labels, spread
from invdiff.training.run import load_data, train
from invdiff.training.settings import TrainSettings
from invdiff.training.whole import WholeImages

COUNT = 40


def pictures():
    """Images whose brightness is their class: 0, 1 or 2, times a hundred."""
    classes = np.arange(COUNT) % 3
    noise = np.random.default_rng(0).integers(0, 20, (COUNT, 8, 8))
    return (100 * classes[:, None, None] + noise).astype(np.uint8), classes.astype(np.uint8)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def idx_folder(tmp_path):
    images, labels = pictures()
    write_idx(tmp_path / "images.gz", images)
    write_idx(tmp_path / "labels.gz", labels)
    return tmp_path


def settings(path, **data):
    data = {"path": str(path), "key": "images.gz", "labels": "labels.gz", "holdout": 4, "patch": [8], **data}
    network = {"channels": 1, "widths": [16, 16], "depths": [1, 1], "embedding": 16, "classes": 3 if data["labels"] else 0}
    return TrainSettings.model_validate({"name": "tiny", "data": data, "network": network, "precision": "fp32",
                                         "optimiser": {"steps": 12, "batch": 6, "rate": 0.01, "warmup": 1},
                                         "monitor": {"sheet": 4, "sheet_size": 8, "sheet_steps": 2}})


def assert_bright_as_their_class(batch):
    x0, grey, classes = batch
    assert x0.shape[1:] == (1, 8, 8)
    assert not grey.any()
    brightness = (x0.mean((1, 2, 3)) * 255 / 100).floor().long()
    assert (classes[classes >= 0] == brightness[classes >= 0]).all()


def test_images_keep_their_classes_and_some_are_shown_without(idx_folder):
    patches, held, _ = load_data(settings(idx_folder))
    batch = patches.batch(2000, 8, np.random.default_rng(0))
    assert_bright_as_their_class(batch)
    dropped = (batch[2] == -1).double().mean().item()
    assert dropped == pytest.approx(0.1, abs=4 * (0.09 / 2000) ** 0.5)
    assert [tuple(image.shape) for image in held] == [(1, 8, 8)] * 4


def test_the_same_from_an_hdf5_file_and_from_folders(tmp_path):
    images, labels = pictures()
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"], file["labels"] = images, labels
    assert_bright_as_their_class(load_data(settings(tmp_path / "data.h5", key="images", labels="labels"))[0].batch(
        50, 8, np.random.default_rng(1)))
    folder = tmp_path / "folder"
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "abc"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "abc"[label] / f"{i}.png")
    assert_bright_as_their_class(load_data(settings(folder, labels="folders"))[0].batch(50, 8, np.random.default_rng(1)))
    assert class_names(folder, "folders", (), 3) == ["a", "b", "c"]
    assert class_names(folder, "folders", ("x", "y", "z"), 3) == ["x", "y", "z"]
    with pytest.raises(InputError, match=r"expected 2 folders, as network\.classes = 2, got 3"):
        read_labels(folder, "folders", COUNT, 2)
    Image.fromarray(images[0]).save(folder / "stray.png")
    with pytest.raises(InputError, match=r"stray\.png lies beside the folders"):
        load_data(settings(folder, labels="folders"))


def test_what_is_kept_back_is_of_all_classes_also_where_they_come_one_after_the_other(tmp_path):
    counts = (15, 15, 3)
    for name, count in zip("abc", counts, strict=True):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.fromarray(np.full((8, 8), 100 * "abc".index(name), np.uint8)).save(tmp_path / name / f"{i}.png")
    patches, held, _ = load_data(settings(tmp_path, labels="folders", holdout=11))
    assert [round(float(image.mean()) * 2.55) for image in held] == [0] * 5 + [1] * 5 + [2]
    assert np.bincount(patches.labels).tolist() == [10, 10, 2]
    assert_bright_as_their_class(patches.batch(50, 8, np.random.default_rng(0)))
    with pytest.raises(InputError, match=r"data\.labels: no image to train on is of a, c; give some, keep back fewer"):
        load_data(settings(tmp_path, labels="folders", holdout=32))


def test_spread_takes_of_each_class_its_share():
    labels = np.arange(600) % 3
    chosen = spread(labels, 60)
    assert len(set(chosen)) == 60
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(labels[chosen]).tolist() == [20, 20, 20]
    assert spread(labels, 599).tolist() == sorted(set(spread(labels, 599)))


def test_a_class_of_no_image_is_refused(idx_folder):
    run = settings(idx_folder, class_names=["dark", "grey", "bright"])
    write_idx(idx_folder / "labels.gz", (np.arange(COUNT) % 2 * 2).astype(np.uint8))
    with pytest.raises(InputError, match="no image to train on is of grey"):
        load_data(run)


def test_a_share_of_a_batch_is_what_the_whole_batch_has_there():
    images, labels = pictures()
    source = WholeImages([np.repeat(i[..., None], 3, 2) for i in images], 1, labels, 0.3)
    whole, share = (source.batch(9, 8, np.random.default_rng(2), part) for part in (slice(None), slice(1, None, 3)))
    for a, b in zip(whole, share, strict=True):
        torch.testing.assert_close(a[1::3], b)


def test_half_are_mirrored_if_that_is_allowed():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 0] = 255
    for flips, expected in ((True, 0.5), (False, 0.0)):
        x0, _ = WholeImages([image], 3, flips=flips).batch(1000, 8, np.random.default_rng(0))
        assert x0[:, 0, 0, 7].mean().item() == pytest.approx(expected, abs=4 * 0.5 / 1000**0.5)


def test_a_conditional_prior_is_trained_and_named_after_its_classes(idx_folder, tmp_path):
    run = settings(idx_folder, class_names=["dark", "grey", "bright"])
    prior = load_prior(train(run, tmp_path / "out"))
    assert prior.card["classes"] == ["dark", "grey", "bright"]
    x = torch.rand(3, 1, 8, 8)
    assert prior(x, 0.5, torch.arange(3)).shape == x.shape
    assert prior.network.label.weight.abs().sum(1).gt(0).all()        # each class was seen, and so was none


def test_a_name_for_each_class_or_none_at_all(idx_folder):
    with pytest.raises(ValidationError, match=r"a name for each of its 3 classes, and data\.class_names has 2"):
        settings(idx_folder, class_names=["dark", "grey"])


@pytest.mark.parametrize(("change", "words"), [({"labels": None}, None), ({"labels": "images.gz"}, "40 whole numbers"),
                                               ({"labels": "none.gz"}, "no such file"), ({"patch": [16]}, "taken whole")])
def test_what_does_not_fit_is_refused(idx_folder, change, words):
    run = settings(idx_folder, **change)
    if words is None:
        assert len(load_data(run)[0].batch(2, 8, np.random.default_rng(0))) == 2        # no classes, which is fine
        return
    with pytest.raises(InputError, match=words):
        load_data(run)[0].batch(2, max(run.data.patch), np.random.default_rng(0))


def test_labels_out_of_range_and_classes_without_labels_are_refused(idx_folder):
    with pytest.raises(InputError, match=r"classes 0 to 1, as network\.classes = 2, got 0 to 2"):
        read_labels(idx_folder, "labels.gz", COUNT, 2)
    run = settings(idx_folder)
    with pytest.raises(InputError, match="give both, or neither"):
        load_data(run.model_copy(update={"data": run.data.model_copy(update={"labels": None, "patch": (4,)})}))


def test_settings_of_patches_are_refused(idx_folder):
    for change in ({"grey": 0.1}, {"scales": [1.0, 0.5]}):
        with pytest.raises(InputError, match=f"data.{next(iter(change))}: is for patches"):
            load_data(settings(idx_folder, **change))


def test_images_of_several_sizes_are_refused():
    with pytest.raises(InputError, match="8 x 8, the first one's height, got 8 x 9 for image 1"):
        WholeImages([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], 1)
