"""`invdiff sample`: images from a prior alone."""

from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.options import Device, Guidance, Precision, Seed, Solver, Steps, progress_bar, results_in


def sample(prior: Annotated[str, typer.Option(help="Shipped prior, .safetensors file, or FORMAT:WHAT.")] = "natural",
           count: Annotated[int | None, typer.Option("--count", "-n", help="How many images.")] = None,
           solver: Solver = None,
           steps: Steps = None,
           klass: Annotated[str | None, typer.Option("--class", help="Number or name; each: in turn; any: no class.")] = None,
           guidance: Guidance = None,
           size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels, where the prior takes any.")] = None,
           assign: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. schedule=cosine, solver.eta=0.5, "
                                                                        "guidance_interval=[0.3,2]; repeatable.")] = None,
           seed: Seed = None,
           device: Device = None,
           precision: Precision = None,
           output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")] = Path("samples")) -> None:
    """Draw images from a prior: a sheet, the numbers and a report."""
    from invdiff.io.results import check_output
    from invdiff.sample_config import draw, sample_config

    given = {"prior": prior, "count": count, "solver": solver and {"name": solver}, "steps": steps, "class": klass,
             "guidance": guidance, "size": size and _size(size), "seed": seed, "device": device, "precision": precision}
    config, loaded = sample_config(given, assign or [])
    check_output(output)
    drawn = with_progress(lambda show: draw(config, loaded, show))
    drawn.save(output)
    report = drawn.report
    if warning := report.get("warning"):
        typer.echo(warning, err=True)
    with results_in(output):
        typer.echo(f"{report['count']} images of {report['size'][0]} x {report['size'][1]} by {config.solver_name}, "
                   f"{report['network_calls']:g} network calls each, {report['seconds']:.1f} s on {report['device']}\n"
                   f"{output / 'samples.png'}: a sheet of them; samples.npz and report.json beside it")


def with_progress(work: Any) -> Any:
    """`work(show)` with a bar that `show`, called with a Progress, moves on."""
    with progress_bar("steps") as bar:
        line = bar.add_task("drawing", total=None)
        return work(lambda progress: bar.update(line, completed=progress.done, total=progress.total))


def _size(text: str) -> list[int]:
    from invdiff.errors import InputError

    height, by, width = text.lower().partition("x")
    if not (by and height.isdecimal() and width.isdecimal()):
        raise InputError(f"--size: expected HEIGHTxWIDTH, such as 128x128, got {text!r}")
    return [int(height), int(width)]
