"""Rows of a benchmark, one per image, as one line per method and task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from invdiff.benchmark.cells import DONE, LEVELS, NO_PRIOR
from invdiff.benchmark.images import SAMPLE
from invdiff.benchmark.record import Record
from invdiff.benchmark.settings import BenchmarkConfig
from invdiff.evaluation.metrics import METRICS

Row = Mapping[str, Any]
COLUMNS = (("residual", "data residual", ".2f"), ("network_calls", "network calls a sample", "g"),
           ("seconds", "seconds", ".2f"), ("seconds_per_call", "ms a call", ".0f"), ("memory_mib", "peak memory, MiB", ".0f"))


@dataclass(frozen=True)
class Variant:
    """A method with a prior, the same in all tasks. number: from 1, as in tables and figures. family: the method's name, which
    variants share that differ in parameters."""

    number: int
    method: str
    prior: str
    label: str
    family: str


@dataclass(frozen=True)
class Line:
    """A variant on a task: means over its images (of times for a call the median, of memory the largest), by column.

    done, of: images that have an estimate, and images tried. reasons: of the others, how many each.
    """

    variant: Variant
    values: Mapping[str, float]
    done: int
    of: int
    reasons: Mapping[str, int]


def facts(record: Record, config: BenchmarkConfig) -> dict[str, str]:
    """How a benchmark was made, by what it is called: plain text."""
    made = record.made
    named = f": {', '.join(made['images'])}" if config.images == SAMPLE else ", central crops"
    images = f"{config.count} of {config.size} × {config.size} pixels{named}"
    return {"images": images, "priors": ", ".join(config.priors),
            "samples": f"{config.samples} of each image, unless the table says otherwise"
                       f"{'; in antithetic pairs where a method can' if config.antithetic else ''}; seed {config.seed}",
            "precision": config.precision, "command": made["command"],
            "run": f"{made['started']} to {made['finished'] or '(not finished)'}, {made['workers']} worker(s)",
            "machine": f"{made['hardware']}, {made['cores']} cores, {made['system']}",
            "versions": ", ".join(f"{name} {version}" for name, version in made["versions"].items()),
            "commit": made["commit"] or "not run from a checkout"}


def missing(record: Record) -> list[str]:
    """A sentence about cells that are still to be run, if there are any."""
    count = len(record.order) - len(record.rows)
    return [f"{count} of {len(record.order)} cells are still to be run."] if count else []


def described(task: Mapping[str, Any]) -> str:
    """A task's operator and noise in words."""
    operator = ", ".join(str(v) if k == "name" else f"{k} {v}" for k, v in task["operator"].items())
    return f"{operator}; noise {task['sigma_y']:g}"


def sections(record: Record, config: BenchmarkConfig) -> list[tuple[dict[str, Any], list[Line]]]:
    """Each task of the config with its lines."""
    rows = record.sorted()
    known = variants(rows, {method["label"]: method["name"] for method in config.full_methods})
    return [(task, lines(rows, known, task["name"])) for task in config.full_tasks]


def cost(line: Line, column: str, form: str) -> str:
    """The value of one of COLUMNS as it is shown."""
    if column not in line.values:
        return "–"
    return f"{line.values[column] * (1000 if column == 'seconds_per_call' else 1):{form}}"


def variants(rows: Sequence[Row], families: Mapping[str, str]) -> list[Variant]:
    """In the order of the rows. families: the methods' names by label."""
    pairs = list(dict.fromkeys((row["method"], row["prior"]) for row in rows))
    several = len({prior for _, prior in pairs} - {NO_PRIOR}) > 1
    return [Variant(i + 1, method, prior, f"{method}, {prior}" if several and prior != NO_PRIOR else method,
                    families.get(method, method)) for i, (method, prior) in enumerate(pairs)]


def lines(rows: Sequence[Row], known: Sequence[Variant], task: str) -> list[Line]:
    """One for each variant that was tried on a task."""
    found = []
    for variant in known:
        mine = [row for row in rows if (row["task"], row["method"], row["prior"]) == (task, variant.method, variant.prior)]
        if mine:
            good = [row for row in mine if row["status"] == DONE]
            said = [f"{row['status']}: {row['reason']}" for row in mine if row["status"] != DONE]
            found.append(Line(variant, _means(good), len(good), len(mine), {reason: said.count(reason) for reason in said}))
    return found


def best(known: Sequence[Line], metric: str) -> set[int]:
    """Numbers of the variants whose mean estimate is best by a metric, as far as shown digits tell; means over some of the
    images alone do not compete."""
    shown = {line.variant.number: round(line.values[metric], METRICS[metric].digits)
             for line in known if metric in line.values and line.done == line.of}
    if not shown:
        return set()
    top = (max if METRICS[metric].better == "higher" else min)(shown.values())
    return {number for number, value in shown.items() if value == top}


def covered(line: Line) -> list[tuple[float, float]]:
    """(level, share) of the coverage curve; empty where there were too few samples."""
    return [(level, line.values[name]) for level in LEVELS if (name := f"coverage_{100 * level:g}") in line.values]


def _means(rows: Sequence[Row]) -> dict[str, float]:
    columns = {name for row in rows for name, value in row.items() if isinstance(value, int | float)}
    kinds: dict[str, Any] = {"seconds_per_call": median, "memory_mib": max}
    return {name: float(kinds.get(name, fmean)([row[name] for row in rows if row.get(name) is not None])) for name in columns}
