"""The files that a command line and its config name, looked at before torch is loaded, which takes seconds."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from invdiff.errors import InputError

KEYS = ("input", "truth", "start", "calibration", "operator.kernel", "operator.mask", "operator.trajectory")
_PAIR = (".cfl", ".hdr")        # of BART, named without the ending


def check_files(config: Path | None, options: Mapping[str, str | None], assignments: Sequence[str]) -> None:
    """Raises InputError where a file that a config, options by key, or assignments, KEY=VALUE, name is missing or cannot be
    opened. What is in it, and what a folder means, is for others to say, and so is a mistake in an assignment."""
    for name in _named(config, options, assignments):
        _check(name)


def _named(config: Path | None, options: Mapping[str, str | None], assignments: Sequence[str]) -> Iterator[str]:
    from invdiff.validation import override, read_yaml

    said: dict[str, Any] = read_yaml(config) if config else {}
    said |= {key: value for key, value in options.items() if value is not None}
    for assignment in assignments:
        with suppress(InputError):
            said = override(said, [assignment])
    for key in (*KEYS, "prior"):
        value: Any = said
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, str) and (key != "prior" or _is_own(value)):
            yield value


def _is_own(prior: str) -> bool:
    """Is it a file of ours, and no format's?"""
    return prior.endswith(".safetensors") and ":" not in prior


def _check(name: str) -> None:
    if os.path.isfile(name):            # and no pipe, which would be emptied
        try:
            with open(name, "rb"):
                return
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror}); give a file you may read") from error
    array = ":" in name and os.path.isfile(name.rpartition(":")[0])             # kernels.npz:NAME
    if not (os.path.exists(name) or array or all(os.path.isfile(name + end) for end in _PAIR)):
        raise InputError(f"{name}: no such file; {_advice(name)}")


def _advice(name: str) -> str:
    folder, last = os.path.split(name)
    if not os.path.isdir(folder or "."):
        return f"there is no folder {folder}"
    names = []
    with suppress(OSError):
        names = sorted(os.listdir(folder or "."))
    close = difflib.get_close_matches(last, names, n=1, cutoff=0.6)
    return f"did you mean {os.path.join(folder, close[0])}?" if close else "give the name of one that is there"
