"""Samplers and baselines on the same photographs: `python -m invdiff.evaluation.comparison --images photos/`.

Writes a Markdown table, and beside it a JSON file with all that was measured. Every finished method is saved there, so
a run that was stopped goes on where it was, and `--samplers` may add rows later.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from deepinv.physics import LinearPhysics
from rich.console import Console
from rich.markdown import Markdown
from torch import Tensor

import operators
from invdiff.config import SAMPLERS
from invdiff.errors import InputError
from invdiff.evaluation.baselines import tuned_total_variation
from invdiff.evaluation.metrics import enlarged, psnr, ssim
from invdiff.evaluation.namesakes import STEPS, namesake
from invdiff.evaluation.table import to_markdown
from invdiff.interop import DeepinvSampler
from invdiff.io.files import replacing
from invdiff.posterior import Sampler
from invdiff.priors import EDMDenoiser, load_prior
from invdiff.problem import Problem, simulate
from invdiff.restoration import find_device, restore, versions
from invdiff.training.data import load_images, to_rgb
from invdiff.training.run import centre_crops, hardware

TASKS: dict[str, Callable[[tuple[int, int, int]], LinearPhysics]] = {
    "deblur": lambda size: operators.GaussianBlur(size, sigma=1.6),
    "motion-deblur": lambda size: operators.MotionBlur(size),
    "inpaint": lambda size: operators.Inpainting(size, operators.random_mask(size, 0.5, 0)),
    "sr": lambda size: operators.SuperResolution(size, 2),
    "sr4": lambda size: operators.SuperResolution(size, 4),
    "cs": lambda size: operators.CompressedSensing(size, 0.25),
}
DEFAULT_TASKS = ("deblur", "motion-deblur", "inpaint", "sr")
THEIRS = {f"deepinv_{name}": name for name in STEPS}       # deepinv's samplers of these names, with steps of their own
TV_WEIGHTS = tuple(float(f"{w:.2g}") for w in np.geomspace(1e-3, 3e-2, 7))
TV_ITERATIONS = 200


@dataclass(frozen=True)
class Plan:
    """What to compare: clean images (B, 3, H, W) in [0, 1], a prior, and how to run each sampler."""

    images: Tensor
    prior: EDMDenoiser
    sigma_y: float
    samplers: dict[str, Sampler]
    samples: int
    precision: str
    device: str
    tv_weights: Sequence[float] = TV_WEIGHTS


def compare(plan: Plan, tasks: Sequence[str], record: dict, save: Callable[[], None], say: Callable[[str], None]) -> None:
    """Fill record["tasks"][task][method] with what is missing there, calling `save` after each method."""
    for task in tasks:
        done = record["tasks"].setdefault(task, {})
        _, channels, height, width = plan.images.shape
        problem = simulate(TASKS[task]((channels, height, width)), plan.images, plan.sigma_y, seed=0)
        for method in ("measurement", "tv", *plan.samplers):
            if method not in done:
                done[method] = measure(plan, problem, method)
                save()
                say(f"{task}, {method}: {done[method]['psnr']:.2f} dB")


def measure(plan: Plan, problem: Problem, method: str) -> dict:
    """Scores and costs of one method: "measurement", "tv" or the name of one of the plan's samplers."""
    if method == "measurement":
        picture = problem.y if problem.y.ndim == 4 else problem.physics.A_dagger(problem.y)
        return _scores(enlarged(picture, plan.images.shape[-2:]), plan.images)
    return _total_variation(plan, problem) if method == "tv" else _sampler(plan, problem, method)


def _scores(x: Tensor, truth: Tensor) -> dict:
    return {"psnr": round(float(psnr(x, truth).mean()), 3), "ssim": round(float(ssim(x, truth).mean()), 4)}


def _total_variation(plan: Plan, problem: Problem) -> dict:
    start = time.perf_counter()
    x, weight = tuned_total_variation(problem, plan.images, plan.tv_weights, TV_ITERATIONS)
    seconds = (time.perf_counter() - start) / len(plan.tv_weights) / len(plan.images)
    return _scores(x, plan.images) | {"weight": weight, "seconds": round(seconds, 3)}


def _sampler(plan: Plan, problem: Problem, name: str) -> dict:
    result = restore(problem, plan.prior, plan.samplers[name], samples=plan.samples, seed=0, device=plan.device,
                     precision=plan.precision)
    seconds = result.report["seconds"] / result.samples.shape[0] / plan.samples
    mean = _scores(result.mean, plan.images)
    return _scores(result.samples[:, 0], plan.images) | {
        "mean": mean, "seconds": round(seconds, 3), "calls": result.report["network_calls"],
        "residual": round(result.report["residual"]["value"], 3)}


def read_crops(path: str, key: str, count: int, size: int) -> Tensor:
    """Central crops (count, 3, size, size) of the first images of a folder or HDF5 dataset. Raises InputError."""
    images = load_images(path, key)[:count]
    small = [i.shape[:2] for i in images if min(i.shape[:2]) < size]
    if len(images) < count or small:
        found = f"one of {small[0][1]} x {small[0][0]}" if small else f"{len(images)}"
        raise InputError(f"{path}: expected {count} images of at least {size} x {size} pixels, found {found}")
    return centre_crops([to_rgb(image) for image in images], size)


def digest(*parts: Tensor | str) -> str:
    """Twelve hexadecimal digits that stand for tensors and texts."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:12]


def describe(options: argparse.Namespace, plan: Plan) -> dict:
    """How the numbers are made; two runs with the same description may share a record. Holds no paths."""
    card = plan.prior.card
    weights = digest(json.dumps(card, sort_keys=True), *plan.prior.state_dict().values())
    source = Path(options.images).name + (f" ({options.key})" if Path(options.images).is_file() else "")
    return {"images": f"{source}, {digest(plan.images)}", "count": options.count, "size": options.size,
            "sigma_y": options.sigma_y, "prior": f"{card.get('name', 'unnamed')}, {weights}", "samples": options.samples,
            "steps": options.steps, "precision": options.precision, "device": find_device(options.device).type,
            "tv": {"weights": list(plan.tv_weights), "iterations": TV_ITERATIONS}, "versions": versions()}


def load_record(path: Path, made: dict, machine: str) -> dict:
    """The unfinished record in `path`, or a new one. Raises InputError where that one was made in another way."""
    if not path.exists():
        return {"made": made, "hardware": machine, "tasks": {}}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        before, _ = record["made"], record["tasks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a record of a comparison; remove it or choose another --output") from error
    changed = [key for key in made if before.get(key) != made[key]]
    if changed:
        raise InputError(f"{path}: was made with {changed[0]} {before.get(changed[0])!r}, and not {made[changed[0]]!r}; "
                         "remove it or choose another --output")
    return record


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m invdiff.evaluation.comparison",
                                     description="Samplers and baselines on the same photographs.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--images", required=True, help="a folder of photographs, or an HDF5 file with a dataset of encoded images")
    add("--key", default="test_jpeg", help="the dataset in the HDF5 file")
    add("--count", type=int, default=8, help="images, the first ones")
    add("--size", type=int, default=256, help="side of the central crop, pixels")
    add("--prior", default="natural", help="a shipped prior's name, or the path of a .safetensors file")
    add("--samples", type=int, default=8, help="posterior samples of each image")
    add("--steps", type=int, help="of our samplers; without it, each sampler's own default")
    add("--sigma-y", type=float, default=0.02, help="noise standard deviation; white is 1")
    add("--precision", default="bf16", choices=("fp32", "bf16"), help="of the network")
    add("--device", default="auto")
    add("--samplers", default="moment_matching", help=f"comma-separated, of {', '.join((*SAMPLERS, *THEIRS))}")
    add("--tasks", default=",".join(DEFAULT_TASKS), help=f"comma-separated, of {', '.join(TASKS)}")
    add("--output", type=Path, default=Path("comparison.md"), help="the table; the record is beside it, as .json")
    return parser.parse_args(arguments)


def chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    """The names in a comma-separated list. Raises InputError for one that is not known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(f"--{what}: expected some of {', '.join(known)}, got {(unknown or [text])[0]!r}")
    return names


def make_sampler(name: str, steps: int | None) -> Sampler:
    """One of SAMPLERS in `steps` steps, or one of THEIRS."""
    if name in THEIRS:
        return DeepinvSampler(build=lambda prior, sigma_y: namesake(THEIRS[name], prior, sigma_y))
    return SAMPLERS[name](**({} if steps is None else {"steps": steps}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 when done, 2 where the input is at fault."""
    console = Console()
    try:
        run(parse(arguments), console)
    except InputError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2
    return 0


def run(options: argparse.Namespace, console: Console) -> None:
    """What `main` does with parsed options. Raises InputError."""
    for name, least in (("count", 1), ("samples", 1), ("size", 32), ("sigma_y", 0)):
        if not getattr(options, name) >= least:
            raise InputError(f"--{name.replace('_', '-')}: expected at least {least}, got {getattr(options, name)}")
    if options.steps is not None and options.steps < 1:
        raise InputError(f"--steps: expected at least 1, got {options.steps}")
    if options.size % 2 or options.output.suffix == ".json" or not options.output.parent.is_dir():
        raise InputError("expected an even --size and an --output in an existing folder, not called .json, got "
                         f"{options.size} and {options.output}")
    tasks = chosen(options.tasks, list(TASKS), "tasks")
    samplers = {name: make_sampler(name, options.steps) for name in chosen(options.samplers, [*SAMPLERS, *THEIRS], "samplers")}
    plan = Plan(read_crops(options.images, options.key, options.count, options.size), load_prior(options.prior),
                options.sigma_y, samplers, options.samples, options.precision, options.device)
    path = options.output.with_suffix(".json")
    record = load_record(path, describe(options, plan), hardware(find_device(options.device)))

    def save() -> None:
        for target, text in ((path, json.dumps(record, indent=1)), (options.output, to_markdown(record))):
            with replacing(target) as temporary:
                temporary.write_text(text, encoding="utf-8")

    compare(plan, tasks, record, save, lambda line: console.print(line, highlight=False))
    save()
    console.print(Markdown(to_markdown(record)))


if __name__ == "__main__":
    sys.exit(main())
