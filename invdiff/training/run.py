"""`invdiff train`: a Trainer with checkpoints, validation, a log and, at the end, a prior with its card."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from invdiff.datasets.complex_images import open_complex, open_magnitudes, to_channels
from invdiff.datasets.images import Cache, ImageSet, open_images
from invdiff.datasets.labels import class_names, held_back, read_labels
from invdiff.datasets.pixels import check_holdout, to_grey, to_rgb
from invdiff.errors import InputError
from invdiff.io.files import make_folder
from invdiff.priors.autoencoder import load_autoencoder
from invdiff.priors.checkpoint import read_card
from invdiff.training.beginning import weights_of
from invdiff.training.complex_patches import ComplexPatches
from invdiff.training.export import export, settings_told
from invdiff.training.identity import saved_state
from invdiff.training.latents import Latents, autoencoder, check_scale, encoded
from invdiff.training.loop import Progress, Trainer
from invdiff.training.monitor import Monitor
from invdiff.training.patches import Patches
from invdiff.training.processes import asking
from invdiff.training.settings import TrainSettings
from invdiff.training.whole import WholeImages


def train(settings: TrainSettings, output: str | Path, device: str = "cpu", *, save_seconds: float = 120.0,
          on_step: Callable[[Progress, Trainer], object] | None = None,
          on_call: Callable[[int, int], object] | None = None) -> Path:
    """Train to the end, from the last checkpoint in `output` if there is one; returns the prior's path.

    `output` gets state.safetensors (the resumable state), log.jsonl, samples/STEP.png, NAME.safetensors (the prior) and
    NAME.png (samples of it). Started by torchrun or accelerate in several processes, they train one network together, and
    the first of them writes, and calls `on_step`. `on_call` is that of `export`.
    Ctrl-C or SIGTERM end it after the step, and save; a second one ends it at once.
    Raises InputError for unusable data, a checkpoint of another or a longer run, a folder that cannot be written, too little
    memory, a run that diverges, or without accelerate, and KeyboardInterrupt.
    """
    output = Path(output)
    patches, held, test = load_data(settings)
    state = output / "state.safetensors"
    begun = state.exists()
    trainer = Trainer(settings, patches, device, begun=begun)
    if begun:
        trainer.resume(state)
    trainer.processes.wait()        # all have read the state before the first one writes another
    with asking(lambda: setattr(trainer, "asked", True)):
        if trainer.processes.main:
            make_folder(output)
            _watch(trainer, Monitor(trainer, held, output), state, save_seconds, on_step)
        else:
            for _ in trainer.steps():
                if trainer.stopping:
                    raise KeyboardInterrupt
    path = output / f"{settings.name}.safetensors"
    if trainer.processes.main:
        export(trainer, held, test, path, on_call)
    trainer.processes.wait()        # another stage may begin with it
    return path


def finished(settings: TrainSettings, output: Path) -> int | None:
    """The last step of a run with all these settings that `output` holds with its prior; None where `train` has something to
    do, be it to write the prior anew."""
    try:
        made = read_card(output / f"{settings.name}.safetensors")["training"]
    except (InputError, KeyError):
        return None
    if not isinstance(made, dict):
        return None
    steps = settings.optimiser.steps
    same = made.get("settings") == json.loads(json.dumps(settings_told(settings))) and made.get("steps") == steps
    state = saved_state(output / "state.safetensors", settings)
    return steps if same and state.get("step") == steps and not _retrained(settings, state.get("others", {})) else None


def _retrained(settings: TrainSettings, before: dict[str, str]) -> bool:
    """Has a network that the run began with, or asked and did not train, other weights than then? One that is gone has not."""
    named: dict[str, tuple] = {"loss.teacher": (getattr(settings.loss, "teacher", None),), "initial": (settings.initial,),
                               "latent.autoencoder": (settings.latent and settings.latent.autoencoder, load_autoencoder)}
    return any(weights_of(*named[key]) not in (None, weights) for key, weights in before.items())


def _watch(trainer: Trainer, monitor: Monitor, state: Path, save_seconds: float,
           on_step: Callable[[Progress, Trainer], object] | None) -> None:
    """Train to the end, and keep the state."""
    saved = time.monotonic()
    try:
        for progress in trainer.steps():
            monitor.see(progress)
            if on_step:
                on_step(progress, trainer)
            if trainer.stopping:
                raise KeyboardInterrupt
            if time.monotonic() - saved > save_seconds:
                trainer.save(state)
                saved = time.monotonic()
    finally:
        monitor.close()
        # what ends a step in its midst leaves the last checkpoint as it was, and nothing done leaves none
        if trainer.whole and trainer.step:
            trainer.save(state)


def load_data(settings: TrainSettings) -> tuple[Patches | ComplexPatches | WholeImages | Latents, list[Tensor], list[Tensor]]:
    """Training patches, the held-back images and the test images, (C, H, W) each; of a run on latents, latents, and no test.
    Raises InputError."""
    data, coder = settings.data, autoencoder(settings)
    channels = coder.channels if coder else settings.network.channels
    if data.test and Path(data.path).is_dir() and not (Path(data.path) / data.test).is_file():
        raise InputError("data.test: names a dataset of an HDF5 file, and the data are a folder; set data.test=null")
    if channels > 3:
        raise InputError(f"network.channels: expected 3, for colour, 1, for grey, or 2, for complex images, got {channels}")
    kinds: dict[int, tuple] = {1: (open_images, to_grey), 2: (open_complex, to_channels), 3: (open_images, to_rgb)}
    load, to_tensor = kinds[channels]
    cache = Cache(data.cache_mb * 1e6)
    images = load(data.path, data.key, cache)
    check_holdout(data.holdout, len(images))
    whole = bool(coder or data.labels) or (channels == 1 and set(images.shapes) == {(min(data.patch),) * 2})
    _check_used(settings, channels, whole)
    kept, held, labels = _split(settings, images)
    patches: Patches | ComplexPatches | WholeImages
    if whole:
        patches = WholeImages(kept, channels, labels, data.drop_labels, data.flips)
        if coder:
            shown, later = encoded(coder, patches), encoded(coder, WholeImages(held, channels, flips=data.flips))
            check_scale(shown.z)
            return shown, list(later.z), []
        _fill(cache, [patches.images])
    elif channels == 2:
        path = Path(data.path).parent / data.magnitudes if data.magnitudes else None
        magnitudes = open_magnitudes(path, data.magnitudes_key, cache) if path else ImageSet.of([])
        patches = ComplexPatches(kept, magnitudes, max(data.patch), data.scales, data.contrast, data.flips)
        if path and not any(min(shape) >= min(data.patch) for shape in patches.pools[1].shapes):
            raise InputError(f"data.magnitudes: no image of {path} is at least {min(data.patch)} pixels high and wide, as "
                             "data.patch; leave it out")
        _fill(cache, patches.pools)
    else:
        patches = Patches(kept, max(data.patch), data.scales, data.grey, data.flips, channels)
        _fill(cache, [patches.images])
    held = held if whole else _large_enough(held, min(data.patch))
    test = load(data.path, data.test, Cache(0)) if data.test else []
    return patches, [to_tensor(image) for image in held], [to_tensor(image) for image in test]


def _check_used(settings: TrainSettings, channels: int, whole: bool) -> None:
    """Raises InputError for a setting of the data that a run on such images would ignore."""
    data = settings.data
    told = {"contrast": (data.contrast, channels == 2, "complex images, of network.channels=2"),
            "magnitudes": (data.magnitudes, channels == 2, "complex images, of network.channels=2"),
            "labels": (data.labels, channels != 2, "photographs, of network.channels=1 or 3"),
            "grey": (data.grey, channels == 3 and not whole, "patches in colour, of network.channels=3"),
            "scales": (data.scales != (1.0,), not whole, "patches, and these images are taken whole")}
    for key, (given, used, of) in told.items():
        if given and not used:
            raise InputError(f"data.{key}: is for {of}; leave it out")


def _large_enough(held: ImageSet, side: int) -> ImageSet:
    """Held-back images that hold a patch: smaller ones would decide what all of them are cropped to. Raises InputError."""
    fit = [i for i, shape in enumerate(held.shapes) if min(shape) >= side]
    if not fit:
        raise InputError(f"data.holdout: none of the last {len(held)} images, which are kept back, is at least {side} pixels "
                         "high and wide, as data.patch; keep back more, or take smaller patches")
    return held.subset(fit)


def _split(settings: TrainSettings, images: ImageSet) -> tuple[ImageSet, ImageSet, np.ndarray | None]:
    """The images that are trained on, those held back, and the classes of the first, if they have some. Raises InputError, also
    for a class without an image to train on, of which the prior would draw anything."""
    data, classes = settings.data, getattr(settings.network, "classes", 0)
    if bool(data.labels) != bool(classes):
        raise InputError("data.labels: says the classes of the images, and network.classes how many there are, for a U-Net or "
                         "a DiT; give both, or neither")
    if not data.labels:
        return images[: -data.holdout], images[-data.holdout :], None
    labels = read_labels(data.path, data.labels, len(images), classes)
    held = held_back(labels, data.holdout, data.labels)
    kept = np.setdiff1d(np.arange(len(labels)), held)
    names = class_names(data.path, data.labels, data.class_names, classes)
    if missing := [name for i, name in enumerate(names) if i not in labels[kept]]:
        raise InputError(f"data.labels: no image to train on is of {', '.join(missing)}; give some, keep back fewer by "
                         "data.holdout, or leave out the class")
    return images.subset(kept.tolist()), images.subset(held.tolist()), labels[kept]


def _fill(cache: Cache, sets: Sequence[ImageSet]) -> None:
    """Read all images now, if they fit: then a damaged one is found before the run, and no step waits for it."""
    if 2 * sum(images.nbytes for images in sets) <= cache.limit:        # the resized ones, and what they came from
        for images in sets:
            for i in range(len(images)):
                images[i]
