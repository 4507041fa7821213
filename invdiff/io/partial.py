"""A long run on disk while it is under way: a folder with a file that says which run it is, and one for each finished part."""

import json
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:     # Windows: there runs are not kept apart
    fcntl = None        # type: ignore[assignment]

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invdiff.errors import AnotherRun
from invdiff.io.files import replacing, unwritable

LOCK = ".run.lock"
TOLERANCE = 1e-4        # of the largest value: what a sum in another order changes, and another run does not


class PartialRun:
    """The finished parts of a run, in the folder `path`, which is made with the first of them.

    Every file is written whole or not at all. identity: plain values, and traces: tensors, that two runs share only if they
    are the same run; a part is only ever added to a folder of its own run. From the first part on, or from when it is found
    there, the folder is locked to other processes for as long as this object lives, where the file system can.
    Raises InputError if the folder is that of another run, or damaged, or cannot be read, or another process is at work there.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], traces: Mapping[str, Tensor]):
        self.path = Path(path)
        self._identity = json.loads(json.dumps(identity))
        self._traces = {name: trace.detach().cpu().contiguous() for name, trace in traces.items()}
        self._lock: _Lock | None = None
        self._known = False     # whether what is in the folder is of this run
        if self.path.is_file() or (self.path / "run.safetensors").exists() or any(self.path.glob("[!.]*")):
            self._check()
            self._lock = _locked(self.path)

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._files())

    def parts(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        """What `add` was given, in that order, read one at a time."""
        for file in self._files():
            yield _read(file)

    def index(self) -> dict[Path, dict[str, Any]]:
        """The plain values about each part, in that order, by the file that `read` takes."""
        return {file: _read(file, whole=False)[1] for file in self._files()}

    def read(self, file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `add` was given, which returned this file."""
        return _read(file)

    def add(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
        """Keep a part: tensors by name, and plain values about them. Raises InputError where it cannot be written, or where
        another process has begun in the same folder."""
        files: list[Path] = []
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = _locked(self.path)
            self._known &= lock is self._lock        # else the folder was made anew, by whomever
            self._lock, files = lock, self._files()
            if not files:
                _write(self.path / "run.safetensors", self._traces, self._identity)
            elif not self._known:
                self._check()
            self._known = True
            number = int(files[-1].stem.partition("-")[2]) + 1 if files else 0
            file = self.path / f"part-{number:06d}.safetensors"
            _write(file, {n: t.contiguous() for n, t in tensors.items()}, about)
        except (OSError, SafetensorError) as error:
            if not files:
                remove_partial(self.path)
            raise unwritable(self.path, error) from error
        return file

    def _files(self) -> list[Path]:
        return _parts_in(self.path)

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
        self._known = True

    def _refuse(self, why: str) -> None:
        _locked(self.path)      # one that is at work now is not to be removed
        raise AnotherRun(f"{self.path}: holds {len(self._files())} finished parts of another run ({why}); finish that one, "
                         "remove the folder, or choose another name")


class _Lock:
    """A file held by this process while the object lives; the kernel lets go of it when the process dies."""

    def __init__(self, path: Path):
        self.path, self.file = path, os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self.release = weakref.finalize(self, os.close, self.file)
        fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def holds(self) -> bool:
        """Whether the file is still the one in its folder, which may have been removed and made anew."""
        return self.release.alive and self.path.exists() and os.path.samestat(os.fstat(self.file), os.stat(self.path))


_HELD: weakref.WeakValueDictionary[Path, _Lock] = weakref.WeakValueDictionary()     # a process does not shut itself out


def _locked(folder: Path) -> _Lock | None:
    """The lock of a folder, or None where there are no locks. Raises AnotherRun where another process has it."""
    if fcntl is None:
        return None
    path = folder.resolve() / LOCK
    try:
        lock = _HELD.get(path)
        if lock is None or not lock.holds():
            lock = _HELD[path] = _Lock(path)
        return lock
    except BlockingIOError as error:
        raise AnotherRun(f"{folder}: another run is at work there; wait until it has ended, or choose another name") from error
    except OSError:             # a file system without locks; one that takes no files says so when parts are written
        return None


def holds_parts(path: str | Path) -> bool:
    """Whether the folder of a `PartialRun` keeps anything to go on from."""
    return bool(_parts_in(Path(path)))


def _parts_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.safetensors"))


def remove_partial(path: str | Path) -> None:
    """Remove the folder of a `PartialRun`, and nothing that is not its own. Nothing happens if there is none."""
    path = Path(path)
    if not path.is_dir():
        return
    if lock := _HELD.pop(path.resolve() / LOCK, None):
        lock.release()              # or else some file systems keep the file under another name, and the folder with it
    # in this order, an interruption leaves a run with fewer parts; the hidden ones are of a run that was killed
    for file in [*path.glob(".*.safetensors.*"), *_parts_in(path), path / "run.safetensors", path / LOCK]:
        file.unlink(missing_ok=True)
    if not any(path.iterdir()):
        path.rmdir()


def _write(path: Path, tensors: dict[str, Tensor], about: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"format": "invdiff partial run", "about": json.dumps(about)})


def _read(path: Path, whole: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """whole: with the tensors."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys() if whole else ()
            return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["about"])
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
