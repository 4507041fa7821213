"""The command line. It reads options, calls the library, shows progress, and says in one sentence what went wrong."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import invdiff
from invdiff import (
    cli_app,
    cli_benchmark,
    cli_calibrate,
    cli_evaluate,
    cli_figures,
    cli_priors,
    cli_restore,
    cli_sample,
    cli_train,
)
from invdiff.cli_options import Assign, Config, Seed, Task, Truth, plain_console, resolve
from invdiff.errors import InputError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="Restore images from blurred, noisy or incomplete measurements, with diffusion priors.")

app.add_typer(cli_priors.app, name="priors")

# Threads that wait for each other spin so often before they sleep. With libgomp's own number, 30 times as large, a scan of 16 s
# took 150 s beside another job on the same two cores, and 67 s with this one, which costs nothing where a run is alone.
SPINS = "10000"
INTERRUPTED = 130       # what shells report after Ctrl-C, and what typer makes of it
PIPE_CLOSED = 141       # what they report of a program whose reader wanted no more, as `head` does


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"invdiff {invdiff.__version__}")
        raise typer.Exit


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", help="Say the version.", is_eager=True,
                                                  callback=_say_version)] = False) -> None:
    """What can be said before any command."""


app.command()(cli_restore.restore)


@app.command()
def simulate(task: Task = None, config: Config = None, truth: Truth = None, assign: Assign = None, seed: Seed = None,
             output: Annotated[Path, typer.Option("--output", "-o", help="Measurement: .png (8 bit) or .npy (exact).")]
             = Path("measurement.png")) -> None:
    """Degrade a clean image as a task does, and write the measurement."""
    import numpy as np

    from invdiff.io.files import make_folder, replacing, unwritable
    from invdiff.io.images import save_image
    from invdiff.io.results import check_kept
    from invdiff.posing import pose

    resolved = resolve(task, config, assign, {"truth": truth, "seed": seed})
    if resolved.is_scan:
        raise InputError("simulate: gives measurements of images; a scan of a clean one is simulated and restored at once: "
                         f"invdiff restore --task {resolved.task} --truth FILE --set sigma_y=0.01")
    if output.suffix not in (".png", ".npy"):
        raise InputError(f"{output}: expected a name that ends in .png or .npy")
    check_kept(output, resolved.files)
    problem = pose(resolved).problem
    if output.suffix == ".png" and (problem.y.ndim != 4 or problem.y.shape[1] not in (1, 3)):
        raise InputError(f"{output}: this measurement, {tuple(problem.y.shape[1:])}, is no image; expected a name that ends in "
                         ".npy")
    make_folder(output.parent)
    try:
        if output.suffix == ".npy":
            with replacing(output) as temporary, temporary.open("wb") as file:
                np.save(file, problem.y[0].numpy())
        else:
            save_image(output, problem.y[0])
    except OSError as error:
        raise unwritable(output, error) from error
    typer.echo(f"{output}: {' x '.join(map(str, problem.y.shape[1:]))} values, sigma_y = {problem.sigma_y:g}")


app.command()(cli_app.app)
app.command()(cli_benchmark.benchmark)
app.command()(cli_calibrate.calibrate)
app.command()(cli_train.train)
app.command()(cli_sample.sample)
app.command()(cli_evaluate.evaluate)
app.command()(cli_figures.figures)


@app.command()
def tasks() -> None:
    """List the bundled tasks and the samplers."""
    from rich.table import Column, Table

    from invdiff.config import SAMPLERS
    from invdiff.resolving import tasks as bundled_tasks
    from invdiff.validation import read_yaml

    console = plain_console()
    table = Table(*(Column(name, overflow="fold") for name in ("task", "operator", "sigma_y", "sampler")))
    for name, path in bundled_tasks().items():
        data = read_yaml(path)
        operator, sampler = (", ".join(f"{v}" if k == "name" else f"{k}={v}" for k, v in data[part].items())
                             for part in ("operator", "sampler"))
        table.add_row(name, operator, f"{data['sigma_y']}", sampler)
    console.print(table)
    console.print(f"configs in {path.parent}", soft_wrap=True)
    table = Table(*(Column(name, overflow="fold") for name in ("sampler", "steps", "what it does")))
    for name, kind in SAMPLERS.items():
        table.add_row(name, str(kind().num_steps), kind.about)
    console.print(table)


def _at_home(argument: str) -> str:
    """--output=~/x with the home folder, which shells put in only where ~ begins a word."""
    option = re.match("--[a-z-]+=(?=~/)", argument)
    return option[0] + os.path.expanduser(argument[option.end():]) if option else argument


def main() -> None:
    """Entry point: 0 done, 2 the input was at fault (one line says what), 130 interrupted, 141 stdout was closed, 1 anything
    else."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)      # is read when torch is imported
    usage_error: Any = typer.BadParameter.__base__      # click's, which newer typer brings along under another name
    try:
        code = app([_at_home(argument) for argument in sys.argv[1:]] or ["--help"], standalone_mode=False) or 0
        if code == INTERRUPTED:
            typer.echo("interrupted", err=True)
        sys.exit(code)
    except SystemExit as stop:              # by typer or rich, where a pipe is closed; what was to be saved is by then
        raise SystemExit(PIPE_CLOSED if isinstance(stop.__context__, BrokenPipeError) else stop.code) from None
    except InputError as error:
        message = f"error: {' '.join(str(error).split())}"
    except ImportError as error:            # of what an extra brings along, which says so; anything else is a fault of ours
        if "pip install" not in str(error):
            raise
        message = f"error: {' '.join(str(error).split())}"
    except usage_error as error:
        message = f"error: {' '.join(error.format_message().split())}"
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        message = ("error: no space is left where this, or what there is to say of it, was to be written; make room, or choose "
                   "another place")
    except (RuntimeError, MemoryError) as error:
        from invdiff.machine import out_of_memory

        if not out_of_memory(error):
            raise
        message = "error: memory: this does not fit; take fewer or smaller images, or a machine with more memory"
    typer.echo(message, err=True)
    sys.exit(2)
