"""The record of `exact` as tables, and as a Markdown page."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from invdiff.benchmark.summary import standard_error
from invdiff.errors import InputError
from invdiff.io.files import unwritable, write_text
from invdiff.io.markdown import table

GAUSSIAN = ("In {steps} steps, to a last level of 0.0005, below every posterior's spread; of a stationary prior, or one that "
            "is white or rough where a row says so. mean: its distance from the posterior's, over sqrt(tr C). cov: |sample "
            "covariance - C| / |C|, in the Frobenius norm. Beside them sigma_y over the prior's standard deviation. Exact "
            "draws have sampling error alone.")
DISTANCE = ("2-Wasserstein along 1000 directions, root mean square, in units in which a component has unit variance and its "
            "neighbours are 8 √(d/2) away. Columns: (dimension of x, of y). Means over problems; in brackets, standard errors.")


@dataclass(frozen=True)
class Table:
    """A title, a line about it, column heads and rows of text."""

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]


def tables(record: dict) -> list[Table]:
    """Errors of mean and covariance on Gaussians, a table for each operator, and distances on mixtures."""
    mixtures = record["mixtures"]
    dimensions = list(next(iter(mixtures.values())))
    rows = [[name, *(_mean(row[key]) for key in dimensions)] for name, row in mixtures.items()]
    head = ["sampler", *(f"({key})" for key in dimensions)]
    return [*_gaussian_tables(record["gaussian"]),
            Table("Mixtures of 25 Gaussians: sliced Wasserstein distance", DISTANCE, head, rows)]


def _gaussian_tables(rows: dict[str, dict]) -> Iterator[Table]:
    first, steps = next(iter(rows.values())), next(iter(row["steps"] for row in rows.values() if row["steps"]))
    cases = [key.rsplit(", ", 1) for key in first if key not in ("prior", "steps")]
    note = GAUSSIAN.format(steps=steps)
    for operator in dict(cases):
        noises = [noise for name, noise in cases if name == operator]
        head = ["sampler", *(f"{what} {noise}" for what in ("mean", "cov") for noise in noises)]
        yield Table(f"Gaussian priors: {operator}", note, head, [
            [name if row["prior"] == "stationary" else f"{name}, {row['prior']}",
             *(f"{row[f'{operator}, {noise}'][i]:.2f}" for i in (0, 1) for noise in noises)]
            for name, row in rows.items()])
        note = "As above."


def _mean(values: list[float]) -> str:
    return f"{fmean(values):.2f}" + (f" ({standard_error(values):.2f})" if len(values) > 1 else "")


def to_markdown(record: dict) -> str:
    """A page with how it was made and the tables."""
    made = record["made"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    lines = ["# Samplers against known posteriors", "", f"Written by `{made['command']}`.", "",
             f"{made['samples']} samples of each posterior; {made['problems']} random mixture problems for each pair of "
             f"dimensions. Versions: {versions}.", ""]
    for part in tables(record):
        lines += [f"## {part.title}", "", part.note, "", *table(part.head, part.rows), ""]
    return "\n".join(lines)


def save(record: dict, path: Path, finished: bool = False) -> None:
    """The record, as .json, and of a finished one the page beside it, as .md; each whole or not at all. Raises InputError where
    they cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record, indent=1))
        if finished:
            write_text(path.with_suffix(".md"), to_markdown(record))
    except OSError as error:
        raise unwritable(path.parent, error) from error


def resumed(path: Path, record: dict) -> dict:
    """What `save` left at `path` of the same plan, `record` if there is nothing. Raises InputError for another plan's."""
    if not path.exists():
        return record
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same = all(found["made"][name] == value for name, value in record["made"].items()) and set(found) == set(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no record of a benchmark, or damaged; remove it or choose another folder") from error
    if not same:
        raise InputError(f"{path}: holds the results of another benchmark; choose another output folder, or remove it")
    return found
