"""What follows a prior's name: `guided-diffusion:face.pt?schedule=cosine&heads=4`."""

from collections.abc import Mapping, Sequence

from invdiff.errors import InputError
from invdiff.validation import nearest


def split(name: str) -> tuple[str, dict[str, str]]:
    """The name without its options, and these. Raises InputError for an option without a value."""
    plain, _, rest = name.partition("?")
    options = {}
    for part in rest.split("&") if rest else ():
        key, equals, value = part.partition("=")
        if not key or not equals or not value:
            raise InputError(f"{name}: expected options such as ?key=value&key=value, got {part!r}")
        options[key] = value
    return plain, options


def file_of(name: str) -> str:
    """Where a prior is read from, if it is a file: its name without its format and options."""
    return split(name)[0].rpartition(":")[2]


def join(plain: str, options: Mapping[str, str]) -> str:
    """The inverse of `split`."""
    return plain + ("?" + "&".join(f"{key}={value}" for key, value in options.items()) if options else "")


def check(options: Mapping[str, str], known: Sequence[str], name: str) -> None:
    """Raises InputError for an option that is not among the known."""
    for key in options:
        if key not in known:
            raise InputError(f"{name}: unknown option {key!r}; {nearest(key, known)}")


def integer(options: Mapping[str, str], key: str, default: int | None, name: str) -> int | None:
    """A whole number of 1 or more, or the default. Raises InputError."""
    if key not in options:
        return default
    if not options[key].isdecimal() or int(options[key]) < 1:
        raise InputError(f"{name}: {key}: expected a whole number of 1 or more, got {options[key]!r}")
    return int(options[key])


def choice(options: Mapping[str, str], key: str, choices: Sequence[str], name: str) -> str:
    """One of the choices, the first by default. Raises InputError."""
    value = options.get(key, choices[0])
    if value not in choices:
        raise InputError(f"{name}: {key}: expected {' or '.join(choices)}, got {value!r}")
    return value


def class_label(options: Mapping[str, str], classes: int, name: str) -> int | None:
    """The option `class` of a network for so many classes; None where there are none.

    Raises InputError: it is missing, out of range, or given to a network without classes.
    """
    given = options.get("class", "")
    if classes == 0:
        if given:
            raise InputError(f"{name}: class: this network knows no classes; leave it out")
        return None
    if not given.isdecimal() or int(given) >= classes:
        raise InputError(f"{name}: class: a network for {classes} classes; expected ?class=0 to ?class={classes - 1} after the "
                         f"name, got {given or 'none'}")
    return int(given)
