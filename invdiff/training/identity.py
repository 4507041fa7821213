"""Which run a state belongs to: the settings that make two runs the same one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from invdiff.differences import first_difference
from invdiff.errors import InputError
from invdiff.priors.checkpoint import read_tensors
from invdiff.training.settings import TrainSettings

# what may change in a run that goes on: its length, where the data and what it began with lie and what is said of them, what is
# looked at, how a few-step prior is sampled
_APART: dict = {"initial": True, "optimiser": {"steps", "decay", "ema_export"}, "monitor": True, "use": True,
                "loss": {"steps", "second"}, "data": {"path", "test", "cache_mb", "workers", "description", "licence"}}


def identity(settings: TrainSettings) -> dict[str, Any]:
    """The settings that make two runs the same run: all but what is told of the data, what is looked at and, unless the loss
    goes by it, its length."""
    known = json.loads(settings.model_dump_json(exclude=_APART))
    if settings.loss.of_one_length:
        known["optimiser"]["steps"] = settings.optimiser.steps
    return known


def difference(stored: dict | None, settings: TrainSettings) -> str | None:
    """The first of a state's settings that is another than here, with both values; None if it is the same run. Settings that
    the state does not know yet had their default, and those of which a card tells no more than a name are taken as they are."""
    try:
        known = stored or {}
        steps = max(settings.optimiser.steps, known.get("noise", {}).get("ramp", 0))     # as long as it must be
        whole = {**known, "optimiser": {"steps": steps, **known["optimiser"]},
                 "data": {"path": "", **known["data"]}}
        if settings.latent and known.get("latent") == {}:
            whole["latent"] = settings.latent
        teacher = getattr(settings.loss, "teacher", None)
        if teacher and known["loss"].get("teacher") == Path(teacher).name:
            whole["loss"] = {**known["loss"], "teacher": teacher}
        before = identity(TrainSettings.model_validate(whole))
    except (KeyError, TypeError, AttributeError, ValidationError):
        return "and this version does not know all of them"
    return first_difference(before, identity(settings))


def check_length(where: Path | str, done: int, settings: TrainSettings) -> None:
    """Raises InputError if more steps are done than the settings ask for."""
    asked = settings.optimiser.steps
    if done > asked:
        raise InputError(f"{where}: {done} steps are done, more than optimiser.steps={asked}; ask for {done} or more, or use "
                         "another --output")


def check_told(where: Path | str, state: dict[str, Any], settings: TrainSettings, images: int, brightness: list[float]) -> None:
    """Raises InputError if a run goes on with other images, by their number or by the `brightness` of some patches, or if its
    card would tell of another decay than that it was trained with, as nothing is left to train. States of earlier versions know
    none of these."""
    if (before := state.get("images", images)) != images:
        raise InputError(f"{where}: belongs to a run on {before} images, and now there are {images}; put them back, use "
                         "another --output, or delete the state")
    if not np.allclose(state.get("brightness", brightness), brightness, rtol=0.01, atol=1e-4):
        raise InputError(f"{where}: belongs to a run on other images; put them back, use another --output, or delete the state")
    decay = settings.optimiser.decay
    if state["step"] == settings.optimiser.steps and (before := state.get("decay", decay)) != decay:
        raise InputError(f"{where}: all steps are done, with optimiser.decay={before:g}, and now {decay:g}; leave it, ask for "
                         "more steps, or use another --output")


def check_others(where: Path | str, before: dict[str, str], now: dict[str, str]) -> None:
    """Raises InputError if a network that the run began with, or asks and does not train, by the setting that names it, has
    other weights than before. One that is not there any more is not in `now`, and has not."""
    for key, weights in before.items():
        if now.get(key, weights) != weights:
            raise InputError(f"{where}: belongs to a run with another {key}, or its weights have changed since; put it back, "
                             "use another --output, or delete the state")


def saved_state(path: Path, settings: TrainSettings) -> dict[str, Any]:
    """What the state of this run says of itself, such as its `step`; nothing if there is none, or another run's."""
    if not path.exists():
        return {}
    try:
        state = json.loads(read_tensors(path)[1].get("state", "{}"))
        return {} if difference(state.get("settings"), settings) else state
    except (InputError, ValueError, AttributeError):
        return {}
