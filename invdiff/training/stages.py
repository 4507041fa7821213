"""Training in stages: each run begins with the weights that the one before ended with."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from invdiff.training.settings import TrainSettings


def unfinished(stages: Sequence[TrainSettings], output: Path) -> Iterator[tuple[int, TrainSettings, Path]]:
    """Number, settings and folder of each stage that is still to be run, and of the last in any case, since a longer run may be
    asked for. The last one's folder is `output`; the others' are in it, and their weights say that they are finished."""
    initial = None
    for number, settings in enumerate(stages, 1):
        last = number == len(stages)
        folder = output if last else output / f"stage-{number}"
        prior = folder / f"{settings.name}.safetensors"
        if last or not prior.exists():
            yield number, settings.model_copy(update={"initial": initial}) if initial else settings, folder
        initial = str(prior)
