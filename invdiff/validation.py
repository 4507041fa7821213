"""YAML in, validated models out, and one sentence for whoever mistyped."""

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from invdiff.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Built = TypeVar("Built")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which the last would count, and one that is no text, as `off` is none in YAML. A
    text that begins with ~/ is a file in the home folder, as it is to a shell."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            where = f"line {key.start_mark.line + 1}"
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                name = repr(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                raise InputError(f"{where}: key {name} is no text to YAML; put it into quotes, or leave it out")
            if key.value in seen:
                raise InputError(f"{where}: key {key.value!r} is there twice; leave one of them")
            seen.add(key.value)
        return node


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    return os.path.expanduser(text) if text.startswith("~/") else text


_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def parse(text: str, where: str) -> Any:
    """The plain value of a YAML text. Raises InputError for keys as `_Loader` does, and yaml.YAMLError for what is none."""
    try:
        return yaml.load(text, _Loader)     # safe: it makes plain values alone
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file as a dict. Raises InputError: missing, not UTF-8, not YAML, not a mapping, or with a key that is no text or
    is there twice."""
    path = Path(path)
    try:
        data = parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        if isinstance(error, UnicodeDecodeError) or getattr(error, "character", None) == 0:     # UTF-16 has zeros
            raise InputError(f"{path}: is no text in UTF-8; save it as UTF-8") from error
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not valid YAML ({reason})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of keys to values, got {type(data).__name__}")
    return data


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of nested `data` with dotted assignments such as "operator.sigma=1.6" made; values are YAML.

    Raises InputError for an assignment without "=", or into something that has no keys.
    """
    values: list[tuple[str, Any]] = []
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {assignment}: expected KEY=VALUE, for example operator.sigma=1.6")
        try:
            values.append((key.strip(), parse(value, f"--set {assignment}")))
        except yaml.YAMLError as error:
            raise InputError(f"--set {assignment}: {value!r} is not a YAML value") from error
    return assign(data, values, "--set ")


def assign(data: Mapping[str, Any], values: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    """A copy of nested `data` with the value of each dotted key set. Raises InputError: a key into something that has none."""
    out = dict(data)
    for key, value in values:
        node = out
        *parents, last = key.split(".")
        for parent in parents:
            if not isinstance(node.get(parent, {}), Mapping):
                together = f"; give both at once, as {parent}='{{name: {node[parent]}, {last}: ...}}'"
                raise InputError(f"{where}{key}: {parent} is a value, and has no key {last!r}"
                                 + (together if isinstance(node[parent], str) else ""))
            node[parent] = node = dict(node.get(parent, {}))
        node[last] = value
    return out


def validate(model: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """`model(**data)`, with pydantic's complaints as one InputError sentence that begins with `where`, unless that is empty;
    unknown keys name the nearest right one. Nor is true taken for the number 1, as pydantic does."""
    try:
        made = model(**data)
    except ValidationError as error:
        raise InputError(": ".join(filter(None, [where, _sentence(model, error)]))) from error
    for path, value in _made_numbers(data, made.model_dump(by_alias=True)):
        raise InputError(": ".join(filter(None, [where, ".".join(path), f"expected a number, got {str(value).lower()}"])))
    return made


def _made_numbers(given: Any, made: Any) -> Iterator[tuple[list[str], bool]]:
    """Where, by path, a boolean was given and has become a number, and the boolean."""
    if isinstance(given, bool) and isinstance(made, int | float) and not isinstance(made, bool):
        yield [], given
    pairs: Iterable[tuple[Any, Any, Any]] = ()
    if isinstance(given, Mapping) and isinstance(made, Mapping):
        pairs = ((key, value, made.get(key)) for key, value in given.items())
    elif isinstance(given, list | tuple) and isinstance(made, list | tuple):
        pairs = zip(range(len(given)), given, made, strict=False)
    for key, value, other in pairs:
        yield from (([str(key), *path], boolean) for path, boolean in _made_numbers(value, other))


def said_of(path: str | Path, given: Mapping[str, Any], data: Mapping[str, Any], build: Callable[[Any], Built]) -> Built:
    """`build(data)`, of a file's `given` with what a command line adds. The file is named in an InputError if the mistake is
    the file's, which it is if it is there without the additions."""
    try:
        return build(data)
    except InputError as error:
        try:
            build(given)
        except InputError as alone:
            if str(alone) == str(error):
                raise InputError(f"{path}: {error}") from error
        raise


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean x?' with the closest of `known`, or the list of all."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def keys_of(model: type[BaseModel], path: Sequence[Any] = ()) -> list[str]:
    """Names that the (nested) model at `path` accepts; none below a plain value. In a union, a path may name the kind."""
    models = [model]
    for part in path:
        fields = [m.model_fields[str(part)] for m in models if str(part) in m.model_fields]
        tagged = [m for m in models if "kind" in m.model_fields and part in get_args(m.model_fields["kind"].annotation)]
        models = [m for field in fields for m in _models(field.annotation)] if fields else tagged
    return [field.alias or name for m in models for name, field in m.model_fields.items()]


@functools.cache
def model_of(make: Callable[..., Any]) -> type[BaseModel]:
    """A sampler's or a scan's parameters are its own, an operator's those of its constructor after the first, the image's size,
    but for keyword-only ones. Raises InputError for one that no config can hold."""
    if isinstance(make, type) and issubclass(make, BaseModel):
        return make
    try:
        parameters = list(inspect.signature(make, eval_str=True).parameters.values())[1:]
        fields: dict[str, Any] = {parameter.name: _field(make, parameter) for parameter in parameters
                                  if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD}
        return create_model("Operator", __config__=ConfigDict(extra="forbid"), **fields)
    except NameError as error:          # of a type that is imported for type checkers alone
        raise InputError(f"{make.__qualname__}: its parameters cannot be read ({error})") from error


def _field(make: Callable[..., Any], parameter: inspect.Parameter) -> tuple[Any, Any]:
    """Type and default of a constructor's parameter."""
    where, empty = f"{make.__qualname__}: parameter {parameter.name}", inspect.Parameter.empty
    if parameter.name == "name":
        raise InputError(f"{where}: is what a config calls the operator by; expected another name")
    try:
        TypeAdapter(parameter.annotation)
    except PydanticUserError as error:
        found = "no type" if parameter.annotation is empty else f"the type {inspect.formatannotation(parameter.annotation)}"
        raise InputError(f"{where}: has {found}; expected a number, a word, a path or a tuple of them, as a config holds, "
                         "or to be keyword-only, which configs leave out") from error
    return parameter.annotation, ... if parameter.default is empty else parameter.default


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    errors = error.errors()             # what is missing first, be it only because its key is mistyped
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    # a field of several types is followed by the name of the type that complains
    loc = first["loc"]
    path = [str(part) for i, part in enumerate(loc) if isinstance(part, int) or part in keys_of(model, loc[:i])]
    if first["type"] == "extra_forbidden":
        *parents, last = loc
        shown = [*path, str(last)] if path[-1:] != [str(last)] else path
        known = keys_of(model, parents)
        return f"unknown key {'.'.join(shown)!r}; " + (nearest(str(last), known) if known else "it takes none")
    if first["type"] == "union_tag_invalid":
        tags = [tag.strip("'") for tag in first["ctx"]["expected_tags"].split(", ")]
        return f"{'.'.join([*path, 'kind'])}: unknown kind {first['ctx']['tag']!r}; {nearest(first['ctx']['tag'], tags)}"
    if first["type"] == "value_error":          # ours, which says what it got
        return ": ".join(filter(None, ['.'.join(path), str(first["ctx"]["error"])]))        # of the whole, or of a field
    if first["type"] == "missing" and isinstance(loc[-1], int):         # a value of a list
        return f"{'.'.join(path[:-1])}: expected one more value, as in [1, 2], got {first['input']!r}"
    if first["type"] == "missing":
        about = model.model_fields[str(loc[0])].description if str(loc[0]) in model.model_fields else None
        return f"{'.'.join(path)} is missing" + (f"; it is {about}" if about and len(path) == 1 else "")
    if first["type"] == "tuple_type":
        example = f"[{first['input']}]" if isinstance(first["input"], str) else "[1, 2]"
        return f"{'.'.join(path)}: expected a list, such as {example}, got {first['input']!r}"
    if isinstance(first["input"], bool) and first["type"].startswith(("greater_than", "less_than")):
        return f"{'.'.join(path)}: expected a number, got {str(first['input']).lower()}"
    return f"{'.'.join(path)}: {first['msg'].lower()}, got {first['input']!r}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's type is made of: itself, or the members of a union."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [m for part in get_args(annotation) for m in _models(part)]
