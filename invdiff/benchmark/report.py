"""The report of a benchmark: one HTML file that opens without a network."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from invdiff.benchmark import figures
from invdiff.benchmark.estimates import Cell
from invdiff.benchmark.page import page
from invdiff.benchmark.record import Record, estimate_name, measurement_name, truth_name
from invdiff.benchmark.settings import BenchmarkConfig
from invdiff.benchmark.summary import COLUMNS, Line, Variant, best, caveats, cost, described, facts, sections
from invdiff.evaluation.metrics import METRICS
from invdiff.io.files import write_text

SHOWN = 128             # pixels of a picture's side in the page
NOTE = ("Means over the images. The large numbers are of the estimate, the mean of the samples; the small ones below them of a "
        "single sample, where several were drawn. ± is the standard error, mostly for how much images differ. The best of a "
        "column is marked, and what is within one standard error of it, that of their difference on the same images. The data "
        "residual is the root mean square of y − A x in units of the noise, about 1 for a sample of the posterior. Seconds and "
        "memory are those of the whole estimate, without loading; gradients are not counted as calls. Numbers in the figures "
        "are those of the tables; hollow marks are single samples.")


def write_report(record: Record, config: BenchmarkConfig) -> Path:
    """report.html in the record's folder, whole or not at all, of the rows that there are."""
    known = sections(record, config)
    shown = [_section(record, config, i, found) for i, (_, found) in enumerate(known)]
    title = f"Benchmark: {len(config.tasks)} tasks, {len(config.methods)} methods, {config.count} images"
    links = " ".join(f'<a href="#task{i + 1}">{escape(task["name"])}</a>' for i, task in enumerate(config.full_tasks))
    body = [f"<h1>{escape(title)}</h1>", _head(record, config), f'<p class="soft">{NOTE}</p>', f"<nav>{links}</nav>", *shown]
    target = record.folder / "report.html"
    write_text(target, page(escape(title), "\n".join(body)))
    return target


def _head(record: Record, config: BenchmarkConfig) -> str:
    notes = "".join(f"<p><strong>{escape(note)}</strong></p>" for note in caveats(record))
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(record, config).items())
    return f"<dl>{terms}</dl>{notes}"


def _section(record: Record, config: BenchmarkConfig, task: int, known: Sequence[Line]) -> str:
    spec = config.full_tasks[task]
    parts = [f'<h2 id="task{task + 1}">{escape(spec["name"])}</h2>',
             f'<p class="soft">{escape(described(spec))}</p>']
    if not known:
        return "\n".join([*parts, "<p>Nothing is finished yet.</p>"])
    parts.append(_table(known, record.metrics))
    if record.metrics and any(line.done for line in known):
        parts.append(_figures(known, record.metrics[0], f"task{task + 1}"))
    parts += [_pictures(record, config, task, known, image) for image in range(min(config.pictures, config.count))]
    failures = [f"<li>{_named(line.variant)}{escape(reason)} ({times} of {line.of} images)</li>"
                for line in known for reason, times in line.reasons.items()]
    if failures:
        parts.append(f"<h3>What did not work</h3><ul>{''.join(failures)}</ul>")
    return "\n".join(parts)


def _table(known: Sequence[Line], metrics: Sequence[str]) -> str:
    heads = ["method", *(METRICS[m].label + (" ↓" if METRICS[m].better == "lower" else " ↑") for m in metrics),
             *(label for _, label, _ in COLUMNS)]
    winners = {metric: best(known, metric) for metric in metrics}
    rows = []
    for line in known:
        name = f"<td>{_named(line.variant)}{_how_many(line)}</td>"
        if not line.done:
            said = escape(next(iter(line.reasons)).partition(":")[0])
            rows.append(f'<tr>{name}<td class="said" colspan="{len(heads) - 1}">{said}; see below</td></tr>')
            continue
        cells = [_score(line, metric, line.variant.number in winners[metric], metric == metrics[0]) for metric in metrics]
        cells += [f"<td>{cost(line, column, form)}</td>" for column, _, form in COLUMNS]
        rows.append(f"<tr>{name}{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _how_many(line: Line) -> str:
    said = [f"{line.values['samples']:g} samples"] if line.values.get("samples", 1) > 1 else []
    said += [f"{line.done} of {line.of} images"] if 0 < line.done < line.of else []
    return f"<small>{', '.join(said)}</small>" if said else ""


def _score(line: Line, metric: str, winner: bool, first: bool) -> str:
    """Behind the first score of a row the standard error: more would hide the numbers."""
    digits = METRICS[metric].digits
    error = f' <span class="soft">± {line.errors[metric]:.{digits}f}</span>' if first and metric in line.errors else ""
    single = f"<small>{line.values[f'{metric}_sample']:.{digits}f}</small>" if line.values["samples"] > 1 else ""
    return f"<td{' class=best' if winner else ''}>{line.values[metric]:.{digits}f}{error}{single}</td>"


def _figures(known: Sequence[Line], metric: str, name: str) -> str:
    label = METRICS[metric].label
    drawn = [(f"{label} against network calls", figures.quality(known, metric, label, "network_calls", f"{name}-calls")),
             (f"{label} against seconds", figures.quality(known, metric, label, "seconds", f"{name}-seconds")),
             ("Coverage of pixelwise intervals; on the dashed line they keep their promise",
              figures.coverage(known, f"{name}-coverage"))]
    shown = [f"<figure>{svg}<figcaption>{escape(text)}</figcaption></figure>" for text, svg in drawn if svg]
    return f'<div class="figures">{"".join(shown)}</div>'


def _pictures(record: Record, config: BenchmarkConfig, task: int, known: Sequence[Line], image: int) -> str:
    shown = [_picture(record.picture(truth_name(image)), "truth"),
             _picture(record.picture(measurement_name(task, image)), "measurement")]
    labels = [method["label"] for method in config.full_methods]
    for line in known:
        prior = config.priors.index(line.variant.prior) if line.variant.prior in config.priors else None
        cell = Cell(task, prior, labels.index(line.variant.method), image)
        shown.append(_picture(record.picture(estimate_name(cell)), _named(line.variant)))
    return f'<h3>Image {escape(record.images[image])}</h3><div class="images">{"".join(shown)}</div>'


def _picture(path: Path, caption: str) -> str:
    """A figure of an image file, or nothing if there is none. caption: HTML."""
    if not path.is_file():
        return ""
    image = Image.open(path).convert("RGB")
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    image.save(stream := BytesIO(), format="JPEG", quality=92, subsampling=0)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def _named(variant: Variant) -> str:
    dot = f'<span class="dot" style="background:{figures.colour(variant.number)}">{variant.number}</span>'
    return f'<span class="named">{dot}<span>{escape(variant.label).replace("_", "_<wbr>")}</span></span>'


def row_summary(row: dict[str, Any]) -> str:
    """A line about a finished cell."""
    where = f"{row['task']}, {row['method']}, image {row['image']}"
    if row["reason"]:
        return f"{where}: {row['status']}: {row['reason']}"
    scores = ", ".join(f"{METRICS[m].label} {row[m]:.{METRICS[m].digits}f}" for m in METRICS if m in row)
    return f"{where}: {scores}; {row['seconds']:.1f} s"
