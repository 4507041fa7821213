"""The estimates of a benchmark as files beside its tables, for metrics of a user's own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from invdiff.benchmark.settings import BenchmarkConfig
from invdiff.io.files import writing
from invdiff.io.results import save_arrays
from invdiff.problem import Problem
from invdiff.result import Result

ESTIMATES = "estimates"
NO_PRIOR = "none"
LONGEST = 100           # characters of a name, of the 255 that file systems allow


@dataclass(frozen=True)
class Cell:
    """By position in the config's lists; without a prior for methods that use none."""

    task: int
    prior: int | None
    method: int
    image: int


def estimate_path(folder: Path, config: BenchmarkConfig, cell: Cell) -> Path:
    """folder/estimates/TASK/METHOD/PRIOR/IMAGE.h5, the image's number from 1 as in the tables. The names stay what they are as
    tasks, methods and priors are added at an end."""
    tasks = file_names([spec["name"] for spec in config.full_tasks])
    methods = file_names([spec["label"] for spec in config.full_methods])
    priors = file_names([Path(name).name for name in config.priors])
    prior = NO_PRIOR if cell.prior is None else priors[cell.prior]
    return folder / ESTIMATES / tasks[cell.task] / methods[cell.method] / prior / f"{cell.image + 1}.h5"


def file_names(names: Sequence[str]) -> list[str]:
    """Names as any file system takes them, each another: what else than letters, digits and some signs is in them is "-"."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w=+,. -]", "-", name).strip(" .")[:LONGEST] or "-"
        number, unique = 2, plain
        while unique.casefold() in taken:
            number, unique = number + 1, f"{plain}-{number}"
        taken.add(unique.casefold())
        found.append(unique)
    return found


def save_estimate(path: Path, result: Result, problem: Problem, truth: Tensor) -> None:
    """An HDF5 file, whole or not at all: mean (1, C, H, W), samples (1, S, C, H, W), measurement (1, ...), and the truth
    (1, C, H, W), in float32, white being 1. Raises InputError where it cannot be written."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(path, mean=result.mean, samples=result.samples, measurement=problem.y, truth=truth[None])
