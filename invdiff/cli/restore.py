"""`invdiff restore`: a run with its progress, and what the terminal shows of the result."""

from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.options import (
    Assign,
    Config,
    Device,
    Precision,
    Prior,
    Sampler,
    Samples,
    Seed,
    Task,
    Truth,
    plain_console,
    progress_bar,
    resolve,
    results_in,
)
from invdiff.errors import InputError

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Output folder [default: restored/TASK].")]


def restore(
    task: Task = None,
    config: Config = None,
    input: Annotated[str | None, typer.Option(help="Measurement to restore; needs sigma_y.")] = None,
    truth: Truth = None,
    assign: Assign = None,
    sampler: Sampler = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the sampler.")] = None,
    samples: Samples = None,
    prior: Prior = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Scans: a classical reconstruction to compare with, such as "
                                                            "l1_wavelet; repeatable.")] = None,
    keep_identity: Annotated[bool, typer.Option("--keep-identity", help="Scans: write down who was scanned.")] = False,
    output: Output = None,
) -> None:
    """Restore an image, or with --task mri the slices of a scan. Without --input or --truth, a bundled photo is degraded and
    restored, or a bundled scan.

    Interrupted, it keeps the finished samples in OUTPUT.partial, and started again with the same options goes on from there.
    """
    from invdiff.io.partial import holds_parts, remove_partial
    from invdiff.io.results import check_kept, check_output

    given = {"input": input, "truth": truth, "samples": samples, "prior": prior, "seed": seed, "device": device,
             "precision": precision, "sampler.name": sampler, "sampler.steps": steps, "baselines": baseline,
             "keep_identity": keep_identity or None}
    resolved = resolve(task, config, assign, given)
    folder = output or Path("restored") / resolved.task
    check_output(folder)
    check_kept(folder, resolved.files)
    partial = folder.resolve().with_name(f"{folder.resolve().name}.partial")
    outcome = None
    try:
        outcome = _run_with_progress(resolved, partial)
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
    asked = outcome.slices.numbers if resolved.is_scan else ()
    for left in (path for path in _beside(partial) if int(path.name.rpartition("-")[2]) in asked):
        remove_partial(left)
    with results_in(folder):
        _show(outcome, folder)


def _beside(partial: Path) -> list[Path]:
    """What a scan keeps of slices that were interrupted: PARTIAL-3 ..."""
    start = f"{partial.name}-"
    return sorted(path for path in partial.parent.glob("*") if path.name.startswith(start) and path.name[len(start):].isdigit())


def _run_with_progress(config: Any, partial: Path) -> Any:
    with progress_bar("steps") as bar:
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
        plain_console().print(table)
    typer.echo("\n".join([*_trust(report), *_costs(report), f"results in {folder}"]))


def _trust(report: dict[str, Any]) -> list[str]:
    """What the restoration is worth, a sentence a line."""
    from invdiff.evaluation.intervals import words_of

    parts = ("boundary", "noise_level", "few_steps", "consistency", "provenance", "novelty", "unjudged")
    words = [report[name]["words"] for name in parts if name in report]
    words += [f"Under the prior {name} the mean moves by {shift['rms']:.3f} rms"
              + (f" ({shift['expected']:.3f} by chance)." if shift["expected"] is not None else ".")
              for name, shift in report.get("other_priors", {}).items()]
    if interval := words_of(report.get("interval", {})):
        words += interval
        if covered := report["metrics"].get("covered"):
            words.append(f"{covered:.0%} of the truth{', of the head alone,' if 'scan' in report else ''} is within it.")
    elif report["samples"] == 1:
        words.append("A single sample has no spread, so there is neither std nor interval; take more with --samples.")
    return words


def _costs(report: dict[str, Any]) -> list[str]:
    spectrum, gradients = report.get("error_spectrum"), report["network_gradients"]
    calls = f"{report['network_calls']:g} network calls" + (f" and {gradients:g} gradients of the network" if gradients else "")
    return [f"{calls} a sample, {report['seconds']:.1f} s on {report['device']}",
            *([f"error spectrum: {spectrum}"] if spectrum else [])]
