"""What is in a module of a user's own, by the name `python:MODULE:ATTRIBUTE`. Importing it is trusting its author."""

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invdiff.errors import InputError

PYTHON = "python:"          # begins such a name


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


def failed(target: str, error: Exception) -> InputError:
    """That a user's own code raised `error`, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (frame.filename, frame.lineno)
    said = error.msg if isinstance(error, SyntaxError) else next(iter(str(error).splitlines()), "")
    return InputError(f"python:{target}: {type(error).__name__} in {place[0]}, line {place[1]}: {said}")


@contextmanager
def _current_folder() -> Iterator[None]:
    """The current folder last on the path: a console script does not have it there."""
    sys.path.append(str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop()
