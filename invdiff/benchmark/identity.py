"""What makes a benchmark this one: may the rows of an earlier run stand beside new ones?"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from invdiff.benchmark.cells import Setup
from invdiff.differences import first_difference
from invdiff.own_code import file_of
from invdiff.priors.facts import fingerprint

CONTENT = "content"         # a digest of what a spec does not tell: weights, code, a kernel's file
ONE_OF = {"images": "image", "tasks": "task", "priors": "prior", "methods": "method"}


def identity(setup: Setup, images: Mapping[str, Tensor]) -> dict[str, Any]:
    """Plain values: images, tasks, priors and methods by name, and all else that every row depends on; no paths of images.

    Of python:MODULE:NAME the module's file counts, and not what that imports. Of a task its place in the list does too, which
    seeds the noise. The measurements themselves do not: their last digits are the machine's.
    """
    config = setup.config
    apart = {"images", "key", "count", "pictures", "tasks", "priors", "methods"}
    return config.model_dump(mode="json", exclude=apart) | {
        "metrics": list(setup.metrics),
        "images": {name: _digest(image.contiguous().numpy().tobytes()) for name, image in images.items()},
        "tasks": {task["name"]: task | _content(*_behind(task["operator"])) for task in config.full_tasks},
        "priors": {name: _content(fingerprint(setup.prior(i)).encode(), *_code(name)) for i, name in enumerate(config.priors)},
        "methods": {method["label"]: method | _content(*_code(method["name"])) for method in config.full_methods}}


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first thing for which rows of one do not belong to the other, in words. Contents may have changed, see `changes`,
    and there may be more images, tasks, priors or methods, behind those before: their places are in seeds and in file names."""
    for name, value in now.items():
        if name not in ONE_OF:
            if said := first_difference({name: before[name]}, {name: value}):
                return said + ("; scores want all images anew" if name == "metrics" else "")
            continue
        old = before[name]
        if missing := [one for one in old if one not in value]:
            return f"{name}: without {missing[0]}"
        if added := [one for one in list(value)[: len(old)] if one not in old]:
            return f"{name}: {added[0]} is new and comes before others; put it last"
        if moved := [one for one, place in zip(value, old, strict=False) if one != place]:
            return f"{name}: {moved[0]} has another place"
        for one in old:
            if name == "images" and old[one] != value[one]:
                return f"{name}: {one} is another picture"
            if name != "images" and (said := first_difference(_spec(old[one]), _spec(value[one]))):
                return f"{name}: {one}: {said}"
    return None


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str]]:
    """("method", name) and the like of all whose specs are the same and contents are not: their rows are no longer true."""
    return [(kind, one) for name, kind in ONE_OF.items() for one in before[name]
            if one in now[name] and before[name][one] != now[name][one]]


def _spec(one: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key != CONTENT}


def _behind(operator: Mapping[str, Any]) -> list[bytes]:
    """What is in the files that an operator names: a kernel, a mask, a module of a user's own."""
    files = [Path(value).read_bytes() for value in operator.values() if isinstance(value, str) and Path(value).is_file()]
    return files + _code(operator["name"])


def _code(name: str) -> list[bytes]:
    """What is in the module's file of python:MODULE:NAME; nothing for other names."""
    file = file_of(name)
    return [file.read_bytes()] if file else []


def _content(*parts: bytes) -> dict[str, str]:
    return {CONTENT: _digest(*parts)} if parts else {}


def _digest(*parts: bytes) -> str:
    """Twelve hexadecimal digits that stand for bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:12]
