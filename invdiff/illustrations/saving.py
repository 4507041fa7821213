"""Figures as files: written whole or not at all, the same bytes for the same figure."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from invdiff.errors import InputError
from invdiff.illustrations.style import STYLE
from invdiff.io.files import replacing, unwritable

FORMATS = ("png", "svg")


def parse_formats(text: str) -> list[str]:
    """Formats of a comma-separated list. Raises InputError."""
    formats = [each.strip().lower() for each in text.split(",") if each.strip()]
    if not formats or not set(formats) <= set(FORMATS):
        raise InputError(f"--format: expected {' or '.join(FORMATS)} or both with a comma, got {text!r}")
    return list(dict.fromkeys(formats))


def make_folder(folder: str | Path) -> None:
    """The folder, if it is not there. Raises InputError where that cannot be."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def save(figure: Figure, folder: str | Path, name: str, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write FOLDER/NAME.FORMAT, a PNG at 200 dpi or an SVG with letters as outlines. Raises InputError where that cannot be."""
    make_folder(folder)
    paths = [Path(folder) / f"{name}.{each}" for each in formats]
    for path, kind in zip(paths, formats, strict=True):
        # no date and no version, which would differ from one day to the next
        about = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        try:
            with rc_context(STYLE), replacing(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=about)
        except OSError as error:
            raise unwritable(path, error) from error
    return paths
