"""What is in a module of a user's own, by the name `python:MODULE:ATTRIBUTE`. Importing it is trusting its author."""

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invdiff.errors import InputError

PYTHON = "python:"          # begins such a name
_NOT_THEIRS = ("invdiff", "pydantic", "builtins")


def imported(target: str) -> Any:
    """What MODULE:ATTRIBUTE names; imports the module, also from the current folder.

    Raises InputError: no such thing, or a module that fails as it is imported.
    """
    module, colon, attribute = target.partition(":")
    if not colon or not module or not attribute:
        raise InputError(f"python:{target}: expected python:MODULE:ATTRIBUTE, such as python:mypackage.priors:faces")
    try:
        with _current_folder():
            thing: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"python:{target}: there is no module {error.name!r}; is its folder on the path?") from error
    except Exception as error:                               # whatever its author wrote
        raise failed(target, error) from error
    try:
        for part in attribute.split("."):
            thing = getattr(thing, part)
    except AttributeError as error:
        raise InputError(f"python:{target}: {error}") from error
    return thing


def own_operator(name: str) -> Callable[..., Any]:
    """What `python:MODULE:NAME` names, if it is called with an image's size to make an operator. Raises InputError."""
    make = imported(name.removeprefix(PYTHON))
    try:
        takes = list(inspect.signature(make).parameters)
    except (TypeError, ValueError):         # it cannot be called, or does not tell with what
        takes = []
    if takes[:1] != ["img_size"]:           # nothing else is called with one
        found = f"one that takes ({', '.join(takes)})" if callable(make) else type(make).__name__
        raise InputError(f"operator {name}: expected a class or function that takes img_size, (C, H, W), first, got {found}")
    return make


def failed(target: str, error: Exception) -> InputError:
    """That a user's own code raised `error`, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (frame.filename, frame.lineno)
    said = error.msg if isinstance(error, SyntaxError) else next(iter(str(error).splitlines()), "")
    return InputError(f"python:{target}: {type(error).__name__} in {place[0]}, line {place[1]}: {said}")


def file_of(name: str) -> Path | None:
    """The file of the module that `python:MODULE:ATTRIBUTE` names, once that is imported; None for other names."""
    if not name.startswith(PYTHON):
        return None
    return _file(name.removeprefix(PYTHON).partition(":")[0])


def code_of(kind: type) -> str:
    """Twelve hexadecimal digits that stand for the modules of a class and of those that it derives from, as far as they are a
    user's own; nothing for a class of ours. What the modules import is not looked at."""
    modules = {each.__module__: None for each in kind.__mro__ if each.__module__.partition(".")[0] not in _NOT_THEIRS}
    files = [file for file in map(_file, modules) if file]
    total = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files))
    return total.hexdigest()[:12] if files else ""


def own_code(*parts: Mapping[str, Any]) -> dict[str, str]:
    """A checksum of the modules that parts of a config name, as `python:MODULE:NAME`; nothing where all are ours. Of what is
    kept, it tells whether it was made with what is in such a module now."""
    files = {name.split(":")[1]: file for part in parts if (file := file_of(name := part["name"]))}
    sums = (f"{module} {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}" for module, file in files.items())
    return {"code": ", ".join(sums)} if files else {}


def _file(module: str) -> Path | None:
    file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    return file if file.is_file() else None


@contextmanager
def _current_folder() -> Iterator[None]:
    """The current folder last on the path: a console script does not have it there."""
    sys.path.append(str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop()
