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
    """The folder of a benchmark: results.json, how it was made and all rows; results.csv, the rows; pictures/.

    identity: plain values that two runs share only if they are the same benchmark. order: the keys of all rows, in order.
    With an earlier run's results in it, its rows are taken over, but for those that failed.
    Raises InputError if the folder is another's, or is no place to write.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], made: Mapping[str, Any],
                 order: Sequence[Mapping[str, Any]], metrics: Sequence[str]):
        self.folder, self.identity, self.made = Path(folder), json.loads(json.dumps(identity)), dict(made)
        self.order, self.metrics = [_key(row) for row in order], metrics
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        try:
            self._resume()
            (self.folder / PICTURES).mkdir(parents=True, exist_ok=True)
            self.save()
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def __contains__(self, row: Mapping[str, Any]) -> bool:
        return _key(row) in self.rows

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, on disk too."""
        self.rows[_key(row)] = dict(row)
        self.save()

    def sorted(self) -> list[dict[str, Any]]:
        """The rows that there are, in the config's order."""
        return [self.rows[key] for key in self.order if key in self.rows]

    def save(self) -> None:
        write_json(self.folder / "results.json", {"made": self.made, "benchmark": self.identity, "rows": self.sorted()})
        scores = [f"{metric}{which}" for metric in self.metrics for which in ("", "_sample")]
        columns = [*KEYS, "status", "reason", "samples", *scores, *COSTS, "std", *COVERAGES]
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
            before, rows = earlier["benchmark"], {_key(row): row for row in earlier["rows"] if row["status"] != FAILED}
            started = earlier["made"]["started"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: is no record of a benchmark, or damaged; remove the folder or choose another") from error
        for name, value in self.identity.items():
            if before.get(name) != value:
                raise InputError(f"{self.folder}: holds the results of another benchmark ({name}: {_short(before.get(name))}, "
                                 f"and now {_short(value)}); choose another output folder, or remove it")
        self.rows, self.made["started"] = rows, started


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
            "workers": workers, "notes": []}


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


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
