"""Training of a classifier of clean and of noisy images: `invdiff train configs/train/fashion-classifier.yaml`."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from invdiff.datasets.darkness import said_if_dark
from invdiff.datasets.images import in_unit_range, named_in
from invdiff.datasets.labels import FOLDERS, held_back, read_labels
from invdiff.datasets.pixels import check_apart, check_holdout, load_whole
from invdiff.errors import InputError
from invdiff.evaluation.generative.classifier import Classifier, load_classifier, save_classifier
from invdiff.machine import hardware
from invdiff.priors.networks import Depths, Width, Widths
from invdiff.training.averages import Averages
from invdiff.training.settings import Frozen, ImageSettings, Name
from invdiff.training.short import finished_short, optimise, run_of, run_short

LEVELS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)      # of the card's accuracies
_TOGETHER = 500                                         # images that are looked at together

Labelled = tuple[np.ndarray, np.ndarray]                # images (N, C, H, W), uint8 or float32, and classes (N,) int64


class LabelledSettings(ImageSettings):
    """Images as for an autoencoder, and their classes: an idx file, a dataset of the HDF5 file, or "folders", where an image's
    folder is its class, in alphabetical order. `test` has its own, `test_labels`."""

    labels: str
    test_labels: str | None = None
    class_names: tuple[str, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _test_has_classes(self) -> "LabelledSettings":
        if (self.test is None) != (self.test_labels is None):
            raise ValueError("test_labels: says the classes of test; give both, or neither")
        return self


class ClassifierNetwork(Frozen):
    """`invdiff.evaluation.generative.classifier.Classifier` says what each means."""

    channels: Literal[1, 3] = 1
    widths: Widths = (32, 64, 128)
    depths: Depths = (1, 2, 2)
    grid: PositiveInt = 4
    num_features: Width = 128
    embedding: int = Field(128, ge=8)
    sigma_data: PositiveFloat = 0.35
    centre: float = 0.29
    low: PositiveFloat = 0.002


class ClassifierSettings(Frozen):
    """One run. A share `noisy` of each batch is x0 + sigma n, with log sigma uniform from network.low to `high`; the rest is
    clean. `initial` is the file whose weights it begins with; random ones without it. Images are moved by up to `shift` pixels
    each way. AdamW with warm-up, and over the last `decay` of the steps a linear decay of the rate to zero; `ema_gamma` sets
    over which share of the run the weights are averaged (invdiff.training.averages)."""

    kind: Literal["classifier"]
    name: Name
    initial: str | None = None
    data: LabelledSettings
    network: ClassifierNetwork = ClassifierNetwork()
    noisy: float = Field(0.5, ge=0, le=1)
    high: PositiveFloat = 40.0
    shift: int = Field(2, ge=0)
    steps: PositiveInt = 5000
    batch: PositiveInt = 128
    rate: PositiveFloat = 2e-3
    warmup: PositiveInt = 100
    decay: float = Field(0.6, gt=0, le=1)
    weight_decay: float = Field(0.05, ge=0)
    clip: PositiveFloat = 1.0
    ema_gamma: PositiveFloat = 16.0
    precision: Literal["fp32", "bf16"] = "bf16"
    seed: int = Field(0, ge=0, lt=2**63)
    use: str = ""


class ClassifierTrainer:
    """The state of a run: network, its averaged copy, optimiser, and the data, uint8 or float, in memory."""

    def __init__(self, settings: ClassifierSettings, device: str | torch.device = "cpu"):
        s = self.settings = settings
        self.device = torch.device(device)
        classes = len(s.data.class_names)
        (self.images, self.labels), self.test = load_both(s.data, classes, s.network.channels)
        torch.manual_seed(s.seed)
        self.architecture = {"classes": classes, **s.network.model_dump(mode="json")}
        self.network = Classifier(**self.architecture).to(self.device).to(memory_format=torch.channels_last)
        earlier = self._earlier(s.initial) if s.initial else None
        if earlier:
            self.network.load_state_dict(earlier.state_dict())
        self.run = run_of(s, self.images, self.labels, *self.test, initial=earlier and earlier.card["training"])
        self.averages = Averages(self.network, (s.ema_gamma,))
        self.average = self.averages.copies[0]
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=s.rate, weight_decay=s.weight_decay)
        # seconds of all cores together on a CPU, where another run may take its time
        self.clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        self.seconds = 0.0

    def _earlier(self, initial: str) -> Classifier:
        earlier = load_classifier(initial)
        if earlier.card["architecture"] != self.architecture:
            raise InputError(f"initial: {initial} is another network than this run's; expected {self.architecture}, got "
                             f"{earlier.card['architecture']}")
        return earlier

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, C, H, W), sigma (B,), classes (B,): a function of the seed and the step."""
        s, rng = self.settings, np.random.default_rng([self.settings.seed, step])
        per_epoch = max(1, len(self.images) // s.batch)
        order = np.random.default_rng([s.seed, step // per_epoch, 1]).permutation(len(self.images))
        chosen = np.take(order, range(step % per_epoch * s.batch, (step % per_epoch + 1) * s.batch), mode="wrap")
        x = moved(in_unit_range(self.images[chosen]), s.shift, rng)
        sigma = np.exp(rng.uniform(math.log(s.network.low), math.log(s.high), s.batch))
        sigma[: s.batch - round(s.noisy * s.batch)] = 0
        x = x + sigma.astype(np.float32)[:, None, None, None] * rng.standard_normal(x.shape, dtype=np.float32)
        return torch.from_numpy(x), torch.from_numpy(sigma).float(), torch.from_numpy(self.labels[chosen])

    def step(self, number: int) -> dict[str, float]:
        """The step of a number, from 0; returns its mean cross entropy, in nats."""
        s, started = self.settings, self.clock()
        x, sigma, classes = (part.to(self.device) for part in self.batch(number))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            features = self.network.features(x, sigma)
        loss = F.nll_loss(self.network.of_features(features.float()), classes)
        optimise(self, number, loss)
        self.seconds += self.clock() - started
        return {"loss": loss.item()}


def train_classifier(settings: ClassifierSettings, output: str | Path, device: str = "cpu", *,
                     on_step: Callable[[int, float], object] | None = None,
                     on_remark: Callable[[str], object] | None = None) -> Path:
    """Train to the end; returns the path of NAME.safetensors in `output`, beside log.jsonl. `on_step` gets the number of steps
    done and the running loss, `on_remark`, before the first, what is to be said of the images, if anything. It takes minutes,
    and cannot go on from the middle; where it is done already, nothing is.

    Raises InputError for unusable data or where it diverges, and KeyboardInterrupt.
    """
    output = Path(output)
    path = output / f"{settings.name}.safetensors"
    trainer = ClassifierTrainer(settings, device)
    if not finished_short(path, trainer.run):
        if on_remark and (said := said_if_dark(trainer.images)):
            on_remark(said)
        run_short(trainer, output, on_step)
        save_classifier(path, trainer.average, make_card(trainer))
    return path


def make_card(trainer: ClassifierTrainer) -> dict[str, Any]:
    """What a user must know of the classifier, with the accuracy on test images at several noise levels."""
    s = trainer.settings
    images, labels = trainer.test
    return {
        "name": s.name, "architecture": trainer.architecture, "classes": list(s.data.class_names),
        "sigma_range": [0.0, s.high], "data": s.data.description, "licence": s.data.licence, "use": s.use,
        "accuracy": {f"{level:g}": accuracy(trainer.average, images, labels, level) for level in LEVELS},
        "training": {**trainer.run, "minutes": round(trainer.seconds / 60, 2), "hardware": hardware(trainer.device)},
    }


@torch.no_grad()
def accuracy(classifier: Classifier, images: np.ndarray, labels: np.ndarray, sigma: float = 0.0) -> float:
    """Share of images (N, C, H, W), with white noise of `sigma` added, whose likeliest class is the right one."""
    device, rng, right = next(classifier.parameters()).device, np.random.default_rng(0), 0
    for i in range(0, len(images), _TOGETHER):
        x = in_unit_range(images[i : i + _TOGETHER])
        x = x + np.float32(sigma) * rng.standard_normal(x.shape, dtype=np.float32)
        guesses = classifier.log_probs(torch.from_numpy(x).to(device), sigma).argmax(1).cpu().numpy()
        right += int((guesses == labels[i : i + _TOGETHER]).sum())
    return round(right / len(images), 4)


def moved(x: np.ndarray, shift: int, rng: np.random.Generator) -> np.ndarray:
    """Each image of (B, C, H, W) moved by its own whole number of pixels, up to `shift` each way; zeros come in."""
    if not shift:
        return x
    (count, _, height, width), offsets = x.shape, rng.integers(0, 2 * shift + 1, (len(x), 2))
    padded = np.pad(x, ((0, 0), (0, 0), (shift, shift), (shift, shift)))
    rows, columns = (offsets[:, [axis]] + np.arange(n) for axis, n in enumerate((height, width)))
    numbers = np.arange(count)[:, None, None]
    return padded.transpose(0, 2, 3, 1)[numbers, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)


def load_both(data: LabelledSettings, classes: int, channels: int) -> tuple[Labelled, Labelled]:
    """What is trained on, and what the card's accuracies are of. Raises InputError."""
    if data.test is not None and data.test_labels is not None:
        check_apart(data.path, data.key, data.test)
        return (load_labelled(data.path, data.key, data.labels, classes, channels),
                load_labelled(data.path, data.test, data.test_labels, classes, channels))
    images, labels = load_labelled(data.path, data.key, data.labels, classes, channels)
    check_holdout(data.holdout, len(images))
    held = held_back(labels, data.holdout, data.labels)
    kept = np.setdiff1d(np.arange(len(labels)), held)
    return (images[kept], labels[kept]), (images[held], labels[held])


def load_labelled(path: str | Path, key: str | None, labels: str, classes: int, channels: int) -> Labelled:
    """All images, (N, C, H, W), and their classes (N,) int64. Raises InputError."""
    array = load_whole(path, key, channels)
    where = named_in(path, key, "data")[0] if labels == FOLDERS else path       # folders of classes lie in what `key` names
    return array, read_labels(where, labels, len(array), classes)
