"""The networks that scores look through: the classifier and its file, InceptionV3 and what is refused."""


import pytest
import torch
from tiny_classifier import NAMES, TINY, images, tiny

from invdiff.errors import InputError
from invdiff.evaluation.generative import features
from invdiff.evaluation.generative.classifier import load_classifier, save_classifier, shipped_classifiers
from invdiff.evaluation.generative.features import feature_network, look, to_bytes
from invdiff.priors.checkpoint import write_tensors


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
