"""Writing a file whole or not at all, and telling one from another."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from invdiff.errors import InputError


def unwritable(path: str | Path, error: Exception) -> InputError:
    """The sentence on an error while files are written to a folder."""
    code = getattr(error, "errno", None)    # HDF5 has more to say, on several lines
    reason = os.strerror(code) if code else " ".join(str(error).split())
    remedy = ("make room there, or choose another folder" if "No space left" in reason else
              "raise the limit on the size of a file (ulimit -f), or ask for less" if "File too large" in reason else
              "choose a folder where you may write")
    return InputError(f"{path}: cannot be written ({reason}); {remedy}")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, before the work whose results are to go there. Raises InputError, also where it is
    there and nothing can be put into it."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = sibling(path / "probe")
        probe.mkdir()       # tried and not asked: os.access answers yes to root, and on read-only file systems
        probe.rmdir()


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Around the writing of a file, or into a folder: whatever keeps it from being written, as one InputError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error


def sibling(path: Path) -> Path:
    """An unused hidden name beside `path`, hence on the same file system, so that a rename can replace `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path to write to, renamed to `path` on success; on any exception `path` is untouched."""
    path = Path(path)
    temporary = sibling(path)    # not tempfile: its files are private (0600), whatever the umask says
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file, complete or absent."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
