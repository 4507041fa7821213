"""Trainings of minutes, of an autoencoder or a classifier: their loop, and what tells that one is done."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.io.files import make_folder, writing
from invdiff.priors.checkpoint import read_card
from invdiff.training.averages import Averages
from invdiff.training.loop import learning_rate_factor
from invdiff.training.processes import asking

_FORGET = 0.02      # share of a new step in what the log says


class ShortTrainer(Protocol):
    """Of a run of minutes. `settings` has name, steps, rate, warmup, decay and clip, `seconds` is how long the steps took."""

    settings: Any
    network: Any
    optimiser: torch.optim.AdamW
    averages: Averages
    seconds: float

    def step(self, number: int) -> dict[str, float]:
        """The step of a number, from 0; its losses by name, the first of which is shown."""


def run_short(trainer: ShortTrainer, output: Path, on_step: Callable[[int, float], object] | None) -> None:
    """All steps, with a line in log.jsonl for each hundred: running means. It cannot go on from the middle.

    Raises InputError where it diverges or `output` cannot be written, and KeyboardInterrupt.
    """
    steps, asked, means = trainer.settings.steps, list[bool](), dict[str, float]()
    make_folder(output)
    path = output / "log.jsonl"
    with writing(path):
        path.write_text("")
    with asking(lambda: asked.append(True)):
        for number in range(steps):
            share = max(_FORGET, 1 / (number + 1))
            for name, value in trainer.step(number).items():
                means[name] = means.get(name, 0.0) + share * (value - means.get(name, 0.0))
            if (number + 1) % 100 == 0 or number + 1 == steps:
                rounded = {name: float(f"{value:.5g}") for name, value in means.items()}
                with writing(path), path.open("a", encoding="utf-8") as log:
                    log.write(json.dumps({"step": number + 1, **rounded, "seconds": round(trainer.seconds, 1)}) + "\n")
            if on_step:
                on_step(number + 1, next(iter(means.values())))
            if asked:
                raise KeyboardInterrupt


def optimise(trainer: ShortTrainer, number: int, loss: Tensor) -> None:
    """The network's step of a number, from 0, down the gradient of a loss, and that of its averages. Raises InputError for a
    loss that is not finite."""
    s, parameters = trainer.settings, list(trainer.network.parameters())
    if not loss.isfinite():
        raise InputError(f"step {number + 1}: the loss is {loss.item()}; start anew with a lower rate or precision=fp32")
    for group in trainer.optimiser.param_groups:
        group["lr"] = s.rate * learning_rate_factor(number, s.steps, s.warmup, s.decay)
    trainer.optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, s.clip)
    trainer.optimiser.step()
    trainer.averages.update(parameters, number + 1)


def run_of(settings: Any, *arrays: np.ndarray, initial: Any = None) -> dict[str, Any]:
    """What makes two runs the same one, for the card: the settings, but not where anything lay, a digest of the data, and, if
    it begins with the weights of an earlier one, `initial`, that one's."""
    data = hashlib.sha256()
    for array in arrays:
        data.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    said = settings.model_dump(mode="json", exclude={"data": {"path"}, "initial": True})
    return {"settings": said, "data": data.hexdigest(), **({"initial": initial} if initial else {})}


def finished_short(path: Path, run: dict[str, Any]) -> bool:
    """Is the file at `path` what this run made?"""
    try:
        made = read_card(path).get("training")
    except InputError:
        return False
    return isinstance(made, dict) and all(made.get(key) == run.get(key) for key in ("settings", "data", "initial"))
