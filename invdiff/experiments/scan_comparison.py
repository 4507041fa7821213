"""Diffusion samples and classical reconstructions of real scans: `python -m invdiff.experiments.scan_comparison --scans DIR`.

Fully sampled k-space is undersampled and restored as `invdiff restore --task mri` does. Every classical method gets the same
coils, maps and k-space, and its weight is chosen with the truth in hand. What is finished stands in the record, and the same
command goes on from there.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from invdiff.baselines.mri import tuned
from invdiff.config import build_sampler
from invdiff.errors import InputError
from invdiff.evaluation.mri_metrics import score
from invdiff.experiments.running import show
from invdiff.io.files import make_folder, write_text
from invdiff.io.markdown import table
from invdiff.io.scans import open_scan
from invdiff.machine import find_device, hardware, versions
from invdiff.mri.preparing import Prepared, prepare
from invdiff.mri.scan_prior import ScanPrior
from invdiff.mri.settings import ScanSettings
from invdiff.mri.uncertainty import magnitudes
from invdiff.priors import load_prior
from invdiff.restoration import residual, restore
from operators import mri

CLASSICAL = ("zero_filled", "sense", "l1_wavelet", "total_variation", "bart_l1_wavelet")
MASKS: dict[str, dict[str, Any]] = {
    "equispaced 4×": {"acceleration": 4, "pattern": "equispaced"}, "random 4×": {"acceleration": 4, "pattern": "random"},
    "equispaced 8×": {"acceleration": 8, "pattern": "equispaced"}, "random 8×": {"acceleration": 8, "pattern": "random"},
    "Poisson disc 8×": {"acceleration": 8, "pattern": "poisson_disc"}}


def compare(path: Path, mask: str, options: argparse.Namespace, known: dict[str, Any]) -> dict[str, Any]:
    """Scores of all methods on one scan under one mask; `known` holds those of an earlier call."""
    prepared = prepare(open_scan(path), 0, ScanSettings(**MASKS[mask]))
    assert prepared.truth is not None
    truth = prepared.truth[None] * prepared.scale

    def scores(x: Tensor) -> dict[str, float]:
        image = mri.combine_sets(x * prepared.support)[0]
        return {name: round(value, 4) for name, value in score(image, truth).items()}

    found = dict(known)
    for name in CLASSICAL:
        if name not in found and (name != "bart_l1_wavelet" or which("bart")):
            x, weight = tuned(name, prepared.problem, lambda x: scores(x)["psnr"])
            found[name] = scores(x) | {"weight": weight}
    if options.label not in found:
        found[options.label] = ours(prepared, options, truth)
    return found


def ours(prepared: Prepared, options: argparse.Namespace, truth: Tensor) -> dict[str, Any]:
    """Scores of the mean of the samples, and of the first, how its spread tells of the error, and the time."""
    prior = ScanPrior(load_prior(options.prior), prepared.drawn.support)
    sampler = build_sampler({"name": options.sampler, "steps": options.steps} | options.parameters)
    start = time.perf_counter()
    result = restore(prepared.lean, prior, sampler, samples=options.samples, seed=0, device=options.device,
                     precision=options.precision, antithetic=True)
    seconds = time.perf_counter() - start
    samples = prepared.drawn.on_scan(result.samples)[0]
    magnitude, deviation = magnitudes(samples)
    first = score(magnitudes(samples[:1])[0][None], truth)
    return {**{k: round(v, 4) for k, v in score(magnitude[None], truth).items()},
            "sample": {k: round(v, 4) for k, v in first.items()}, "seconds": round(seconds, 1),
            "residual": round(residual(prepared.drawn.problem, result.samples)["value"], 3),
            "spearman": spearman(deviation, magnitude, truth[0])}


def spearman(deviation: Tensor, magnitude: Tensor, truth: Tensor) -> float:
    """Rank correlation of spread and error over the head."""
    from scipy.stats import spearmanr

    from invdiff.evaluation.mri_metrics import head_mask

    head = torch.from_numpy(head_mask(truth[None])[0])
    return round(float(spearmanr(deviation[head], (magnitude - truth).abs()[head]).statistic), 3)


def measure(options: argparse.Namespace, say: Console) -> dict[str, Any]:
    record: dict[str, Any] = {"made": {}, "cases": {}}
    if options.output.with_suffix(".json").is_file():
        record = json.loads(options.output.with_suffix(".json").read_text(encoding="utf-8"))
    made = {"prior": options.prior, "sampler": options.sampler, "parameters": options.parameters, "steps": options.steps,
            "samples": options.samples, "antithetic": True, "grid": ScanSettings().grid, "precision": options.precision,
            "hardware": hardware(find_device(options.device)), "versions": versions()}
    kept = record["made"].setdefault(options.label, made)
    if kept != made:
        raise InputError(f"--label {options.label}: {options.output.with_suffix('.json')} holds rows of that name, made "
                         "otherwise; choose another label or output")
    paths = [Path(options.scans, f"{name}.h5") for name in options.names]
    for path in paths:
        for mask in options.masks or MASKS:
            case = f"{path.stem}, {mask}"
            record["cases"][case] = compare(path, mask, options, record["cases"].get(case, {}))
            say.print(f"{case}: {best(record['cases'][case], options.label)}", highlight=False)
            write_text(options.output.with_suffix(".json"), json.dumps(record, indent=1))
    return record


def best(case: dict[str, Any], label: str) -> str:
    """The mean of the samples beside the best classical method, in words."""
    name = max((name for name in CLASSICAL if name in case), key=lambda name: case[name]["psnr"])
    own, other = case[label], case[name]
    parts = [f"{key} {own[key]:.4g} against {other[key]:.4g}" for key in ("psnr", "ssim", "psnr_head", "ssim_head")]
    return (f"{', '.join(parts)} of {name}; sample {own['sample']['psnr_head']:.2f}, residual {own['residual']}, "
            f"spearman {own['spearman']}, {own['seconds']} s")


def to_markdown(record: dict[str, Any], label: str) -> str:
    made, scans = record["made"][label], len({case.partition(",")[0] for case in record["cases"]})
    lines = ["# Real scans, undersampled", "", "Written by `python -m invdiff.experiments.scan_comparison`. PSNR in dB / SSIM, "
             "as fastMRI defines them, of the whole slice and, in the second table, inside the head.", "",
             f"- K-space of {scans} real scans, fully sampled, under masks with 11 to 24 lines, or a block, in the middle. "
             "The truth is the fully sampled scan, its coils combined by ESPIRiT maps of its own.",
             "- All methods get the same white coils, ESPIRiT maps from the undersampled data, and k-space. The weights of the "
             "classical ones are chosen with the truth in hand, for each scan and mask; ours has none.",
             f"- Ours: prior {made['prior']}, {made['sampler']}, {made['steps']} steps, mean of {made['samples']} samples in "
             f"antithetic pairs, drawn on {made['grid']} × {made['grid']} pixels or as many, in virtual coils that hold 99.5 % "
             f"of the energy, {made['precision']}; on {made['hardware']}.",
             f"- Versions: {', '.join(f'{name} {version}' for name, version in made['versions'].items())}."]
    columns = [*CLASSICAL, label]
    for title, suffix in (("Whole slice", ""), ("Inside the head", "_head")):
        rows = []
        for case, found in record["cases"].items():
            if label not in found:
                continue
            cells = [f"{found[n]['psnr' + suffix]:.2f} / {found[n]['ssim' + suffix]:.3f}" if n in found else ""
                     for n in columns]
            rival = max(found[n]["psnr" + suffix] for n in CLASSICAL if n in found)
            rows.append([case, *cells, f"{found[label]['psnr' + suffix] - rival:+.2f}"])
        head = ["", *(name.replace("_", " ") for name in columns), "gain, dB"]
        lines += ["", f"## {title}", "", *table(head, rows)]
    return "\n".join([*lines, ""])


def _parameters(text: str) -> dict[str, Any]:
    """The sampler's, from JSON. Raises InputError."""
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(f"--parameters: expected a JSON object, such as {{\"covariance\": \"spectral\"}}, got "
                         f"{text}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 when done, 2 where the input is at fault."""
    parser = argparse.ArgumentParser(prog="python -m invdiff.experiments.scan_comparison",
                                     description="Diffusion samples and classical reconstructions of real scans.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--scans", required=True, help="a folder with fully sampled fastMRI-like files")
    add("--names", nargs="+", default=["brain_t1_8ch", "brain_t1_4ch", "brain_gre_16ch_96", "brain_smallfov_8ch"])
    add("--masks", nargs="+", choices=tuple(MASKS), help="all of them by default")
    add("--label", default="invdiff", help="what this row is called; a row that is there is not measured again")
    add("--prior", default="brain", help="a shipped prior's name, or the path of a .safetensors file")
    add("--sampler", default="moment_matching")
    add("--parameters", default='{"covariance": "low-rank"}', help="of the sampler, as JSON")
    add("--steps", type=int, default=30)
    add("--samples", type=int, default=8)
    add("--precision", default="bf16", choices=("fp32", "bf16"), help="of the network")
    add("--device", default="auto")
    add("--output", type=Path, default=Path("comparison-scans.md"), help="the table; the record is beside it, as .json")
    options = parser.parse_args(arguments)
    return show(lambda: _run(options))


def _run(options: argparse.Namespace) -> str:
    options.parameters = _parameters(options.parameters)
    make_folder(options.output.parent)
    page = to_markdown(measure(options, Console()), options.label)
    write_text(options.output, page)
    return page


if __name__ == "__main__":
    sys.exit(main())
