"""`invdiff train`: a Trainer with checkpoints, validation, a log and, at the end, a prior with its card."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from invdiff.errors import InputError
from invdiff.evaluation.denoising import denoising_table
from invdiff.io.files import make_folder
from invdiff.machine import hardware
from invdiff.priors import load_prior
from invdiff.priors.calibrated import LEVELS
from invdiff.priors.checkpoint import read_card, save_prior
from invdiff.priors.latent import save_latent_prior
from invdiff.priors.spectrum import measure_spectrum
from invdiff.training.averages import relative_width
from invdiff.training.complex_data import ComplexPatches, open_complex, open_magnitudes, to_channels
from invdiff.training.data import Patches, to_grey, to_rgb
from invdiff.training.identity import saved_step
from invdiff.training.images import Cache, ImageSet, open_images
from invdiff.training.latents import Latents, autoencoder, encoded
from invdiff.training.loop import Progress, Trainer
from invdiff.training.monitor import Monitor, best_average, centre_crops, sample_sheet
from invdiff.training.processes import asking
from invdiff.training.samples import save_sheet
from invdiff.training.settings import TrainSettings
from invdiff.training.whole import WholeImages, read_labels


def train(settings: TrainSettings, output: str | Path, device: str = "cpu", *, save_seconds: float = 120.0,
          on_step: Callable[[Progress, Trainer], object] | None = None) -> Path:
    """Train to the end, from the last checkpoint in `output` if there is one; returns the prior's path.

    `output` gets state.safetensors (the resumable state), log.jsonl, samples/STEP.png, NAME.safetensors (the prior) and
    NAME.png (samples of it). Started by torchrun or accelerate in several processes, they train one network together, and
    the first of them writes, and calls `on_step`.
    Ctrl-C or SIGTERM end it after the step, and save; a second one ends it at once.
    Raises InputError for unusable data, a checkpoint of another or a longer run, or without accelerate, and KeyboardInterrupt.
    """
    output = Path(output)
    patches, held, test = load_data(settings)
    trainer = Trainer(settings, patches, device)
    state = output / "state.safetensors"
    if state.exists():
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
        export(trainer, held, test, path)
    trainer.processes.wait()        # another stage may begin with it
    return path


def finished(settings: TrainSettings, output: Path) -> int | None:
    """The last step of a run with all these settings that `output` holds with its prior; None where `train` has something to
    do, be it to write the prior anew."""
    try:
        made = read_card(output / f"{settings.name}.safetensors").get("training", {})
    except InputError:
        return None
    steps = settings.optimiser.steps
    same = made.get("settings") == json.loads(json.dumps(_settings(settings))) and made.get("steps") == steps
    return steps if same and saved_step(output / "state.safetensors", settings) == steps else None


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
        if trainer.whole:       # what ends a step in its midst leaves the last checkpoint as it was
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
    if channels != 2 and (data.contrast or data.magnitudes):
        raise InputError(f"data.{'contrast' if data.contrast else 'magnitudes'}: is for complex images, of network.channels=2; "
                         "leave it out")
    if channels != 3 and data.grey:
        raise InputError("data.grey: is for images in colour, of network.channels=3; leave it out")
    load, to_tensor = kinds[channels]
    cache = Cache(data.cache_mb * 1e6)
    images = load(data.path, data.key, cache)
    if data.holdout >= len(images):
        raise InputError(f"data.holdout: expected fewer than the {len(images)} images there are, got {data.holdout}")
    kept, held = images[: -data.holdout], images[-data.holdout :]
    if coder:
        shown, later = (encoded(coder, whole_images(settings, part, len(images), channels)) for part in (kept, held))
        return shown, list(later.z), []
    patches: Patches | ComplexPatches | WholeImages
    whole = bool(data.labels) or (channels == 1 and set(images.shapes) == {(min(data.patch),) * 2})
    if whole:
        patches = whole_images(settings, kept, len(images), channels)
        _fill(cache, [patches.images])
    elif channels == 2:
        path = Path(data.path).parent / data.magnitudes if data.magnitudes else None
        magnitudes = open_magnitudes(path, data.magnitudes_key, cache) if path else ImageSet.of([])
        patches = ComplexPatches(kept, magnitudes, max(data.patch), data.scales, data.contrast, data.flips)
        _fill(cache, patches.pools)
    else:
        patches = Patches(kept, max(data.patch), data.scales, data.grey, data.flips, channels)
        _fill(cache, [patches.images])
    held = held if whole else _large_enough(held, min(data.patch))
    test = load(data.path, data.test, Cache(0)) if data.test else []
    return patches, [to_tensor(image) for image in held], [to_tensor(image) for image in test]


def _large_enough(held: ImageSet, side: int) -> ImageSet:
    """Held-back images that hold a patch: smaller ones would decide what all of them are cropped to. Raises InputError."""
    fit = [i for i, shape in enumerate(held.shapes) if min(shape) >= side]
    if not fit:
        raise InputError(f"data.holdout: none of the last {len(held)} images, which are kept back, is at least {side} pixels "
                         "high and wide, as data.patch; keep back more, or take smaller patches")
    return held.subset(fit)


def whole_images(settings: TrainSettings, kept: ImageSet, count: int, channels: int) -> WholeImages:
    """The images that are trained on, the first of `count`, with their classes. Raises InputError."""
    data, classes = settings.data, getattr(settings.network, "classes", 0)
    if bool(data.labels) != bool(classes):
        raise InputError("data.labels: says the classes of the images, and network.classes how many there are, for a U-Net or "
                         "a DiT; give both, or neither")
    labels = read_labels(data.path, data.labels, count, classes)[: len(kept)] if data.labels else None
    return WholeImages(kept, channels, labels, data.drop_labels, data.flips)


def _fill(cache: Cache, sets: Sequence[ImageSet]) -> None:
    """Read all images now, if they fit: then a damaged one is found before the run, and no step waits for it."""
    if 2 * sum(images.nbytes for images in sets) <= cache.limit:        # the resized ones, and what they came from
        for images in sets:
            for i in range(len(images)):
                images[i]


def export(trainer: Trainer, held: Sequence[Tensor], test: Sequence[Tensor], path: Path) -> None:
    """Write the averaged weights as a prior; its card holds error spectra on `held` and a denoising table on `test`."""
    smallest = min(min(i.shape[1:]) for i in held)
    crops = centre_crops(held, 256 if smallest >= 256 else min(64, smallest)).to(trainer.device)
    number = choose_average(trainer, crops)
    denoiser = trainer.averages.copies[number].eval()
    card = make_card(trainer, number)
    source = f"measured on {len(crops)} held-back training images"
    card["spectrum"] = measure_spectrum(denoiser, list(crops), LEVELS, source).to_dict()
    if trainer.settings.network.channels == 3 and not trainer.settings.latent:
        grey = [crop.mean(0, keepdim=True) for crop in crops]
        card["spectrum_grey"] = measure_spectrum(denoiser, grey, LEVELS, source).to_dict()
    if test:
        images = [image.to(trainer.device) for image in test]
        kind = {"sigma": "of 255", "images": f"{len(images)} of {trainer.settings.data.test}, whole"}
        card["denoising"] = {"psnr": denoising_table(denoiser, images)} | kind
    if trainer.settings.monitor.sheet:
        card["samples"] = f"{path.stem}.png"
        save_sheet(path.with_suffix(".png"), sample_sheet(trainer, denoiser))
    if trainer.coder:
        save_latent_prior(path, denoiser, trainer.coder, card)
    else:
        save_prior(path, denoiser, card)


def choose_average(trainer: Trainer, crops: Tensor) -> int:
    """The number of the average that `optimiser.ema_export` asks for."""
    wanted = trainer.settings.optimiser.ema_export
    if wanted == "best":
        return best_average(trainer, crops)
    return 0 if wanted is None else trainer.averages.gammas.index(wanted)


def make_card(trainer: Trainer, average: int = 0) -> dict:
    """What a user must know of the prior: architecture, data, licence, how it was trained."""
    s = trainer.settings
    gamma = trainer.averages.gammas[average]
    few = s.loss.sampling(s.noise, trainer.step, s.optimiser.steps)
    return {
        "name": s.name, "architecture": s.network.model_dump(),
        "preconditioning": {"sigma_data": s.noise.sigma_data, "centre": s.noise.centre},
        "sigma_range": [s.noise.low, s.noise.high],
        **({"image_size": [max(s.data.patch)] * 2} if s.latent else {}),
        **({"image_size": [s.data.patch[0]] * 2} if s.network.channels == 1 or s.data.labels else {}),
        **({"classes": list(s.data.class_names) or [str(i) for i in range(trainer.denoiser.classes)]}
           if trainer.denoiser.classes else {}),
        **({"sampling": few.to_dict()} if few else {}),
        "data": s.data.description, "licence": s.data.licence, "use": s.use,
        "training": {"settings": _settings(s), "steps": trainer.step,
                     "average": {"gamma": gamma, "relative_width": round(relative_width(gamma), 4)},
                     "hours": round(trainer.seconds / 3600, 3), "hardware": hardware(trainer.device),
                     "processes": trainer.processes.count, "log": trainer.log,
                     **({"initial": earlier(s.initial)} if s.initial else {}), **trainer.loss.about()},
    }


def _settings(settings: TrainSettings) -> dict:
    """Settings as the card has them: where data and other priors lay says nothing to others."""
    found = settings.model_dump(mode="json", exclude={"data": {"path"}, "latent": {"autoencoder"}})
    for holder, key in ((found, "initial"), (found["loss"], "teacher")):
        if holder.get(key):
            holder[key] = Path(holder[key]).name
    return found


def earlier(initial: str) -> dict:
    """What is known of the training of the prior that a run began with; its name alone if it is not there any more."""
    try:
        card = load_prior(initial).card
    except InputError:
        return {"name": Path(initial).name}
    known = card.get("training", {})
    return {"name": card.get("name", initial), **{k: known[k] for k in ("steps", "hours", "hardware", "initial") if k in known}}
