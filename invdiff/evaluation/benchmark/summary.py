"""Rows of a benchmark, one per image, as one line per method and task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from invdiff.evaluation.benchmark.cells import DONE, LEVELS, NO_PRIOR
from invdiff.evaluation.metrics import METRICS

Row = Mapping[str, Any]


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
    """Numbers of the variants whose mean estimate is best by a metric, as far as shown digits tell."""
    shown = {line.variant.number: round(line.values[metric], METRICS[metric].digits) for line in known if metric in line.values}
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
