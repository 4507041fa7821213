"""`invdiff restore`: a run with its progress, and what the terminal shows of the result."""

from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.named_files import check_files
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
    plain_console,
    resolve,
    results_in,
)
from invdiff.cli.pictures import folder_of, restore_folder
from invdiff.cli.saved_run import default_output, run_into, run_with_progress

Input = Annotated[str | None, typer.Option(help="Measurement to restore, or a folder of them; needs sigma_y.")]
Truth = Annotated[str | None, typer.Option(help="Clean image, or a folder of them: simulate a measurement of it, and score.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Output folder [default: restored/TASK, of a file of yours "
                                                                    "restored/TASK-NAME]; of a folder, one in it for each.")]


def restore(
    task: Task = None,
    config: Config = None,
    input: Input = None,
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

    Each picture of a folder is restored into a folder of its own, and summary.csv has a row for each; results that are there
    already are kept.

    Interrupted, it keeps the finished samples in OUTPUT.partial, and started again with the same options goes on from there.
    """
    given = {"input": input, "truth": truth, "samples": samples, "prior": prior, "seed": seed, "device": device,
             "precision": precision, "sampler.name": sampler, "sampler.steps": steps, "baselines": baseline,
             "keep_identity": keep_identity or None}
    check_files(config, {"input": input, "truth": truth, "prior": prior}, assign or [])
    resolved = resolve(task, config, assign, given)
    folder = output or default_output(resolved)
    if source := folder_of(resolved):
        restore_folder(resolved, source, folder)
        return
    outcome = run_into(folder, resolved, lambda partial: run_with_progress(resolved, partial))
    with results_in(folder):
        _show(outcome, folder)


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

    parts = ("blur", "boundary", "noise_level", "few_steps", "consistency", "provenance", "novelty", "unjudged")
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
