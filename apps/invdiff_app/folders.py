"""Temporary folders for what users give."""

import shutil
import tempfile
import weakref
from pathlib import Path


def folder_of(owner: object, kind: str) -> Path:
    """A new folder that is removed with its owner, and at the latest with the process."""
    folder = Path(tempfile.mkdtemp(prefix=f"invdiff-{kind}-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
