"""Training configs, and runs in stages: each begins with the weights that the one before ended with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from invdiff.errors import InputError
from invdiff.priors.checkpoint import read_card
from invdiff.training.autoencoder import AutoencoderSettings, train_autoencoder
from invdiff.training.classifier import ClassifierSettings, train_classifier
from invdiff.training.loop import same_run
from invdiff.training.settings import TrainSettings
from invdiff.validation import assign, nearest, override, read_yaml, validate

RUNS: dict[str, tuple[type[BaseModel], Callable[..., Path]]] = {     # trainings of something that is no prior, by `kind`
    "classifier": (ClassifierSettings, train_classifier),
    "autoencoder": (AutoencoderSettings, train_autoencoder),
}


def train_stages(path: str | Path, assignments: Sequence[str] = ()) -> list[Any]:
    """The settings of a training config, of each of its `stages` if it has some: TrainSettings, or, where it has a `kind`, its
    model in RUNS. What is assigned holds for all stages. Raises InputError."""
    data = override(read_yaml(path), assignments)
    stages = (data.pop("stages", None) or [{}]) if "kind" not in data else [{}]
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise InputError(f"{path}: stages: expected a list of mappings, such as [{{seed: 1}}, {{seed: 2}}]")
    again = [each for each in assignments if not each.startswith("stages")]
    if any("initial" in stage for stage in stages[1:]):
        raise InputError(f"{path}: stages: a later stage begins with the weights of the one before, and has no "
                         "initial of its own")
    varied = (assign(data, ((str(key), value) for key, value in stage.items()), f"{path}: stages: ") for stage in stages)
    return [_train_settings(path, override(each, again)) for each in varied]


def _train_settings(path: str | Path, data: Mapping[str, Any]) -> Any:
    if "kind" not in data:
        return validate(TrainSettings, data, str(path))
    kind = str(data["kind"])
    if kind not in RUNS:
        raise InputError(f"{path}: kind: unknown kind {kind!r}; {nearest(kind, RUNS)}, or leave it out for a prior")
    return validate(RUNS[kind][0], data, str(path))


def unfinished(stages: Sequence[TrainSettings], output: Path) -> Iterator[tuple[int, TrainSettings, Path]]:
    """Number, settings and folder of each stage that is still to be run, and of the last in any case, since a longer run may be
    asked for. The last one's folder is `output`; the others' are in it.

    Raises InputError where a later stage than the next has begun: from other weights than it would begin with now.
    """
    folders = [*(output / f"stage-{number}" for number in range(1, len(stages))), output]
    initial = None
    for number, (settings, folder) in enumerate(zip(stages, folders, strict=True), 1):
        prior = folder / f"{settings.name}.safetensors"
        if folder is output or not _finished(prior, settings):
            if later := next((each for each in folders[number:] if (each / "state.safetensors").exists()), None):
                raise InputError(f"{later}: holds a run that did not begin with what stage {number} of {len(stages)} is yet to "
                                 "make; choose another --output, or remove it")
            yield number, settings.model_copy(update={"initial": initial}) if initial else settings, folder
        initial = str(prior)


def _finished(prior: Path, settings: TrainSettings) -> bool:
    """Has this stage, or a longer one, made the prior?"""
    if not prior.exists():
        return False
    made = read_card(prior).get("training", {})
    return same_run(made.get("settings"), settings) and made.get("steps", 0) >= settings.optimiser.steps
