"""The tables of a benchmark as a Markdown page, to be put beside code or into a paper's supplement."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invdiff.benchmark.record import Record
from invdiff.benchmark.settings import BenchmarkConfig
from invdiff.benchmark.summary import COLUMNS, Line, best, caveats, cost, described, facts, sections
from invdiff.evaluation.metrics import METRICS
from invdiff.io.files import write_text
from invdiff.io.markdown import table

SHOWN_LEVEL = 90        # percent, of the intervals whose coverage has a column
NOTE = ("Means over the images: of the estimate, the mean of the samples, and in brackets of a single sample. ± is the "
        "standard error, mostly for how much images differ. **Bold** is the best of a column, and what is within one standard "
        "error of it, that of their difference on the same images. The data residual is the root mean square of y − A x in "
        f"units of the noise, about 1 for a sample of the posterior; `covered` the share of pixels in the {SHOWN_LEVEL} % "
        "interval that the samples' spread gives, uncalibrated. Seconds and memory are those of the whole estimate, without "
        "loading.")


def write_markdown(record: Record, config: BenchmarkConfig) -> Path:
    """report.md in the record's folder, whole or not at all, of the rows that there are."""
    target = record.folder / "report.md"
    write_text(target, to_markdown(record, config))
    return target


def to_markdown(record: Record, config: BenchmarkConfig) -> str:
    """How it was made, and a table for each task."""
    commands = dict.fromkeys(" ".join(run["command"].split()) for run in record.of_runs())
    parts = ["# Benchmark", "", "````text", *commands, "````", ""]
    parts += [f"- {name}: {_text(text)}" for name, text in facts(record, config).items() if name != "command"]
    parts += ["", *(f"**{_text(note)}**\n" for note in caveats(record)), NOTE]
    for task, known in sections(record, config):
        parts += ["", f"## {_text(task['name'])}", "", _text(described(task)) + ".", "", *_section(known, record.metrics)]
    return "\n".join([*parts, ""])


def _section(known: Sequence[Line], metrics: Sequence[str]) -> list[str]:
    if not known:
        return ["Nothing is finished yet."]
    costs = [(column, label, form) for column, label, form in COLUMNS if any(column in line.values for line in known)]
    head = ["method", "samples", *(_metric(name) for name in metrics), *(label for _, label, _ in costs), "covered"]
    winners = {name: best(known, name) for name in metrics}
    rows = [_row(line, metrics, winners, costs) for line in known if line.done]
    said = [f"- {_text(line.variant.label)}: {_text(reason)} ({times} of {line.of} images)"
            for line in known for reason, times in line.reasons.items()]
    return [*table(head, rows), *(["", "What did not work:", "", *said] if said else [])]


def _row(line: Line, metrics: Sequence[str], winners: dict[str, set[int]], costs: Sequence[tuple[str, str, str]]) -> list[str]:
    share = line.values.get(f"coverage_{SHOWN_LEVEL}")
    some = f" ({line.done} of {line.of} images)" if line.done < line.of else ""
    return [_text(line.variant.label) + some, f"{line.values['samples']:g}",
            *(_score(line, name, line.variant.number in winners[name], name == metrics[0]) for name in metrics),
            *(cost(line, column, form) for column, _, form in costs), "" if share is None else f"{share:.0%}"]


def _score(line: Line, metric: str, winner: bool, first: bool) -> str:
    """Behind the first score of a row the standard error: more would hide the numbers."""
    digits = METRICS[metric].digits
    text = f"{line.values[metric]:.{digits}f}"
    error = f" ± {line.errors[metric]:.{digits}f}" if first and metric in line.errors else ""
    single = f" ({line.values[f'{metric}_sample']:.{digits}f})" if line.values["samples"] > 1 else ""
    return (f"**{text}**" if winner else text) + error + single


def _metric(name: str) -> str:
    return METRICS[name].label + (" ↓" if METRICS[name].better == "lower" else " ↑")


def _text(value: Any) -> str:
    """Text on one line in which nothing is markup; underscores are only at the ends of words."""
    escaped = r"[\\`*\[\]<>&|]|\b_+|_+\b"
    return re.sub(escaped, lambda found: "".join(f"\\{c}" for c in found[0]), " ".join(str(value).split()))
