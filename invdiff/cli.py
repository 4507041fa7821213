"""The command line. It reads options, calls the library, shows progress, and says in one sentence what went wrong."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff import cli_app, cli_benchmark, cli_calibrate, cli_evaluate, cli_figures, cli_priors, cli_sample, cli_train
from invdiff.errors import InputError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Restore images from blurred, noisy or incomplete measurements, with diffusion priors.")

app.add_typer(cli_priors.app, name="priors")

# Threads that wait for each other spin so often before they sleep. With libgomp's own number, 30 times as large, a scan of 16 s
# took 150 s beside another job on the same two cores, and 67 s with this one, which costs nothing where a run is alone.
SPINS = "10000"
INTERRUPTED = 130       # what shells report after Ctrl-C, and what typer makes of it

Task = Annotated[str | None, typer.Option("--task", "-t", help="Bundled task; `invdiff tasks` lists them.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML config, instead of --task.")]
Truth = Annotated[str | None, typer.Option(help="Clean image: simulate a measurement of it, and score.")]
Assign = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. operator.sigma=1.6; repeatable.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Output folder [default: restored/TASK].")]
Seed = Annotated[int | None, typer.Option(help="Random seed, 0 or larger.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps ...")]


@app.command()
def restore(
    task: Task = None,
    config: Config = None,
    input: Annotated[str | None, typer.Option(help="Measurement to restore; needs sigma_y.")] = None,
    truth: Truth = None,
    assign: Assign = None,
    sampler: Annotated[str | None, typer.Option(help="Posterior sampler.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the sampler.")] = None,
    samples: Annotated[int | None, typer.Option(help="Posterior samples to draw.")] = None,
    prior: Annotated[str | None, typer.Option(help="Shipped prior, .safetensors file, or FORMAT:WHAT.")] = None,
    seed: Seed = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, for the network.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Scans: a classical reconstruction to compare with, such as "
                                                            "l1_wavelet; repeatable.")] = None,
    keep_identity: Annotated[bool, typer.Option("--keep-identity", help="Scans: write down who was scanned.")] = False,
    output: Output = None,
) -> None:
    """Restore an image, or with --task mri the slices of a scan. Without --input or --truth, a bundled photo is degraded and
    restored, or a bundled scan.

    Interrupted, it keeps the finished samples in OUTPUT.partial, and started again with the same options goes on from there.
    """
    from invdiff.io.partial import remove_partial
    from invdiff.io.results import check_output

    given = {"input": input, "truth": truth, "samples": samples, "prior": prior, "seed": seed, "device": device,
             "precision": precision, "sampler": sampler and {"name": sampler}, "sampler.steps": steps, "baselines": baseline,
             "keep_identity": keep_identity or None}
    resolved = _resolve(task, config, assign, given)
    folder = output or Path("restored") / resolved.task
    check_output(folder)
    partial = folder.resolve().with_name(f"{folder.resolve().name}.partial")
    try:
        outcome = _run_with_progress(resolved, partial)
        outcome.save(folder)
    except BaseException as error:
        kept = [path for path in (partial, *_beside(partial)) if path.exists()]
        if kept and not isinstance(error, InputError):          # which may be about what is kept
            typer.echo(f"{kept[0]}: the samples finished so far; the same command goes on from there", err=True)
        raise
    if spare := getattr(outcome, "spare", []):
        typer.echo(f"{partial}: keeps {len(spare)} finished slices that were not asked for; the same command with them goes on "
                   "from there", err=True)
    else:
        remove_partial(partial)
    asked = outcome.slices.numbers if resolved.is_scan else ()
    for left in (path for path in _beside(partial) if int(path.name.rpartition("-")[2]) in asked):
        remove_partial(left)
    _show(outcome, folder)


def _beside(partial: Path) -> list[Path]:
    """What a scan keeps of slices that were interrupted: PARTIAL-3 ..."""
    start = f"{partial.name}-"
    return sorted(path for path in partial.parent.glob("*") if path.name.startswith(start) and path.name[len(start):].isdigit())


@app.command()
def simulate(task: Task = None, config: Config = None, truth: Truth = None, assign: Assign = None, seed: Seed = None,
             output: Annotated[Path, typer.Option("--output", "-o", help="Measurement: .png (8 bit) or .npy (exact).")]
             = Path("measurement.png")) -> None:
    """Degrade a clean image as a task does, and write the measurement."""
    import numpy as np

    from invdiff.io.files import replacing
    from invdiff.io.images import save_image
    from invdiff.job import pose

    problem, _ = pose(_resolve(task, config, assign, {"truth": truth, "seed": seed}))
    try:
        if output.suffix == ".npy":
            with replacing(output) as temporary, temporary.open("wb") as file:
                np.save(file, problem.y[0].numpy())
        elif output.suffix == ".png":
            if problem.y.ndim != 4 or problem.y.shape[1] not in (1, 3):
                raise InputError(f"{output}: this measurement, {tuple(problem.y.shape[1:])}, is no image; expected a name "
                                 "that ends in .npy")
            save_image(output, problem.y[0])
        else:
            raise InputError(f"{output}: expected a name that ends in .png or .npy")
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror}); choose a folder where you may write") from error
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
    from invdiff.config import tasks as bundled_tasks
    from invdiff.validation import read_yaml

    table = Table(Column("task", no_wrap=True), "operator", "sigma_y", Column("config", no_wrap=True))
    for name, path in bundled_tasks().items():
        data = read_yaml(path)
        table.add_row(name, ", ".join(f"{v}" if k == "name" else f"{k}={v}" for k, v in data["operator"].items()),
                      f"{data['sigma_y']}", path.name)
    _console().print(table)
    _console().print(f"configs in {path.parent}", markup=False, highlight=False, soft_wrap=True)
    table = Table("sampler", "steps", "what it does")
    for name, kind in SAMPLERS.items():
        table.add_row(name, str(kind().num_steps), kind.about)
    _console().print(table)


def _resolve(task: str | None, config: Path | None, assign: list[str] | None, given: dict[str, Any]) -> Any:
    from invdiff.config import run_config

    options = [f"{key}={_yaml(value)}" for key, value in given.items() if value is not None]
    return run_config(task, config, [*options, *(assign or [])])


def _yaml(value: Any) -> str:
    import json

    return json.dumps(str(value) if isinstance(value, Path) else value)      # JSON is YAML, and quotes names safely


def _run_with_progress(config: Any, partial: Path) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
                  TimeRemainingColumn(), console=_console(), transient=True) as bar:
        line = bar.add_task("loading", total=None)
        from invdiff.job import run

        def show(progress: Any) -> None:
            bar.update(line, description=config.sampler["name"], completed=progress.done, total=progress.total)

        return run(config, show, partial)


def _show(outcome: Any, folder: Path) -> None:
    from rich.table import Table

    report = outcome.report
    count, metrics = report["samples"], report["metrics"]
    table = Table(title=f"{report['task']}: {count} sample{'s' if count > 1 else ''} by {report['sampler']}, prior "
                        f"{report['prior']}")
    labels = {"measurement": "zero-filled" if "scan" in report else "measurement",
              **{name: name.replace("_", " ") for name in metrics.get("baselines", {})},
              **({"restored": "restored (mean)"} if count > 1 else {}), "sample": "one sample"}
    rows = {label: metrics[name] if name in metrics else metrics["baselines"][name] for name, label in labels.items()
            if name in metrics or name in metrics.get("baselines", {})}
    columns = {"psnr": "PSNR (dB)", "ssim": "SSIM", "psnr_head": "in the head: PSNR", "ssim_head": "SSIM"}
    shown = [key for key in columns if any(key in row for row in rows.values())]
    table.add_column("")
    for key in shown:
        table.add_column(columns[key], justify="right")
    for label, row in rows.items():
        table.add_row(label, *(f"{row[key]:.{2 if 'psnr' in key else 3}f}" if key in row else "" for key in shown))
    if rows:
        _console().print(table)
    typer.echo("\n".join([*_trust(report), *_costs(report), f"results in {folder}"]))


def _trust(report: dict[str, Any]) -> list[str]:
    """What the restoration is worth, a sentence a line."""
    words = [report[name]["words"] for name in ("consistency", "provenance", "novelty") if name in report]
    words += [f"Under the prior {name} the mean moves by {shift['rms']:.3f} rms"
              + (f" ({shift['expected']:.3f} by chance)." if shift["expected"] is not None else ".")
              for name, shift in report.get("other_priors", {}).items()]
    interval = report.get("interval", {})
    if interval.get("factor"):
        width = f", ±{interval['half_width']:.3f} on average" if "half_width" in interval else ""
        words.append(f"The {interval['level']:.0%} interval is the mean ±{interval['factor']:.2f} std{width} "
                     f"({interval['source']}).")
    elif report["samples"] == 1:
        words.append("A single sample has no spread, so there is neither std nor interval; take more with --samples.")
    return words


def _costs(report: dict[str, Any]) -> list[str]:
    spectrum = report.get("error_spectrum")
    return [f"{report['network_calls']:g} network calls a sample, {report['seconds']:.1f} s on {report['device']}",
            *([f"error spectrum: {spectrum}"] if spectrum else [])]


def _console() -> Any:
    from rich.console import Console

    return Console()


def main() -> None:
    """Entry point: 0 done, 2 the input was at fault (one line says what), 130 interrupted, 1 anything else."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)      # is read when torch is imported
    usage_error: Any = typer.BadParameter.__base__      # click's, which newer typer brings along under another name
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
        if code == INTERRUPTED:
            typer.echo("interrupted", err=True)
        sys.exit(code)
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
    except (RuntimeError, MemoryError) as error:
        from invdiff.machine import out_of_memory

        if not out_of_memory(error):
            raise
        message = "error: memory: this does not fit; take fewer or smaller images, or a machine with more memory"
    typer.echo(message, err=True)
    sys.exit(2)
