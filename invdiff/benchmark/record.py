"""What a benchmark leaves on disk, and how it is told from another's."""

import csv
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from invdiff.benchmark.cells import FAILED, LEVELS
from invdiff.benchmark.estimates import Cell
from invdiff.benchmark.identity import changes, difference
from invdiff.errors import InputError
from invdiff.io.files import replacing, unwritable
from invdiff.io.results import write_json
from invdiff.machine import find_device, hardware, versions
from invdiff.paths import bundled

KEYS = ("task", "prior", "method", "image")
COSTS = ("residual", "network_calls", "network_gradients", "operator_calls", "seconds", "seconds_per_call", "memory_mib")
COVERAGES = tuple(f"coverage_{100 * level:g}" for level in LEVELS)
PICTURES = "pictures"


class Record:
    """The folder of a benchmark: results.json, the runs it was made by and all rows; results.csv, the rows; pictures/.

    identity: what `identity` makes. order: the keys of all rows, in order. notes: sentences for the report. With an earlier
    run's results in the folder, its rows are taken over, but for those that failed, and those of what has changed since.
    Raises InputError if the folder is another's, or is no place to write.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], order: Sequence[Mapping[str, Any]],
                 metrics: Sequence[str], notes: Sequence[str] = ()):
        self.folder, self.identity, self.notes = Path(folder), json.loads(json.dumps(identity)), list(notes)
        self.order, self.metrics = [_key(row) for row in order], metrics
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.runs: list[dict[str, Any]] = []
        try:
            self._resume()
            (self.folder / PICTURES).mkdir(parents=True, exist_ok=True)
            self.save()
        except OSError as error:
            raise unwritable(self.folder, error) from error

    @property
    def images(self) -> list[str]:
        """Their names."""
        return list(self.identity["images"])

    def of_runs(self) -> list[dict[str, Any]]:
        """How the runs were made that the rows are of; the last one where there are no rows."""
        known = {row["run"] for row in self.rows.values()}
        return [run for i, run in enumerate(self.runs) if i + 1 in known] or self.runs[-1:]

    def begin(self, made: Mapping[str, Any]) -> None:
        """What is added from here on is of a run that is made so. One like the last, but for the time, goes on as that."""
        times = ("started", "finished")
        if self.runs and all(self.runs[-1].get(name) == value for name, value in made.items() if name not in times):
            self.runs[-1]["finished"] = None
        else:
            self.runs.append(dict(made))
        self.save()

    def finish(self) -> None:
        """All rows are there."""
        self.runs[-1]["finished"] = self.runs[-1]["finished"] or now()
        self.save()

    def note(self, sentences: Sequence[str]) -> None:
        """Add to the notes, on disk too."""
        self.notes += sentences
        self.save()

    def get(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The whole row with the keys of this one, if it is there."""
        return self.rows.get(_key(row))

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, on disk too."""
        self.rows[_key(row)] = {**row, "run": len(self.runs)}
        self.save()

    def sorted(self) -> list[dict[str, Any]]:
        """The rows that there are, in the config's order."""
        return [self.rows[key] for key in self.order if key in self.rows]

    def save(self) -> None:
        write_json(self.folder / "results.json", {"runs": self.runs, "notes": self.notes, "benchmark": self.identity,
                                                  "rows": self.sorted()})
        scores = [f"{metric}{which}" for metric in self.metrics for which in ("", "_sample")]
        columns = [*KEYS, "status", "reason", "run", "samples", "distinct", *scores, *COSTS, "std", *COVERAGES]
        with replacing(self.folder / "results.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: value for name, value in row.items() if value is not None} for row in self.sorted())

    def picture(self, name: str) -> Path:
        return self.folder / PICTURES / f"{name}.png"

    def save_picture(self, name: str, pixels: np.ndarray) -> None:
        """(H, W) or (H, W, 3) uint8."""
        with replacing(self.picture(name)) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")

    def _resume(self) -> None:
        file = self.folder / "results.json"
        if not file.exists():
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise InputError(f"{self.folder}: is not empty and holds no benchmark; choose another output folder")
            return
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
            before, runs = earlier["benchmark"], earlier["runs"]
            rows = {_key(row): row for row in earlier["rows"] if row["status"] != FAILED and row["run"] <= len(runs)}
            what, changed = difference(before, self.identity), changes(before, self.identity)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{file}: is no record of a benchmark by this version, or damaged; remove the folder or choose "
                             "another") from error
        if what:
            raise InputError(f"{self.folder}: holds the results of another benchmark ({what}); choose another output folder, "
                             "or remove it")
        for kind, name in changed:
            stale = [key for key, row in rows.items() if row[kind] == name]
            self.notes.append(f"The {kind} {name} had changed since an earlier run, so its {len(stale)} rows were run anew.")
            for key in stale:
                del rows[key]
        self.rows, self.runs = rows, runs


def truth_name(image: int) -> str:
    """What the picture of a truth is called; the next two are those of a measurement and an estimate."""
    return f"truth-{image + 1}"


def measurement_name(task: int, image: int) -> str:
    return f"task{task + 1}-measurement-{image + 1}"


def estimate_name(cell: Cell) -> str:
    prior = "none" if cell.prior is None else cell.prior + 1
    return f"task{cell.task + 1}-prior{prior}-method{cell.method + 1}-{cell.image + 1}"


def how_made(command: str, device: str, workers: int) -> dict[str, Any]:
    """Command, time, commit, versions and machine, as plain values."""
    where = find_device(device)
    others = {}
    for name in ("torchmetrics", "piq", "scikit-image"):
        try:
            others[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"command": command, "started": now(), "finished": None, "commit": commit(), "versions": versions() | others,
            "hardware": hardware(where), "device": where.type, "cores": os.cpu_count(), "system": platform.platform(terse=True),
            "workers": workers}


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def commit() -> str | None:
    """The git commit of a checkout, with "-dirty" where files differ from it; None elsewhere."""
    root = bundled().resolve()
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
                              capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEYS)
