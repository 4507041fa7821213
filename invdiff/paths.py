"""Where the files that travel with invdiff lie: configs/, data/ and apps/, in the source tree or inside the wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def bundled(*parts: str) -> Path:
    """Path of a bundled file, e.g. bundled("configs", "deblur.yaml"); it need not exist."""
    inside = _PACKAGE / "_bundled"
    return (inside if inside.is_dir() else _PACKAGE.parent).joinpath(*parts)
