"""The network that scores look through: a classifier that was trained here, or InceptionV3."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.evaluation.generative.classifier import Classifier, load_classifier
from invdiff.io.files import checksum

INCEPTION_URL = ("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                 "weights-inception-2015-12-05-6726825d.pth")


class FeatureNetwork(Protocol):
    """Its `name`, its `classes` by name where they are known, and how to look at images."""

    name: str
    classes: list[str]

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, C, H, W) -> features (B, F) and log p(c | x) (B, K)."""
        ...


class ClassifierFeatures:
    """A classifier's last hidden layer at sigma = 0."""

    def __init__(self, classifier: Classifier, name: str):
        self.classifier, self.name = classifier, name
        self.classes: list[str] = classifier.card.get("classes", [])

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, C, H, W), C as the classifier's, or 3 equal ones for 1 -> features and log-probabilities."""
        x = images.to(next(self.classifier.parameters()).device).float() / 255
        if self.classifier.channels == 1 and x.shape[1] == 3:
            x = x.mean(1, keepdim=True)
        elif self.classifier.channels == 3 and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        features = self.classifier.features(x)
        return features, self.classifier.of_features(features)


class InceptionFeatures:
    """The pool layer (2048) and the class scores without bias of InceptionV3 as FID and the Inception score have it, resized as
    TensorFlow did (torch-fidelity)."""

    name = "inception"

    def __init__(self, weights: str | Path | None = None, device: str | torch.device = "cpu"):
        path = inception_weights(weights)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        layers = ["2048", "logits_unbiased"]
        network = FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=str(path))
        self.network, self.device = network.to(device).eval(), torch.device(device)
        self.classes: list[str] = []

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 1 or 3, H, W) -> features (B, 2048) and log-probabilities (B, 1008)."""
        features, scores = self.network(images.expand(-1, 3, -1, -1).to(self.device))
        return features, scores.log_softmax(1)


def inception_weights(path: str | Path | None = None) -> Path:
    """The weights' file: `path`, or the one in torch's folder of downloads.

    Raises:
        InputError: torch-fidelity is not installed, no such file, or not the one, told by its checksum, as it is unpickled.
    """
    if find_spec("torch_fidelity") is None:
        raise InputError('features: inception needs torch-fidelity: pip install "invdiff[evaluate]"')
    name = INCEPTION_URL.rsplit("/", 1)[1]
    file = Path(path) if path else Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        raise InputError(f"features: the weights of InceptionV3 are not at {file}; download {INCEPTION_URL} to there, or give "
                         "inception:FILE")
    if not checksum(file).startswith(name.removesuffix(".pth").rsplit("-", 1)[1]):
        raise InputError(f"features: {file} is damaged, or other weights than those of {INCEPTION_URL}; download it again")
    return file


def feature_network(name: str, device: str | torch.device = "cpu") -> FeatureNetwork:
    """A shipped classifier by name, the .safetensors file of one, "inception" or "inception:FILE". Raises InputError."""
    kind, _, file = name.partition(":")
    if kind == "inception":
        return InceptionFeatures(file or None, device)
    return ClassifierFeatures(load_classifier(name).to(device), Path(name).stem)


@dataclass(frozen=True)
class Looked:
    """What a network saw of N images, on the CPU: features (N, F), log p(c | x) (N, K); and the images' own classes (N,)
    and size (H, W), where they are known."""

    features: Tensor
    log_probs: Tensor
    classes: Tensor | None = None
    size: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, numbers: Tensor) -> "Looked":
        """Those of these numbers."""
        classes = None if self.classes is None else self.classes[numbers]
        return Looked(self.features[numbers], self.log_probs[numbers], classes, self.size)

    @classmethod
    def joined(cls, parts: Sequence["Looked"]) -> "Looked":
        """All of several sets, with classes where each has them. Raises InputError for images of different sizes."""
        sizes = [part.size for part in parts]
        if len(set(sizes)) > 1:
            named = ", ".join("x".join(map(str, size or ())) for size in sizes)
            raise InputError(f"samples: expected images of one size, got {named}")
        known = [part.classes for part in parts if part.classes is not None]
        return cls(torch.cat([part.features for part in parts]), torch.cat([part.log_probs for part in parts]),
                   torch.cat(known) if len(known) == len(parts) else None, sizes[0])


def look(network: FeatureNetwork, batches: Iterable[Tensor], classes: Tensor | None = None) -> Looked:
    """Features of batches of images uint8 (B, C, H, W). Raises ValueError where there are none, or other than `classes`."""
    parts, size = [], None
    for batch in batches:
        size = tuple(batch.shape[-2:])
        parts.append(tuple(part.cpu() for part in network.look(batch)))
    if not parts:
        raise ValueError("batches: expected images, got none")
    features, log_probs = (torch.cat(part) for part in zip(*parts, strict=True))
    if classes is not None and classes.shape != (len(features),):
        raise ValueError(f"classes: expected one for each of {len(features)} images, got {tuple(classes.shape)}")
    return Looked(features, log_probs, classes, size)


def to_bytes(images: Tensor) -> Tensor:
    """Floats in [0, 1] (any shape) -> uint8, clipped and rounded, as images in files are; uint8 is left as it is."""
    return images if images.dtype == torch.uint8 else images.float().clamp(0, 1).mul(255).round().to(torch.uint8)
