"""The figures of a report, as SVG to stand inside a page: its ink and lines are the page's, so that both themes suit them."""

import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invdiff.benchmark.summary import Line, covered

COLOURS = ("#1a7fc4", "#d55e00", "#009e73", "#b5478a", "#8a6d00", "#3a86c8", "#7b5ab8", "#767676", "#a83232", "#2b7a6b")
_INK, _GRID = "#123456", "#654321"      # stand for the page's own
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif", "text.color": _INK, "axes.labelcolor": _INK,
    "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "grid.color": _GRID, "axes.spines.top": False,
    "axes.spines.right": False, "grid.linewidth": 0.6}


def colour(number: int) -> str:
    return COLOURS[(number - 1) % len(COLOURS)]


def quality(known: Sequence[Line], metric: str, label: str, over: str, name: str) -> str:
    """A metric over network calls or over seconds: full markers are the mean of the samples and its cost, hollow ones a single
    sample. Both axes of cost are logarithmic above 1 call or 0.1 s. name: of the figure, for the ids in it."""
    calls = over == "network_calls"
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        axes = (figure := Figure(figsize=(4.6, 3.3), layout="constrained")).add_subplot()
        families: dict[str, list[tuple[float, float]]] = {}
        for line in known:
            if metric in line.values:
                number, samples = line.variant.number, line.values["samples"]
                one = line.values[over] / (1 if calls else samples)
                full = one * samples
                if samples > 1:
                    single = line.values[f"{metric}_sample"]
                    axes.plot([one, full], [single, line.values[metric]], color=colour(number), linewidth=0.8, zorder=2)
                    axes.plot(one, single, "o", color=colour(number), markerfacecolor="none", markersize=5)
                _numbered(axes, full, line.values[metric], number)
                families.setdefault(line.variant.family, []).append((full, line.values[metric]))
        for points in families.values():
            if len(points) > 1:
                axes.plot(*zip(*sorted(points), strict=True), color=_INK, linewidth=0.6, linestyle=":", zorder=1)
        axes.set_xscale("symlog", linthresh=1 if calls else 0.1)
        axes.set(xlabel="network calls for the estimate" if calls else "seconds for the estimate", ylabel=label)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(left=-0.4 if calls else -0.04)
        axes.margins(x=0.08, y=0.1)
        axes.grid()
        return _svg(figure)


def coverage(known: Sequence[Line], name: str) -> str:
    """What intervals cover over what they promise, a line for each variant that drew enough samples; "" without any."""
    curves = [(line.variant.number, covered(line)) for line in known if covered(line)]
    if not curves:
        return ""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        axes = (figure := Figure(figsize=(4.6, 3.3), layout="constrained")).add_subplot()
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle="--")
        for i, (number, points) in enumerate(curves):
            levels, shares = zip(*points, strict=True)
            axes.plot(levels, shares, color=colour(number), linewidth=1.5)
            k = len(levels) - 1 - i % (len(levels) - 1)
            _numbered(axes, levels[k], shares[k], number)
        axes.set(xlabel="nominal level of the interval", ylabel="pixels whose truth is inside", xlim=(0, 1), ylim=(0, 1.03))
        axes.grid()
        return _svg(figure)


def _numbered(axes: Axes, x: float, y: float, number: int) -> None:
    axes.plot(x, y, "o", color=colour(number), markersize=12, zorder=3, clip_on=False)
    axes.annotate(str(number), (x, y), ha="center", va="center_baseline", color="white", fontsize=7.5, zorder=4)


def _svg(figure: Figure) -> str:
    """One element without anything that points outside."""
    stream = StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg"):], flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|width|height)="[^"]*"', "", text[: text.index(">")]) + text[text.index(">"):]
    return text.replace(_INK, "currentColor").replace(_GRID, "var(--line)")
