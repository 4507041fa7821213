"""A small classifier of noisy images, p(c | x, sigma), and its file.

One network has two uses. At sigma = 0 its last hidden layer is what scores of generated images are computed of. At any sigma
the gradient of its log-probabilities guides a sampler (Dhariwal & Nichol 2021, Sec. 4).
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invdiff.errors import InputError
from invdiff.paths import bundled
from invdiff.priors.checkpoint import card_of, filled, half_precision, matching, read_tensors, write_tensors
from invdiff.priors.networks import check_sizes
from invdiff.priors.unet import NoiseEmbedding, Stage

FORMAT = "invdiff-classifier-1"


class Classifier(nn.Module):
    """log p(c | x, sigma) for x = x0 + sigma n, images (B, C, H, W) in [0, 1] and sigma in the same units.

    Residual convolutional blocks at 1/2, 1/4 ... of the image's resolution, scaled and shifted by the noise level, and a hidden
    layer that sees all of the image, averaged to grid x grid. x is centred, and scaled to unit variance at every noise level
    (Karras et al. 2022, Table 1).

    Args:
        classes, channels: how many.
        widths, depths: channels and blocks of each resolution.
        grid, num_features: of the hidden layer.
        embedding: size of the noise level's embedding.
        sigma_data, centre: standard deviation and mean of clean images.
        low: the noise level as which those below it are embedded, sigma = 0 too.
    """

    def __init__(self, classes: int = 10, channels: int = 1, widths: Sequence[int] = (32, 64, 128),
                 depths: Sequence[int] = (1, 2, 2), grid: int = 4, num_features: int = 128, embedding: int = 128,
                 sigma_data: float = 0.35, centre: float = 0.29, low: float = 0.002):
        super().__init__()
        check_sizes(widths, depths, num_features)
        self.channels, self.grid, self.num_features = channels, grid, num_features
        self.sigma_data, self.centre, self.low = sigma_data, centre, low
        self.embed = NoiseEmbedding(embedding)
        self.stem = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(Stage(w, d, embedding) for w, d in zip(widths, depths, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.hidden = nn.Linear(widths[-1] * grid**2, num_features)
        self.head = nn.Linear(num_features, classes)
        self.card: dict[str, Any] = {}

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.head.out_features

    def features(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """The last hidden layer, (B, num_features); sigma a float or (B,). Raises ValueError for other channels."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x: expected (B, {self.channels}, H, W), got {tuple(x.shape)}")
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1).expand(len(x))
        z = (x - self.centre) / (level.square() + self.sigma_data**2).sqrt().reshape(-1, 1, 1, 1)
        emb = self.embed(level.clamp_min(self.low).log())
        h = self.stem(F.pixel_unshuffle(self._padded(z), 2))
        for i, stage in enumerate(self.stages):
            h = stage(self.down[i - 1](h) if i else h, emb)
        h = F.adaptive_avg_pool2d(F.silu(h), self.grid)
        return F.silu(self.hidden(h.flatten(1))).to(x.dtype)

    def log_probs(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """log p(c | x, sigma) of every class, (B, classes); it can be differentiated in x."""
        return self.of_features(self.features(x, sigma))

    def of_features(self, features: Tensor) -> Tensor:
        """log p(c | features), (B, classes)."""
        return self.head(features).to(features.dtype).log_softmax(1)

    forward = log_probs

    def _padded(self, z: Tensor) -> Tensor:
        """z with its border repeated on all sides, up to the next size that can be halved at every resolution."""
        stride = 2 ** len(self.stages)
        below, beside = (-n % stride for n in z.shape[-2:])
        z = F.pad(z, (beside // 2, beside - beside // 2, below // 2, below - below // 2), mode="replicate")
        return z.contiguous(memory_format=torch.channels_last)


def save_classifier(path: str | Path, classifier: Classifier, card: dict[str, Any]) -> None:
    """Write weights (float16) and card; the file is complete or absent. card["architecture"] is `Classifier`'s arguments."""
    write_tensors(path, half_precision(classifier), {"format": FORMAT, "card": json.dumps(card)})


def shipped_classifiers() -> dict[str, Path]:
    """The classifiers that travel with invdiff, by name."""
    return {path.stem: path for path in sorted(bundled("data", "features").glob("*.safetensors"))}


def load_classifier(name: str | Path) -> Classifier:
    """A shipped classifier by name, or one of a file that was trained here; in evaluation mode, with its `.card`.

    Raises:
        InputError: no such name or file, or a file that is no classifier, truncated, or does not fit its card.
    """
    shipped = shipped_classifiers()
    if str(name) not in shipped and Path(name).suffix != ".safetensors":
        raise InputError(f"classifier: none is called {str(name)!r}; shipped are {', '.join(shipped) or 'none'}, or give the "
                         "path of a .safetensors file that the training of a classifier wrote")
    path = shipped.get(str(name), Path(name))
    tensors, metadata = read_tensors(path)
    with matching(path, "a classifier"):
        card = card_of(metadata, FORMAT)
        classifier = filled(lambda: Classifier(**card["architecture"]), tensors)
    classifier.card = card
    return classifier.eval().requires_grad_(False)
