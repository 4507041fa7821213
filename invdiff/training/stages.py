"""Training configs, and runs in stages: each begins with the weights that the one before ended with."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from invdiff.errors import InputError
from invdiff.priors.checkpoint import read_card
from invdiff.training.autoencoder import AutoencoderSettings, train_autoencoder
from invdiff.training.classifier import ClassifierSettings, train_classifier
from invdiff.training.identity import check_length, difference
from invdiff.training.settings import TrainSettings
from invdiff.validation import assign, nearest, override, read_yaml, validate

RUNS: dict[str, tuple[type[BaseModel], Callable[..., Path]]] = {     # trainings of something that is no prior, by `kind`
    "classifier": (ClassifierSettings, train_classifier),
    "autoencoder": (AutoencoderSettings, train_autoencoder),
}


def train_stages(path: str | Path, assignments: Sequence[str] = ()) -> list[Any]:
    """The settings of a training config, of each of its `stages` if it has some: TrainSettings, or, where it has a `kind`, its
    model in RUNS. What is assigned holds for all stages, and so does `not_stated`. Raises InputError."""
    data = override(read_yaml(path), assignments)
    stages = (data.pop("stages", None) or [{}]) if "kind" not in data else [{}]
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise InputError(f"{path}: stages: expected a list of mappings, such as [{{seed: 1}}, {{seed: 2}}]")
    again = [each for each in assignments if not each.startswith("stages")]
    if any("initial" in stage for stage in stages[1:]):
        raise InputError(f"{path}: stages: a later stage begins with the weights of the one before, and has no "
                         "initial of its own")
    varied = (assign(data, ((str(key), value) for key, value in stage.items()), f"{path}: stages: ") for stage in stages)
    silent = not_stated(path, assignments)
    return [_train_settings(path, assign(override(each, again), silent.items(), "")) for each in varied]


def not_stated(path: str | Path, assignments: Sequence[str]) -> dict[str, str]:
    """What the card says of data that are assigned in the place of a config's own, by dotted key: the config's description and
    licence are not theirs. Nothing where these are assigned too, or the data have the file name of the config's own.
    Raises InputError."""
    config = read_yaml(path)
    own, data = config.get("data"), override(config, assignments).get("data")
    assigned = {each.partition("=")[0].strip() for each in assignments}
    if not isinstance(own, dict) or not isinstance(data, dict) or "data" in assigned:
        return {}
    before, name = (os.path.basename(os.path.abspath(str(each.get("path")))) for each in (own, data))
    if name == before or "path" not in own:
        return {}
    said = {"description": f"{name}; what it holds is not stated", "licence": "not stated"}
    return {f"data.{key}": words for key, words in said.items() if own.get(key) and f"data.{key}" not in assigned}


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

    Raises InputError where a later stage than the next has begun, from other weights than it would begin with now, and where
    more steps of a stage are done than are asked for.
    """
    folders = [*(output / f"stage-{number}" for number in range(1, len(stages))), output]
    initial = None
    for number, (settings, folder) in enumerate(zip(stages, folders, strict=True), 1):
        prior = folder / f"{settings.name}.safetensors"
        why = None if folder is output else _yet_to_do(prior, settings)      # a run that is alone looks at its own state
        if folder is output or why:
            if later := next((each for each in folders[number:] if (each / "state.safetensors").exists()), None):
                raise InputError(f"{later}: holds a run that did not begin with what stage {number} of {len(stages)} is yet to "
                                 f"make ({why}); choose another --output, or remove it")
            yield number, settings.model_copy(update={"initial": initial}) if initial else settings, folder
        initial = str(prior)


def _yet_to_do(prior: Path, settings: TrainSettings) -> str | None:
    """Why this stage is not finished, None if it is: the prior is what it makes. Raises InputError if a longer one made it."""
    if not prior.exists():
        return "it has made no prior"
    made = read_card(prior).get("training", {})
    if why := difference(made.get("settings"), settings):
        return why
    done = made.get("steps", 0)
    check_length(prior, done, settings)
    return None if done == settings.optimiser.steps else f"optimiser.steps: {done}, and now {settings.optimiser.steps}"
