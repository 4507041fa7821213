"""The networks that scores look through: the classifier and its file, InceptionV3 and what is refused, and sets of images."""

import gzip
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from numpy.lib.format import write_array_header_1_0

from invdiff.errors import InputError
from invdiff.evaluation.generative import features
from invdiff.evaluation.generative.classifier import Classifier, load_classifier, save_classifier, shipped_classifiers
from invdiff.evaluation.generative.features import ClassifierFeatures, feature_network, look, to_bytes
from invdiff.evaluation.generative.references import Images, reference, reference_images, sample_images
from invdiff.io.images import save_image
from invdiff.priors.checkpoint import write_tensors

TINY = {"classes": 3, "channels": 1, "widths": [8, 8], "depths": [1, 1], "grid": 2, "num_features": 6, "embedding": 16}
NAMES = ["a", "b", "c"]


def tiny(seed=0):
    torch.manual_seed(seed)
    classifier = Classifier(**TINY)
    with torch.no_grad():
        for parameter in classifier.parameters():       # its blocks start as the identity
            parameter.add_(0.1 * torch.randn_like(parameter))
    return classifier.eval()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_classifier(path, tiny(), {"architecture": TINY, "classes": NAMES, "licence": "none"})
    return path


def images(count, channels=1, seed=0):
    return torch.rand(count, channels, 12, 12, generator=torch.Generator().manual_seed(seed))


class TestClassifier:
    def test_probabilities_and_features(self):
        x, classifier = images(4), tiny()
        for sigma in (0.0, 0.5, torch.tensor([0.0, 0.1, 1.0, 40.0])):
            log_probs = classifier.log_probs(x, sigma)
            assert log_probs.shape == (4, 3)
            assert torch.allclose(log_probs.exp().sum(1), torch.ones(4))
            assert torch.equal(classifier.of_features(classifier.features(x, sigma)), log_probs)
        assert classifier.features(x).shape == (4, classifier.num_features)
        assert classifier(x).equal(classifier.log_probs(x, 0.0))

    def test_each_image_has_its_own_noise_level(self):
        x, classifier = images(3), tiny()
        levels = torch.tensor([0.0, 0.3, 5.0])
        together = classifier.log_probs(x, levels)
        for i, level in enumerate(levels):
            assert torch.allclose(together[i], classifier.log_probs(x[i : i + 1], float(level))[0], atol=1e-6)
        assert not torch.allclose(together[1], classifier.log_probs(x[1:2], 5.0)[0], atol=1e-3)

    def test_the_gradient_that_guides_is_that_of_the_log_probability(self):
        """Against central differences."""
        classifier, x = tiny(), images(1).requires_grad_()
        classifier.log_probs(x, 0.7)[0, 1].backward()
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            ahead, behind = (classifier.log_probs(x + step * direction, 0.7)[0, 1] for step in (0.02, -0.02))
        assert float((x.grad * direction).sum()) == pytest.approx(float(ahead - behind) / 0.04, rel=0.01)

    def test_any_size_that_has_a_pixel_for_the_grid(self):
        for size in ((28, 28), (9, 13), (5, 4)):
            assert tiny().log_probs(torch.rand(2, 1, *size)).isfinite().all()

    def test_other_channels_are_refused(self):
        with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\)"):
            tiny().features(images(2, channels=3))


class TestFile:
    def test_comes_back_with_its_card(self, file):
        classifier = load_classifier(file)
        assert classifier.card["classes"] == NAMES
        assert not classifier.training
        assert not any(p.requires_grad for p in classifier.parameters())
        x = images(5)
        assert torch.allclose(classifier.log_probs(x), tiny().log_probs(x), atol=5e-3)      # weights in half precision

    def test_what_is_no_classifier_is_refused(self, file, tmp_path):
        (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-50])
        (tmp_path / "text.safetensors").write_text("hello")
        write_tensors(tmp_path / "other.safetensors", {"w": torch.zeros(2)}, {"format": "invdiff-prior-1", "card": "{}"})
        wrong = TINY | {"widths": [8, 16]}
        save_classifier(tmp_path / "wrong.safetensors", tiny(), {"architecture": wrong})
        save_classifier(tmp_path / "none.safetensors", tiny(), {"classes": NAMES})
        write_tensors(tmp_path / "card.safetensors", {"w": torch.zeros(2)}, {"format": "invdiff-classifier-1", "card": "{"})
        for name, words in {"cut": "truncated", "text": "not a safetensors", "other": "not a classifier",
                            "wrong": "do not match", "none": "do not match", "card": "do not match",
                            "absent": "no such file"}.items():
            with pytest.raises(InputError, match=words):
                load_classifier(tmp_path / f"{name}.safetensors")

    def test_a_name_that_is_none(self):
        with pytest.raises(InputError, match="none is called 'fassion'"):
            load_classifier("fassion")

    @pytest.mark.parametrize("name", shipped_classifiers())
    def test_what_is_shipped_says_what_it_is(self, name):
        path, classifier = shipped_classifiers()[name], load_classifier(name)
        assert path.stat().st_size < 3_000_000
        card = classifier.card
        assert {"data", "licence", "accuracy", "training", "use"} <= set(card)
        assert len(card["classes"]) == classifier.classes
        assert "path" not in card["training"]["settings"]["data"]
        assert classifier.log_probs(torch.rand(2, classifier.channels, 28, 28), 0.1).isfinite().all()


class TestNetworks:
    def test_grey_and_colour_are_the_same_to_a_grey_classifier(self, file):
        network = feature_network(str(file))
        x = to_bytes(images(3))
        assert network.name == "tiny"
        assert network.classes == NAMES
        assert torch.allclose(network.look(x)[0], network.look(x.expand(-1, 3, -1, -1))[0], atol=1e-5)

    def test_batches_change_nothing(self, file):
        network, x = feature_network(str(file)), to_bytes(images(10))
        whole, split = look(network, [x]), look(network, x.split(3))
        assert torch.allclose(whole.features, split.features, atol=1e-5)
        assert len(split) == 10

    def test_nothing_to_look_at_and_classes_of_other_images(self, file):
        network = feature_network(str(file))
        with pytest.raises(ValueError, match="got none"):
            look(network, [])
        with pytest.raises(ValueError, match="one for each of 4"):
            look(network, [to_bytes(images(4))], torch.zeros(3))

    def test_bytes_are_rounded_and_clipped(self):
        assert to_bytes(torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 3.0])).tolist() == [0, 0, 0, 1, 255, 255]

    def test_inception_is_refused_where_it_cannot_be(self, tmp_path, monkeypatch):
        monkeypatch.setattr(features, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"invdiff\[evaluate\]"):
            feature_network("inception")
        monkeypatch.setattr(features, "find_spec", lambda name: True)
        with pytest.raises(InputError, match=r"are not at .*absent.pth; download https://"):
            feature_network(f"inception:{tmp_path / 'absent.pth'}")
        (tmp_path / "hostile.pth").write_bytes(b"\x80\x04cos\nsystem\n.")         # a pickle, which is never opened
        with pytest.raises(InputError, match="damaged, or other weights"):
            feature_network(f"inception:{tmp_path / 'hostile.pth'}")

    def test_inception_as_torch_fidelity_has_it(self, tmp_path, monkeypatch):
        """With random weights, as the real ones are 90 MB: shapes, grey images, and that probabilities are ones."""
        pytest.importorskip("torch_fidelity")
        monkeypatch.setattr(features, "inception_weights", lambda path: tmp_path / "none")
        monkeypatch.setattr(torch, "load", lambda *a, **k: {})
        monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *a, **k: None)
        network = feature_network("inception")
        found, log_probs = network.look(to_bytes(images(2)))
        assert found.shape == (2, 2048)
        assert log_probs.shape == (2, 1008)
        assert torch.allclose(log_probs.exp().sum(1), torch.ones(2), atol=1e-4)


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture
def folder(tmp_path):
    """idx files of 40 training and 20 test images, with their classes."""
    rng, folder = np.random.default_rng(0), tmp_path / "idx"
    folder.mkdir()
    for name, count in (("train", 40), ("t10k", 20)):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 12, 12), dtype=np.uint8))
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", (np.arange(count) % 3).astype(np.uint8))
    return folder


class TestImageSets:
    def test_a_folder_of_idx_files_is_known(self, folder, file):
        real, apart = reference_images(folder, None, None)
        assert (len(real), len(apart)) == (40, 20)
        assert real.classes.tolist() == [i % 3 for i in range(40)]
        assert next(iter(real.batches(7))).shape == (7, 3, 12, 12)
        found, names = reference(feature_network(str(file)), folder)
        assert (found.statistics.count, len(found.kept_apart)) == (40, 20)
        assert names == {"reference": "train-images-idx3-ubyte.gz", "kept_apart": "t10k-images-idx3-ubyte.gz"}

    def test_the_other_way_round(self, folder):
        test, train = "t10k-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz"
        real, apart = reference_images(folder, test, train)
        assert (len(real), len(apart)) == (20, 40)
        for named in (test, str(folder / test), f"../{folder.name}/{test}"):
            assert reference_images(folder, named, None)[1] is None

    def test_folders_of_images_by_name_and_by_path(self, tmp_path):
        for name, count in (("a", 3), ("b", 2), ("c", 4)):
            (tmp_path / "set" / name).mkdir(parents=True)
            for i, image in enumerate(images(count)):
                save_image(tmp_path / "set" / name / f"{i}.png", image)
        data = tmp_path / "set"
        for key, floor in (("a", "b"), (str(data / "a"), str(data / "b"))):
            real, apart = reference_images(data, key, floor)
            assert (len(real), real.source, len(apart), apart.source) == (3, "a", 2, "b")
        assert len(reference_images(data / "a", None, str(data / "c"))[1]) == 4
        real, apart = reference_images(data, None, None)
        assert (len(real), apart) == (9, None)
        for key, floor, words in ((None, "absent", "--floor: no idx file or folder of images called absent in .*set"),
                                  ("absent", None, "--key: no idx file or folder"), (None, "b", "--floor: b is not kept apart"),
                                  ("b", str(data), "is not kept apart"), ("b", "b", "is not kept apart")):
            with pytest.raises(InputError, match=words):
                reference_images(data, key, floor)

    def test_idx_files_elsewhere_keep_their_classes(self, folder):
        other = folder.parent / "other"
        other.mkdir()
        for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
            (folder / name).rename(other / name)
        apart = reference_images(folder, None, str(other / "t10k-images-idx3-ubyte.gz"))[1]
        assert apart.classes.tolist() == [i % 3 for i in range(20)]

    def test_classes_that_the_network_does_not_know(self, folder, file):
        write_idx(folder / "train-labels-idx1-ubyte.gz", np.full(40, 3, np.uint8))
        with pytest.raises(InputError, match="expected classes below 3"):
            reference(feature_network(str(file)), folder)

    def test_pngs_and_arrays_are_the_same_images(self, tmp_path):
        x = to_bytes(images(4, channels=3))
        for i, image in enumerate(x):
            save_image(tmp_path / f"{i}.png", image / 255)
        np.save(tmp_path / "first.npy", x.numpy())
        np.save(tmp_path / "last.npy", x.permute(0, 2, 3, 1).numpy())
        np.savez(tmp_path / "floats.npz", images=(x / 255).numpy(), classes=np.arange(4))
        for source in (tmp_path, tmp_path / "first.npy", tmp_path / "last.npy", tmp_path / "floats.npz"):
            assert torch.equal(torch.cat(list(sample_images(source).batches(3))), x), source
        assert sample_images(tmp_path / "floats.npz").classes.tolist() == [0, 1, 2, 3]
        np.save(tmp_path / "grey.npy", x[:, 0].numpy())
        assert next(sample_images(tmp_path / "grey.npy").batches()).shape == (4, 1, 12, 12)

    def test_a_folder_that_invdiff_sample_wrote(self, tmp_path):
        x = images(5)
        save_image(tmp_path / "samples.png", x[0])
        np.savez(tmp_path / "samples.npz", images=x.numpy())
        assert len(sample_images(tmp_path)) == 5

    def test_classes_of_samples_count_only_under_the_names_in_their_report(self, tmp_path):
        np.savez(tmp_path / "samples.npz", images=images(2).numpy(), classes=np.arange(2))
        for report, names in ({"classes": ["dark", "bright"]}, ["dark", "bright"]), ({}, ["shirt", "bag", "boot"]):
            (tmp_path / "report.json").write_text(json.dumps(report))
            assert sample_images(tmp_path, names).classes.tolist() == [0, 1]
        (tmp_path / "report.json").write_text(json.dumps({"classes": ["dark", "bright"]}))
        for path in (tmp_path, tmp_path / "samples.npz"):
            assert sample_images(path, ["shirt", "bag", "boot"]).classes is None
        (tmp_path / "report.json").write_text("[")
        with pytest.raises(InputError, match=r"report\.json: expected the report"):
            sample_images(tmp_path, ["shirt"])

    def test_what_is_no_set_of_images_is_refused(self, tmp_path):
        np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
        np.save(tmp_path / "flat.npy", np.zeros((4, 9)))
        np.save(tmp_path / "integers.npy", np.zeros((4, 9, 9), int))
        np.save(tmp_path / "scale.npy", np.full((4, 9, 9), 255.0))
        np.save(tmp_path / "nan.npy", np.full((4, 9, 9), np.nan))
        np.savez(tmp_path / "names.npz", x=np.zeros((4, 9, 9)))
        np.savez(tmp_path / "classes.npz", images=np.zeros((4, 9, 9)), classes=np.zeros(3, int))
        (tmp_path / "text.npz").write_text(json.dumps({}))
        (tmp_path / "cut.npz").write_bytes((tmp_path / "classes.npz").read_bytes()[:60])
        for name, words in {"pickle.npy": "numbers", "flat.npy": "expected", "integers.npy": "uint8 or floats",
                            "names.npz": "called images", "scale.npy": "in \\[0, 1\\]", "nan.npy": "finite",
                            "classes.npz": "4 whole numbers",
                            "text.npz": "of numbers", "cut.npz": "of numbers", "absent.npy": "no such file"}.items():
            with pytest.raises(InputError, match=words):
                sample_images(tmp_path / name)

    def test_a_bomb_is_not_unpacked(self, tmp_path, monkeypatch):
        np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((100, 50, 50)))
        monkeypatch.setattr("invdiff.evaluation.generative.references.MAX_BYTES", 1_000_000)
        (tmp_path / "bomb.npy").write_bytes((tmp_path / "bomb.npz").read_bytes())       # read as what it is, not as called
        for name in ("bomb.npz", "bomb.npy"):
            with pytest.raises(InputError, match=rf"^\S*{name}: unpacks to more than"):
                sample_images(tmp_path / name)

    def test_an_array_of_more_than_memory_is_refused(self, tmp_path):
        with (tmp_path / "vast.npy").open("wb") as file:
            write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**4, 10**4)})
        with zipfile.ZipFile(tmp_path / "vast.npz", "w") as archive:
            archive.write(tmp_path / "vast.npy", "images.npy")
        for name in ("vast.npy", "vast.npz"):
            with pytest.raises(InputError, match="Unable to allocate"):
                sample_images(tmp_path / name)

    def test_images_of_several_sizes_are_refused(self, tmp_path):
        save_image(tmp_path / "a.png", images(1)[0])
        save_image(tmp_path / "b.png", torch.rand(1, 8, 8))
        for read in (sample_images, lambda path: reference_images(path, None, None)):
            with pytest.raises(InputError, match="several sizes"):
                read(tmp_path)

    def test_classes_go_along_only_where_they_mean_something(self, file):
        network = ClassifierFeatures(tiny(), "untold")
        batch = Images(to_bytes(images(4)), torch.zeros(4, dtype=torch.long), "x")
        assert batch.seen_by(network).classes is None
        assert batch.seen_by(feature_network(str(file))).classes.tolist() == [0, 0, 0, 0]
