"""`invdiff`: its commands, its exit codes, and in one sentence what went wrong."""

import errno
import os
import re
import sys
import warnings
from typing import Annotated, Any

import typer

import invdiff
from invdiff.cli import app, benchmark, calibrate, evaluate, figures, priors, restore, sample, simulate, tasks, train
from invdiff.errors import InputError

program = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                      context_settings={"help_option_names": ["-h", "--help"]},
                      help="Restore images from blurred, noisy or incomplete measurements, with diffusion priors.")

for command in (restore.restore, simulate.simulate, app.app, benchmark.benchmark, calibrate.calibrate, train.train,
                sample.sample, evaluate.evaluate, figures.figures, tasks.tasks):
    program.command()(command)
program.add_typer(priors.program, name="priors")

# Threads that wait for each other spin so often before they sleep. With libgomp's own number, 30 times as large, a scan of 16 s
# took 150 s beside another job on the same two cores, and 67 s with this one, which costs nothing where a run is alone.
SPINS = "10000"
INTERRUPTED = 130       # what shells report after Ctrl-C, and what typer makes of it
PIPE_CLOSED = 141       # what they report of a program whose reader wanted no more, as `head` does


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"invdiff {invdiff.__version__}")
        raise typer.Exit


@program.callback()
def options(version: Annotated[bool, typer.Option("--version", help="Say the version.", is_eager=True,
                                                  callback=_say_version)] = False) -> None:
    """What can be said before any command."""


def _at_home(argument: str) -> str:
    """--output=~/x with the home folder, which shells put in only where ~ begins a word."""
    option = re.match("--[a-z-]+=(?=~/)", argument)
    return option[0] + os.path.expanduser(argument[option.end():]) if option else argument


def main() -> None:
    """Entry point: 0 done, 2 the input was at fault (one line says what), 130 interrupted, 141 stdout was closed, 1 anything
    else."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)      # is read when torch is imported
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *place, **line: (    # ours are for the user, who asks not where
        f"warning: {message}\n" if category is UserWarning else usual(message, category, *place, **line))
    usage_error: Any = typer.BadParameter.__base__      # click's, which newer typer brings along under another name
    try:
        code = program([_at_home(argument) for argument in sys.argv[1:]] or ["--help"], standalone_mode=False) or 0
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
