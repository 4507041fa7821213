"""Where the files that travel with invdiff lie: configs/, data/ and apps/, in the source tree or inside the wheel; and where
those are kept that it makes for the user."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent


def bundled(*parts: str) -> Path:
    """Path of a bundled file, e.g. bundled("configs", "deblur.yaml"); it need not exist."""
    inside = _PACKAGE / "_bundled"
    return (inside if inside.is_dir() else _PACKAGE.parent).joinpath(*parts)


def cache_folder() -> Path:
    """$INVDIFF_CACHE, or invdiff in the user's cache folder; it need not exist."""
    if own := os.environ.get("INVDIFF_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "invdiff"
