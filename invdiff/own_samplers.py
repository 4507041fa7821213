"""A sampler of a user's own, by the name `python:MODULE:NAME`: a class derived from `Sampler`, or a function that makes one."""

import inspect
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError

from invdiff.errors import InputError
from invdiff.own_code import PYTHON, failed, imported
from invdiff.posterior import Sampler


class OwnSampler(NamedTuple):
    """A class of samplers, and what its fields are, by their names in a config, where a function has chosen them."""

    model: type[Sampler]
    fields: dict[str, Any]


def is_sampler(name: str) -> bool:
    """Is `python:MODULE:NAME` a sampler, or a function that is to make one? Such a function takes no parameters, by which it is
    told from a benchmark's factories of Reconstructors. Imports the module. Raises InputError."""
    thing = imported(name.removeprefix(PYTHON))
    return isinstance(thing, Sampler) or _is_class(thing) or _takes_nothing(thing)


def own_sampler(name: str) -> OwnSampler:
    """The sampler `python:MODULE:NAME`. Imports the module: that is trusting its author. Raises InputError."""
    target = name.removeprefix(PYTHON)
    made = imported(target)
    if _is_class(made):
        return OwnSampler(made, {})
    if _takes_nothing(made):
        try:
            made = made()
        except Exception as error:              # whatever its author wrote
            raise failed(target, error) from error
    if not isinstance(made, Sampler):
        got = f"the class {made.__name__}" if isinstance(made, type) else f"a {type(made).__name__}"
        raise InputError(f"{name}: expected a class derived from invdiff.posterior.Sampler, or a function without parameters "
                         f"that makes such a sampler, got {got}")
    return OwnSampler(type(made), {field.alias or key: getattr(made, key) for key, field in type(made).model_fields.items()})


def plain_fields(sampler: Sampler) -> dict[str, Any]:
    """Its fields as a config holds them. Raises InputError for one that none can."""
    try:
        return sampler.model_dump(mode="json", by_alias=True)
    except PydanticSerializationError as error:
        raise InputError(f"{type(sampler).__name__}: a config holds numbers, words, and lists and mappings of them; expected "
                         f"fields of such types ({' '.join(str(error).split())})") from error


def _is_class(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Sampler)


def _takes_nothing(thing: object) -> bool:
    try:
        return inspect.isroutine(thing) and not inspect.signature(thing).parameters
    except ValueError:                          # some of C's have no signature
        return False
