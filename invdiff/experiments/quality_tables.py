"""The record of quality against network calls as a Markdown page."""

from collections.abc import Iterator
from typing import Any

from invdiff.evaluation.generative.evaluate import LABELS, shown
from invdiff.io.markdown import table

TIMES_FLOOR = (5.0, 3.0, 2.0, 1.5)      # qualities to reach


def quality_markdown(record: dict[str, Any], plot: str) -> str:
    """A page with how it was made, the plot, a row for each solver and number of steps, and the calls that each solver needs to
    come within some multiples of the floor. `record` is `quality_table`'s, possibly unfinished."""
    return "\n".join([
        "# Quality against network calls", "", "Written by `python -m invdiff.experiments.quality`.", "", *_header(record), "",
        f"![Fréchet distance against network calls]({plot})", "", *_rows(record), "",
        "## Network calls to reach a quality", "",
        "The fewest of those measured whose Fréchet distance is at most so many times the floor.", "", *_reached(record), ""])


def _header(record: dict[str, Any]) -> Iterator[str]:
    made = record["made"]
    between = made.get("interval")
    guidance = f"guidance {made.get('guidance', 1):g}" + (f" at levels {between[0]:g} to {between[1]:g}" if between else "")
    yield f"- {made['count']:,} images a row" + (f", prior {made['prior']}, {guidance}, {made['precision']}"
                                                 if "prior" in made else "") + "."
    yield (f"- Scored by the features of {made['features']} against {made['real']:,} real images"
           + (f" ({made['reference']})" if "reference" in made else "") + ".")
    if record["floor"]:
        yield ("- Floor: real images that are not among those" + (f" ({made['kept_apart']})" if "kept_apart" in made else "")
               + ", in place of the drawn ones.")
    yield "- Calls: evaluations of the network for one image. Seconds: for all images" + (
        f", on {made['hardware']}" if "hardware" in made else "") + "."
    if "versions" in made:
        yield f"- Versions: {', '.join(f'{name} {version}' for name, version in made['versions'].items())}."


def _rows(record: dict[str, Any]) -> list[str]:
    rows, lowest = record["rows"], record["floor"]
    names = [name for name in LABELS if name in lowest or any(name in row["scores"] for row in rows.values())]
    head = ["solver", "steps", "calls", "seconds a step", "seconds", *(LABELS[name] for name in names)]
    lines = [[row["solver"], f"{row['steps'] or 'adaptive'}", f"{row['calls']:.4g}", shown(row["seconds_a_step"]),
              f"{row['seconds']:.1f}", *(shown(row["scores"].get(name)) for name in names)] for row in rows.values()]
    if lowest:
        lines.append(["floor", "", "", "", "", *(shown(lowest.get(name)) for name in names)])
    return table(head, lines)


def _reached(record: dict[str, Any]) -> list[str]:
    lowest = record["floor"].get("fid")
    if not lowest:
        return ["No floor was measured."]
    solvers: dict[str, list[tuple[float, float]]] = {}
    for row in record["rows"].values():
        solvers.setdefault(row["solver"], []).append((row["calls"], row["scores"].get("fid", float("inf"))))
    lines = [[solver, *(f"{min(enough):.4g}" if (enough := [c for c, fid in pairs if fid <= times * lowest]) else "–"
                        for times in TIMES_FLOOR)] for solver, pairs in solvers.items()]
    return table(["solver", *(f"{times:g} × floor" for times in TIMES_FLOOR)], lines)
