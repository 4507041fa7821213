"""The record of `exact` as tables, and as a Markdown page."""

import json
from dataclasses import dataclass
from pathlib import Path

from invdiff.io.files import replacing

MEAN = ("Distance from the posterior's mean over sqrt(tr C). Columns: operator, sigma_y over the prior's standard deviation. "
        "The row of exact draws is sampling error alone.")
COVARIANCE = "|sample covariance - C| / |C|, in the Frobenius norm. Columns as above."
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
    """Mean and covariance on Gaussians, and distances on mixtures."""
    gaussian, mixtures = record["gaussian"], record["mixtures"]
    columns = [key for key in next(iter(gaussian.values())) if key not in ("prior", "steps")]
    found = []
    for i, (what, note) in enumerate((("mean", MEAN), ("covariance", COVARIANCE))):
        rows = [[name, str(row["steps"] or ""), row["prior"], *(f"{row[key][i]:.3f}" for key in columns)]
                for name, row in gaussian.items()]
        found.append(Table(f"Gaussian priors: error of the {what}", note, ["sampler", "steps", "prior", *columns], rows))
    dimensions = list(next(iter(mixtures.values())))
    rows = [[name, *(_mean(row[key]) for key in dimensions)] for name, row in mixtures.items()]
    head = ["sampler", *(f"({key.replace(',', ', ')})" for key in dimensions)]
    found.append(Table("Mixtures of 25 Gaussians: sliced Wasserstein distance", DISTANCE, head, rows))
    return found


def _mean(values: list[float]) -> str:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    error = (sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5
    return f"{mean:.2f} ({error:.2f})"


def to_markdown(record: dict) -> str:
    """A page with how it was made and the tables."""
    made = record["made"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    lines = ["# Samplers against known posteriors", "", f"Written by `{made['command']}`.", "",
             f"{made['samples']} samples of each posterior; {made['problems']} random mixture problems for each pair of "
             f"dimensions. Versions: {versions}.", ""]
    for table in tables(record):
        lines += [f"## {table.title}", "", table.note, ""]
        rule = ["---", *["---:"] * (len(table.head) - 1)]
        lines += [f"| {' | '.join(row)} |" for row in (table.head, rule, *table.rows)] + [""]
    return "\n".join(lines)


def save(record: dict, path: Path) -> None:
    """The page at `path` and the record beside it, as .json; each whole or not at all."""
    for target, text in ((path.with_suffix(".json"), json.dumps(record, indent=1)), (path, to_markdown(record))):
        with replacing(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
