"""Quality against network calls, solver by solver: `python -m invdiff.experiments.quality --prior NAME --data FOLDER`.

Images are drawn by each solver in each number of steps, and scored against real ones. What is finished stands in the record,
and the same command goes on from there.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from invdiff.errors import InputError
from invdiff.evaluation.generative.evaluate import ALL, Reference, chosen_metrics, evaluate, floor
from invdiff.evaluation.generative.features import FeatureNetwork, feature_network
from invdiff.evaluation.generative.references import drawn_images, reference
from invdiff.experiments.quality_plot import save_plot
from invdiff.experiments.quality_tables import quality_markdown
from invdiff.experiments.running import show
from invdiff.io.files import make_folder, write_text
from invdiff.io.results import write_json
from invdiff.machine import find_device, hardware, versions
from invdiff.sample_config import SampleConfig, draw, sample_config

ROWS = ("ddpm:50,100,250", "ddim:5,10,15,20,50", "heun:5,8,10,18", "dpm_solver_2:5,8,10", "dpm_solver_3:4,5,7",
        "dpmpp_2m:5,8,10,15,20", "dpmpp_3m:5,8,10,15,20", "dpmpp_2m_sde:10,15,20,50", "edm_stochastic:10,18,32",
        "euler_maruyama:50,100,250", "predictor_corrector:25,50,100", "dpmpp_2s:5,10", "dpm_solver_adaptive:10", "rk45:10",
        "renoise:10,20", "langevin:100")


def quality_table(rows: Mapping[str, SampleConfig], real: Reference, network: FeatureNetwork, output: str | Path,
                  made: Mapping[str, Any], metrics: Sequence[str] = ("fid",),
                  on_row: Callable[[str, dict], object] | None = None) -> dict[str, Any]:
    """Draw, score and time every row; returns the record, {"made", "floor", "rows": {name: {"solver", "steps", "calls" (of the
    network, for one image), "seconds", "seconds_a_step" (of all images together), "scores"}}}. A solver that chooses its own
    steps has None for `steps` and `seconds_a_step`.

    Args:
        rows: what to draw, by name; all with the same `count`.
        real, network: as `evaluate` and `look` have them.
        output: a Markdown page; the record is beside it, as .json, and the plot as .svg and .png. Page and record are
            written after each row, and rows that are there are not measured again.
        made: what else the page should say of how it was made; another page's rows are not mixed in.

    Raises:
        InputError: no rows, other counts, a record of something else, or as `draw` does.
    """
    output = Path(output)
    counts = {config.count for config in rows.values()}
    if len(counts) != 1:
        raise InputError(f"rows: expected one or more, all of the same number of images, got {sorted(counts) or 'none'}")
    known = {"features": network.name, "count": counts.pop(), "real": len(real.images), "metrics": list(metrics), **made}
    record = _earlier(output.with_suffix(".json"), known)
    make_folder(output.parent)
    priors: dict[str, Any] = {}
    try:
        for name, config in rows.items():
            if name not in record["rows"]:
                record["rows"][name], classes = _measure(config, priors, real, network, metrics)
                record["floor"] = record.get("floor") or floor(real, known["count"], metrics, classes=classes)
                _save(record, output)
                if on_row:
                    on_row(name, record["rows"][name])
    finally:
        _save(record, output)
        for suffix in (".svg", ".png"):
            save_plot(record, output.with_suffix(suffix))
    return record


def _measure(config: SampleConfig, priors: dict[str, Any], real: Reference, network: FeatureNetwork,
             metrics: Sequence[str]) -> tuple[dict[str, Any], Tensor | None]:
    """A row, and the classes of its images."""
    if config.prior not in priors:
        priors[config.prior] = sample_config({"prior": config.prior})[1]
    drawn = draw(config, priors[config.prior])
    images = drawn_images(drawn.images, drawn.classes, priors[config.prior], network, config.prior)
    seen = images.seen_by(network)
    seconds, steps = drawn.report["seconds"], None if config.integrator().adaptive else config.steps
    return {"solver": config.solver_name, "steps": steps, "calls": drawn.report["network_calls"], "seconds": seconds,
            "seconds_a_step": steps and round(seconds / steps, 4), "scores": evaluate(seen, real, metrics)}, seen.classes


def _earlier(path: Path, made: dict[str, Any]) -> dict[str, Any]:
    """The record of an earlier call, or a new one."""
    if not path.exists():
        return {"made": made, "rows": {}, "floor": {}}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        there = record["made"]
        record["rows"].items()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: is no record of this comparison; choose another --output") from error
    if different := [key for key in made if key != "versions" and there.get(key) != made[key]]:
        raise InputError(f"{path}: holds rows with another {different[0]}, {there.get(different[0])!r} and not "
                         f"{made[different[0]]!r}; choose another --output")
    return record


def _save(record: dict[str, Any], output: Path) -> None:
    write_json(output.with_suffix(".json"), record)
    write_text(output, quality_markdown(record, output.with_suffix(".svg").name))


def parse_rows(texts: Sequence[str], given: Mapping[str, Any]) -> dict[str, SampleConfig]:
    """"ddim:10,20" as rows of that solver in so many steps; `given` is what is the same for all. Raises InputError."""
    return dict(row for text in texts for row in _rows_of(text, given))


def _rows_of(text: str, given: Mapping[str, Any]) -> Iterator[tuple[str, SampleConfig]]:
    solver, _, steps = text.partition(":")
    if not solver or not all(part.isdecimal() and int(part) for part in steps.split(",")):
        raise InputError(f"--rows: expected SOLVER:STEPS[,STEPS ...], such as ddim:10,20, got {text!r}")
    for part in steps.split(","):
        yield f"{solver}, {int(part)}", sample_config({**given, "solver": {"name": solver}, "steps": int(part)})[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the page; 0 when done, 2 where the input is at fault."""
    parser = argparse.ArgumentParser(prog="python -m invdiff.experiments.quality", description="Quality against network calls.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--prior", default="fashion", help="a shipped prior's name, or the path of a .safetensors file")
    add("--data", required=True, help="real images: a folder, of idx files perhaps, or an HDF5 file")
    add("--rows", nargs="+", default=list(ROWS), help="SOLVER:STEPS,STEPS ...")
    add("--count", "-n", type=int, default=10_000, help="images of each row")
    add("--guidance", type=float, default=1.0)
    add("--guidance-interval", type=float, nargs=2, help="noise levels at which it acts, lowest and highest")
    add("--features", default="fashion-classifier", help="a classifier's name or file, or inception")
    add("--metrics", default="fid,kid,pr,dc,accuracy", help=", ".join(ALL))
    add("--precision", default="fp32", choices=("fp32", "bf16"), help="of the prior's network")
    add("--device", default="auto")
    add("--output", type=Path, default=Path("quality.md"))
    options = parser.parse_args(arguments)
    return show(lambda: _run(options, Console()))


def _run(options: argparse.Namespace, console: Console) -> str:
    given = {key: getattr(options, key) for key in ("prior", "count", "guidance", "guidance_interval", "precision",
                                                    "device")}
    rows, metrics = parse_rows(options.rows, given), chosen_metrics(options.metrics)
    network = feature_network(options.features, device := find_device(options.device))
    real, names = reference(network, options.data)
    made = {"prior": Path(options.prior).stem, "guidance": options.guidance, "interval": options.guidance_interval,
            "precision": options.precision, **names, "hardware": hardware(torch.device(device)), "versions": versions()}

    def say(name: str, row: dict[str, Any]) -> None:
        line = f"{name}: {row['calls']:g} calls, {row['seconds']:.1f} s, {row['scores']}"
        console.print(line, highlight=False, soft_wrap=True)

    record = quality_table(rows, real, network, options.output, made, metrics, say)
    return quality_markdown(record, options.output.with_suffix(".svg").name)


if __name__ == "__main__":
    sys.exit(main())
