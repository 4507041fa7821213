"""A run into its output folder: where that is, what it replaces, how far it is, and what is kept where it is interrupted."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from invdiff.cli.options import progress_bar
from invdiff.errors import InputError

ESTIMATING = "estimating the blur"


def default_output(config: Any) -> Path:
    """restored/TASK for what is bundled; files and folders of a user's have one each, named after them."""
    source = config.input or config.truth
    if source is None:
        return Path("restored") / config.task
    path = Path(os.path.abspath(source))        # a name for . and .., too
    return Path("restored") / f"{config.task}-{path.name if path.is_dir() else path.stem}"


def run_into(folder: Path, config: Any, run: Callable[[Path], Any]) -> Any:
    """The outcome of `run(partial)`, saved in `folder`; `partial` is the folder beside it where finished samples are kept until
    then. Raises InputError, before anything is computed where `folder` cannot be written or holds what is read."""
    from invdiff.io.partial import holds_parts, remove_partial
    from invdiff.io.results import check_kept, check_output

    check_output(folder)
    check_kept(folder, config.files)
    if other := _replaced(folder, config):
        typer.echo(f"{folder}: holds the result of {other}, which this one replaces; --output names another folder", err=True)
    place = folder.resolve()
    partial = place.with_name(f"{place.name}.partial")
    outcome = None
    try:
        outcome = run(partial)
        outcome.save(folder)
    except BaseException as error:
        kept = [path for path in (partial, *_beside(partial)) if holds_parts(path)]
        if kept and (outcome or not isinstance(error, InputError)):     # which may be about what is kept
            typer.echo(f"{kept[0]}: the samples finished so far; the same command goes on from there", err=True)
        raise
    if spare := getattr(outcome, "spare", []):
        typer.echo(f"{partial}: keeps {len(spare)} finished slices that were not asked for; the same command with them goes on "
                   "from there", err=True)
    else:
        remove_partial(partial)
    asked = outcome.slices.numbers if config.is_scan else ()
    for left in (path for path in _beside(partial) if int(path.name.rpartition("-")[2]) in asked):
        remove_partial(left)
    return outcome


def run_with_progress(config: Any, partial: Path, name: str | None = None, **more: Any) -> Any:
    """The outcome of a run, with a bar that is called `name`, or after the sampler; `more` is for `job.run`."""
    with progress_bar("{task.fields[unit]}") as bar:
        line = bar.add_task(name or "loading", total=None, unit="steps")
        from invdiff.config import unknown_width
        from invdiff.job import run

        def estimating(trial: Any) -> None:
            bar.update(line, description=f"{name}: {ESTIMATING}" if name else ESTIMATING, unit="widths",
                       completed=trial.number - 1 + trial.share, total=trial.count)

        def show(progress: Any) -> None:
            bar.update(line, description=name or config.sampler["name"], unit="steps", completed=progress.done,
                       total=progress.total)

        if unknown_width(config.operator):
            more["on_width"] = estimating
        return run(config, show, partial, **more)


def _beside(partial: Path) -> list[Path]:
    """What a scan keeps of slices that were interrupted: PARTIAL-3 ..."""
    start = f"{partial.name}-"
    return sorted(path for path in partial.parent.glob("*") if path.name.startswith(start) and path.name[len(start):].isdigit())


def _replaced(folder: Path, config: Any) -> str | None:
    """Of what else than this config's picture or scan `folder` holds a result, if it does."""
    from invdiff.validation import read_yaml

    with suppress(InputError):
        earlier = read_yaml(folder / "config.yaml")
        before, now = (str(name) if name else "" for name in (earlier.get("input") or earlier.get("truth"),
                                                              config.input or config.truth))
        if before != now and not (before and now and os.path.realpath(before) == os.path.realpath(now)):
            return before or "the bundled example"
    return None
