"""What a training leaves behind: the averaged weights as a prior, with the card that tells of them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from invdiff.datasets.crops import centre_crops
from invdiff.datasets.labels import class_names
from invdiff.errors import InputError
from invdiff.evaluation.denoising import denoising_table
from invdiff.figures import save_sheet
from invdiff.machine import hardware
from invdiff.priors import load_prior
from invdiff.priors.checkpoint import save_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.latent import save_latent_prior
from invdiff.priors.spectrum import measure_spectrum
from invdiff.priors.spectrum_records import LEVELS
from invdiff.training.averages import relative_width
from invdiff.training.loop import Trainer
from invdiff.training.monitor import VALIDATION, best_average, sample_sheet
from invdiff.training.settings import TrainSettings

TABLE = (15 / 255, 25 / 255, 50 / 255)       # noise levels of the denoising table


def export(trainer: Trainer, held: Sequence[Tensor], test: Sequence[Tensor], path: Path,
           on_call: Callable[[int, int], object] | None = None) -> None:
    """Write the averaged weights as a prior; its card holds error spectra on `held` and a denoising table on `test`.

    These take minutes: `on_call` gets how many network calls are done, first 0, and how many there are.
    Raises InputError where it cannot be written, and for weights that are not finite in half precision.
    """
    smallest = min(min(i.shape[1:]) for i in held)
    crops = centre_crops(held, 256 if smallest >= 256 else min(64, smallest)).to(trainer.device)
    with _counted(trainer, _calls(trainer, len(crops), len(test)), on_call):
        number = choose_average(trainer, crops)
        denoiser = trainer.averages.copies[number].eval()
        card = make_card(trainer, number)
        denoiser.card = dict(card)          # what is measured is what will be loaded
        card |= measurements(trainer, denoiser, crops, test)
        if trainer.settings.monitor.sheet:
            card["samples"] = f"{path.stem}.png"
            save_sheet(path.with_suffix(".png"), sample_sheet(trainer, denoiser))
    if trainer.coder:
        save_latent_prior(path, denoiser, trainer.coder, card)
    else:
        save_prior(path, denoiser, card)


def measurements(trainer: Trainer, denoiser: EDMDenoiser, crops: Tensor, test: Sequence[Tensor]) -> dict:
    """What a card says of the errors: spectra on crops (N, C, H, W), and a table on the test images, if there are some."""
    source = f"measured on {len(crops)} held-back training images"
    found: dict = {"spectrum": measure_spectrum(denoiser, list(crops), LEVELS, source).to_dict()}
    if _in_colour(trainer):
        grey = [crop.mean(0, keepdim=True) for crop in crops]
        found["spectrum_grey"] = measure_spectrum(denoiser, grey, LEVELS, source).to_dict()
    if test:
        table = denoising_table(denoiser, [image.to(trainer.device) for image in test], TABLE)
        kind = {"sigma": "of 255", "images": f"{len(test)} of {trainer.settings.data.test}, whole"}
        found["denoising"] = {"psnr": table} | kind
    return found


def _in_colour(trainer: Trainer) -> bool:
    return trainer.settings.network.channels == 3 and not trainer.settings.latent


def _calls(trainer: Trainer, crops: int, test: int) -> int:
    """How many network calls `export` takes."""
    s = trainer.settings
    few = s.loss.sampling(s.noise, trainer.step, s.optimiser.steps)
    best = len(trainer.averages.copies) * len(VALIDATION) * crops if s.optimiser.ema_export == "best" else 0
    drawing = (few.steps if few else s.monitor.sheet_steps) if s.monitor.sheet else 0
    return best + (1 + _in_colour(trainer)) * crops * len(LEVELS) + test * len(TABLE) + drawing


@contextmanager
def _counted(trainer: Trainer, total: int, on_call: Callable[[int, int], object] | None) -> Iterator[None]:
    """Tell `on_call` of each call of an average."""
    if on_call is None:
        yield
        return
    done = itertools.count()

    def tell(*_: object) -> None:
        on_call(next(done), total)

    tell()
    hooks = [average.register_forward_hook(tell) for average in trainer.averages.copies]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
        "sigma_range": list(s.loss.trained_range(s.noise)),
        **({"image_size": [max(s.data.patch)] * 2} if s.latent or s.network.channels == 1 or s.data.labels else {}),
        **({"classes": class_names(s.data.path, s.data.labels, s.data.class_names, trainer.denoiser.classes)}
           if trainer.denoiser.classes else {}),
        **({"sampling": few.to_dict()} if few else {}),
        "data": s.data.description, "licence": s.data.licence, "use": s.use,
        "training": {"settings": settings_told(s), "steps": trainer.step,
                     "average": {"gamma": gamma, "relative_width": round(relative_width(gamma), 4)},
                     "hours": round(trainer.seconds / 3600, 3), "hardware": hardware(trainer.device),
                     "processes": trainer.processes.count, "log": trainer.log,
                     **({"initial": earlier(s.initial)} if s.initial else {}), **trainer.loss.about()},
    }


def settings_told(settings: TrainSettings) -> dict:
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
