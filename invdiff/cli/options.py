"""What several commands share: options, what a task or a config becomes with them, a bar that shows how far it is, and how
results are shown."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.errors import InputError

Task = Annotated[str | None, typer.Option("--task", "-t", help="Bundled task; `invdiff tasks` lists them.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML config, instead of --task.")]
Truth = Annotated[str | None, typer.Option(help="Clean image, to simulate a measurement of.")]
Assign = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. operator.sigma=1.6; repeatable.")]
Prior = Annotated[str | None, typer.Option(help="Shipped prior, .safetensors file, or FORMAT:WHAT.")]
Sampler = Annotated[str | None, typer.Option(help="Posterior sampler: a name of docs/samplers.md, or python:MODULE:NAME.")]
Samples = Annotated[int | None, typer.Option(help="Posterior samples to draw; the task's own number if not said.")]
Solver = Annotated[str | None, typer.Option(help="ddim, ddpm, heun, dpmpp_2m, dpmpp_2m_sde ...")]
Steps = Annotated[int | None, typer.Option(help="Noise levels to visit.")]
Guidance = Annotated[float | None, typer.Option(help="Strength of guidance by the class; 1 is none.")]
Seed = Annotated[int | None, typer.Option(help="Random seed, 0 (the default) or larger.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps ...")]
Precision = Annotated[str | None, typer.Option(help="fp32 (the default) or bf16, for the network.")]


def resolve(task: str | None, config: Path | None, assign: list[str] | None, given: dict[str, Any]) -> Any:
    """The RunConfig of a task or a config, with options by key; of those and `--set`, the latter counts. Raises InputError."""
    from invdiff.resolving import run_config

    options = [f"{key}={_yaml(value)}" for key, value in given.items() if value is not None]
    return run_config(task, config, [*options, *(assign or [])])


def progress_bar(unit: str, *more: Any, transient: bool = True) -> Any:
    """A bar that counts units, and `more` columns, or the time that remains, of which what comes after the last unit has none;
    on stderr, and only if that is a terminal. stdout is for results, which may go into a file, or into a pipe that ends before
    the work does."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Remaining(TimeRemainingColumn):
        def render(self, task: Any) -> Text:
            over = task.total is not None and task.completed >= task.total
            return Text("finishing") if over else super().render(task)

    console = plain_console(stderr=True)
    return Progress(TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
                    *(more or [Remaining()]), console=console, disable=not console.is_terminal, transient=transient,
                    redirect_stdout=to_terminal())


def to_terminal() -> bool:
    """Is stdout a terminal, and no file?"""
    return sys.stdout is not None and sys.stdout.isatty()


def plain_console(stderr: bool = False) -> Any:
    """rich's console, which shows names as they are: no brackets in them are markup, no :words: emoji."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(text: str) -> None:
    """A line on stdout, and above a bar where one is live: that has taken the place of sys.stdout, which `typer.echo` and a
    console made before go past, onto the end of the bar."""
    if sys.stdout is not None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


@contextmanager
def results_in(folder: Path) -> Iterator[None]:
    """Around what is said of results that are saved: where it cannot be written, that must not read as if they were lost."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"what there is to say cannot be written ({error.strerror}); the results are complete, in "
                         f"{folder}") from error


def _yaml(value: Any) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)      # JSON is YAML, and quotes names safely
