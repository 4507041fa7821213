"""The commands that README.md documents: `setup` prints its two set-up lines, `run` runs all the others.

A set-up line installs the checkout. The others, the lines of ```sh blocks, run in order in one empty folder, as scripts of
their own; so does each ```python block. Blocks of another kind are for reading.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
SETUP = "python -m pip install -e "


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Argument lists: every line of the sh blocks by bash, every python block by Python."""
    found = []
    for language, text in blocks():
        if language == "sh":
            lines = text.replace("\\\n", " ").splitlines()
            found += [["bash", "-euo", "pipefail", "-c", line] for line in lines if line.strip() and not line.startswith("#")]
        elif language == "python":
            found.append([sys.executable, "-c", text])
    return found


def setup() -> int:
    lines = [command[-1] for command in commands() if command[-1].startswith(SETUP)]
    if len(lines) != 2:
        sys.exit(f"README.md: expected two set-up lines that start with {SETUP!r}, got {len(lines)}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def run() -> int:
    failed = []
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as folder:
        for command in commands():
            if command[-1].startswith(SETUP):
                continue
            sys.stdout.write(f"\n$ {command[-1]}\n")
            sys.stdout.flush()
            start = time.monotonic()
            code = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
            sys.stdout.write(f"[exit code {code}, {time.monotonic() - start:.0f} s]\n")
            if code:
                failed.append(command[-1])
    sys.stdout.write("".join(f"FAILED: {line}\n" for line in failed) or "\nevery documented command runs\n")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["setup"], ["run"]):
        sys.exit("usage: readme_commands.py setup | run")
    sys.exit(setup() if sys.argv[1] == "setup" else run())
