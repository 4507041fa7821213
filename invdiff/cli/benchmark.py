"""`invdiff benchmark`: what measures the samplers."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.options import plain_console, progress_bar, say
from invdiff.errors import InputError


def benchmark(
    config: Annotated[str, typer.Argument(help="Bundled benchmark: default, quick, photos or exact; or a YAML config.")]
    = "default",
    assign: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. samples=8; repeatable.")] = None,
    data: Annotated[str | None, typer.Option(help="Clean images: a folder, or an HDF5 file.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Output folder [default: benchmark-NAME].")] = None,
    workers: Annotated[int, typer.Option(help="Processes that share the images and the cores.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the estimates: estimates/TASK/METHOD/PRIOR/IMAGE.h5.")] = False,
) -> None:
    """Run methods on tasks and images, and write a table and a report of quality, time, memory and coverage.

    Stopped at any time, the same command goes on. `photos` is on images of your own, which --data names; `exact` measures
    samplers against posteriors that are known.
    """
    from invdiff.benchmark.settings import ExactConfig, benchmark_config

    if workers < 1:
        raise InputError(f"--workers: expected 1 and more, got {workers}")
    resolved = benchmark_config(config, assign or [], data)
    folder = output or Path(f"benchmark-{Path(config).stem}")
    command = _command(config, assign or [], data) + (" --keep" if keep else "")
    if isinstance(resolved, ExactConfig):
        if keep:
            raise InputError(f"--keep: the benchmark {config} restores no images; leave it out")
        if workers > 1:
            raise InputError(f"--workers: the benchmark {config} runs in one process; leave it out")
        _exact(resolved, folder, command)
    else:
        _images(resolved, folder, command, workers, keep)


def _images(config: Any, folder: Path, command: str, workers: int, keep: bool = False) -> None:
    from rich.progress import TimeElapsedColumn

    from invdiff.benchmark.cells import DONE
    from invdiff.benchmark.report import row_summary
    from invdiff.benchmark.run import run

    with progress_bar("cells", TimeElapsedColumn()) as bar:
        line = bar.add_task("loading", total=None)

        def show(done: int, total: int, row: dict[str, Any]) -> None:
            say(row_summary(row))
            bar.update(line, description="running", completed=done, total=total)

        record = run(config, folder, workers=workers, command=command, on_cell=show, keep=keep)
    for note in record.notes:
        typer.echo(note)
    typer.echo(f"{folder / 'report.html'}: the report; {folder / 'results.csv'}: the rows")
    if not any(row["status"] == DONE for row in record.sorted()):
        typer.echo("Nothing worked: no method has an estimate of any image.", err=True)
        raise typer.Exit(1)


def _exact(config: Any, folder: Path, command: str) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    from invdiff.benchmark import exact_tables
    from invdiff.benchmark.exact import new_record, run

    if folder.is_file():
        raise InputError(f"{folder}: is a file; choose an output folder")
    console, plan, kept = plain_console(), config.plan(), folder / "exact.json"
    record = exact_tables.resumed(kept, new_record(plan))
    record["made"]["command"] = command
    exact_tables.save(record, kept)
    for part in run(plan, record):
        exact_tables.save(record, kept)
        console.print(f"{part}: done")
    exact_tables.save(record, kept, finished=True)
    for table in exact_tables.tables(record):
        shown = Table(*(head.replace(" ", "\n") for head in table.head), box=SIMPLE, title=table.title, caption=table.note)
        for name, *numbers in table.rows:                   # narrow columns: where names leave no room, rich cuts numbers
            shown.add_row(name, *(number.replace(" ", "\n") for number in numbers))
        console.print(shown)
    typer.echo(f"{folder / 'exact.md'}: the tables; {folder / 'exact.json'}: the record")


def _command(config: str, assign: list[str], data: str | None) -> str:
    """What was asked for, files by their names alone."""
    parts = ["invdiff", "benchmark", Path(config).name, *(part for one in assign for part in ("--set", one)),
             *(["--data", Path(data).name] if data else [])]
    return shlex.join(parts)
