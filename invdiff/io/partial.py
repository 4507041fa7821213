"""A long run on disk while it is under way: a folder with a file that says which run it is, and one for each finished part."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invdiff.errors import AnotherRun, InputError
from invdiff.io.files import replacing

TOLERANCE = 1e-4        # of the largest value: what a sum in another order changes, and another run does not


class PartialRun:
    """The finished parts of a run, in the folder `path`, which is made with the first of them.

    Every file is written whole or not at all. identity: plain values, and traces: tensors, that two runs share only if they
    are the same run; a part is only ever added to a folder of its own run.
    Raises InputError if the folder is that of another run, or damaged, or cannot be read.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], traces: Mapping[str, Tensor]):
        self.path = Path(path)
        self._identity = json.loads(json.dumps(identity))
        self._traces = {name: trace.detach().cpu().contiguous() for name, trace in traces.items()}
        if self.path.is_file() or (self.path / "run.safetensors").exists() or any(self.path.glob("[!.]*")):
            self._check()

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._files())

    def parts(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        """What `add` was given, in that order, read one at a time."""
        for file in self._files():
            yield _read(file)

    def add(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep a part: tensors by name, and plain values about them. Raises InputError where it cannot be written."""
        try:
            files = self._files()
            if not files:
                self.path.mkdir(parents=True, exist_ok=True)
                _write(self.path / "run.safetensors", self._traces, self._identity)
            number = int(files[-1].stem.partition("-")[2]) + 1 if files else 0
            _write(self.path / f"part-{number:06d}.safetensors", {n: t.contiguous() for n, t in tensors.items()}, about)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); choose a folder where you may "
                             "write") from error

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("part-*.safetensors"))

    def _check(self) -> None:
        traces, identity = _read(self.path / "run.safetensors")
        mine, before = _flat(self._identity), _flat(identity)
        for name in mine | before:
            value, kept = mine.get(name), before.get(name)
            if kept != value:
                self._refuse(f"{name} was {kept}, now {value}")
        for name in self._traces | traces:
            trace, kept = self._traces.get(name), traces.get(name)
            if trace is None or kept is None or kept.shape != trace.shape or not _close(kept, trace):
                self._refuse(f"the {name} differs")

    def _refuse(self, why: str) -> None:
        raise AnotherRun(f"{self.path}: holds {len(self._files())} finished parts of another run ({why}); finish that one, "
                         "remove the folder, or choose another name")


def remove_partial(path: str | Path) -> None:
    """Remove the folder of a `PartialRun`, and nothing that is not its own. Nothing happens if there is none."""
    path = Path(path)
    if not path.is_dir():
        return
    # in this order, an interruption leaves a run with fewer parts; the hidden ones are of a run that was killed
    for file in [*path.glob(".*.safetensors.*"), *sorted(path.glob("part-*.safetensors")), path / "run.safetensors"]:
        file.unlink(missing_ok=True)
    if not any(path.iterdir()):
        path.rmdir()


def _write(path: Path, tensors: dict[str, Tensor], about: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"format": "invdiff partial run", "about": json.dumps(about)})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])      # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise AnotherRun(f"{path}: is no part of a run under way, or damaged ({error}); remove {path.parent}, or choose "
                         "another name") from error


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= TOLERANCE * b.abs().max()).all())


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {before + name: value}
    return flat
