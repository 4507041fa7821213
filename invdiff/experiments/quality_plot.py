"""The picture of quality against network calls."""

from pathlib import Path
from typing import Any

from invdiff.io.files import replacing


def save_plot(record: dict[str, Any], path: str | Path) -> None:
    """Fréchet distance over network calls, a line for each solver, the floor dashed; PNG or SVG, by the name. `record` is
    `quality_table`'s. The file is complete or absent, and the same for the same record."""
    import matplotlib
    from matplotlib.figure import Figure

    solvers: dict[str, list[tuple[float, float]]] = {}
    for row in record["rows"].values():
        if row["scores"].get("fid"):
            solvers.setdefault(row["solver"], []).append((row["calls"], row["scores"]["fid"]))
    kind = Path(path).suffix[1:]
    with matplotlib.rc_context({"svg.hashsalt": "invdiff", "font.size": 9}):
        axes = (figure := Figure(figsize=(7, 4.5), layout="constrained")).add_subplot()
        for i, (solver, pairs) in enumerate(solvers.items()):
            marker, line = "osD^v<>pP*X"[i % 11], "-" if i < 10 else ":"         # there are ten colours
            axes.plot(*zip(*sorted(pairs), strict=True), line, marker=marker, markersize=4, linewidth=1.2, label=solver)
        if lowest := record["floor"].get("fid"):
            axes.axhline(lowest, color="0.3", linestyle="--", linewidth=1, label="floor")
        axes.set(xscale="log", yscale="log", xlabel="network calls for one image", ylabel="Fréchet distance of the features")
        axes.grid(which="both", color="0.9", linewidth=0.5)
        if solvers:
            figure.legend(fontsize=8, loc="outside right upper")
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
