"""Rows of a benchmark, one per image, as one line per method and task."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from invdiff.benchmark.cells import DONE, LEVELS
from invdiff.benchmark.estimates import NO_PRIOR
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

    scores: of each image, by metric. errors: standard errors of their means, where there are several. done, of: images that
    have an estimate, and images tried. reasons: of the others, how many each.
    """

    variant: Variant
    values: Mapping[str, float]
    errors: Mapping[str, float]
    scores: Mapping[str, Sequence[float]]
    done: int
    of: int
    reasons: Mapping[str, int]


def facts(record: Record, config: BenchmarkConfig) -> dict[str, str]:
    """How a benchmark was made, by what it is called: plain text."""
    named = f": {', '.join(record.images)}" if config.images == SAMPLE else ", central crops"
    images = f"{config.count} of {config.size} × {config.size} pixels{named}"

    def told(say: Callable[[Mapping[str, Any]], str]) -> str:
        return "; ".join(dict.fromkeys(say(run) for run in record.of_runs()))

    return {"images": images, "priors": ", ".join(config.priors),
            "samples": f"{config.samples} of each image, unless the table says otherwise"
                       f"{'; in antithetic pairs where a method can' if config.antithetic else ''}; seed {config.seed}",
            "precision": config.precision, "command": told(lambda run: run["command"]),
            "run": told(lambda run: f"{run['started']} to {run['finished'] or '(not finished)'}, {run['workers']} worker(s)"),
            "machine": told(lambda run: f"{run['hardware']}, {run['cores']} cores, {run['system']}"),
            "versions": told(lambda run: ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
            "commit": told(lambda run: run["commit"] or "not run from a checkout")}


def caveats(record: Record) -> list[str]:
    """Sentences about cells that are still to be run, about runs that differ, and the record's notes."""
    count, runs = len(record.order) - len(record.rows), record.of_runs()
    missing = [f"{count} of {len(record.order)} cells are still to be run."] if count else []
    unlike = [name for name in ("hardware", "workers", "versions", "commit") if any(run[name] != runs[0][name] for run in runs)]
    mixed = [f"The rows are of {len(runs)} runs that differ in {', '.join(unlike)}; the column `run` of results.csv says which "
             "is of which."] if unlike else []
    return missing + mixed + record.notes


def remarks(rows: Sequence[Row]) -> list[str]:
    """Sentences about methods whose samples are never different, though they should be."""
    several = [row for row in rows if row["status"] == DONE and row["samples"] > 1]
    alike = [method for method in dict.fromkeys(row["method"] for row in several)
             if all(row.get("distinct") == 1 for row in several if row["method"] == method)]
    return [f"All samples of {method} are equal, so that their spread and what it covers say nothing. Does it set a seed of "
            "its own? One that always gives the same wants samples: 1." for method in alike]


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
            scores = {name: [row[name] for row in good] for name in METRICS
                      if good and all(_known(row.get(name)) for row in good)}
            errors = {name: standard_error(values) for name, values in scores.items() if len(good) > 1}
            reasons = {reason: said.count(reason) for reason in said}
            found.append(Line(variant, _means(good), errors, scores, len(good), len(mine), reasons))
    return found


def best(known: Sequence[Line], metric: str) -> set[int]:
    """Numbers of the variants whose mean estimate is best by a metric, as far as images and shown digits tell: with those that
    are within one standard error of the difference, image by image. Means over some of the images alone do not compete."""
    most = max((line.of for line in known), default=0)
    scores = {line.variant.number: line.scores[metric] for line in known if metric in line.scores and line.done == most}
    if not scores:
        return set()
    top, digits = (max if METRICS[metric].better == "higher" else min)(scores.values(), key=fmean), METRICS[metric].digits

    def as_good(values: Sequence[float]) -> bool:
        gaps = [a - b for a, b in zip(values, top, strict=True)]
        return round(fmean(values), digits) == round(fmean(top), digits) or abs(fmean(gaps)) <= standard_error(gaps)

    return {number for number, values in scores.items() if as_good(values)}


def standard_error(values: Sequence[float]) -> float:
    """Of their mean; 0 of a single one."""
    mean, count = fmean(values), len(values)
    return (sum((value - mean) ** 2 for value in values) / (count - 1) / count) ** 0.5 if count > 1 else 0.0


def covered(line: Line) -> list[tuple[float, float]]:
    """(level, share) of the coverage curve; empty where there were too few samples."""
    return [(level, line.values[name]) for level in LEVELS if (name := f"coverage_{100 * level:g}") in line.values]


def _known(value: Any) -> bool:
    """A number? Of a perfect estimate PSNR is infinite, and nothing once it has been written."""
    return isinstance(value, int | float) and math.isfinite(value)


def _means(rows: Sequence[Row]) -> dict[str, float]:
    columns = {name for row in rows for name, value in row.items() if isinstance(value, int | float)}
    kinds: dict[str, Any] = {"seconds_per_call": median, "memory_mib": max}
    return {name: float(kinds.get(name, fmean)([row[name] for row in rows if row.get(name) is not None])) for name in columns}
