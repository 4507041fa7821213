"""The bar that several commands show, and the lines above it."""

import os
import re
import subprocess
import sys

import pytest

from invdiff.cli.options import progress_bar


def test_a_bar_that_is_full_says_that_there_is_more_to_come():
    bar = progress_bar("steps")
    line = bar.add_task("sampler", total=6, completed=5)
    assert ":" in str(bar.columns[-1].render(bar.tasks[0]))         # the time that remains
    bar.update(line, completed=6)
    assert str(bar.columns[-1].render(bar.tasks[0])) == "finishing"


BENCHMARK = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from invdiff.benchmark import run
from invdiff.cli.benchmark import _images

def ran(config, folder, workers, command, on_cell, **more):
    for i in range(3):
        time.sleep(0.2)         # the bar is drawn meanwhile
        on_cell(i + 1, 3, {"task": "[deblur]", "method": ":smile:", "image": i + 1, "status": "failed", "reason": "long " * 30})
    return SimpleNamespace(notes=[], sorted=lambda: [{"status": "done"}])

run.run = ran
_images(None, Path("out"), "", 1)
"""
TRAIN = """
import time
from types import SimpleNamespace
from invdiff.cli.train import _say, _with_bar

def work(show):
    show(1, 0.5)
    for i in range(3):
        time.sleep(0.2)
        _say(f"row {i + 1}")

_with_bar(SimpleNamespace(steps=3, name="toy"), work)
"""


def on_a_terminal(script):
    """What a program leaves on the lines of a terminal, the last state of each."""
    pty = pytest.importorskip("pty")
    reading, writing = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", script], stdin=writing, stdout=writing, stderr=writing,
                          env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}) as process:
        os.close(writing)
        sent = b""
        while True:
            try:
                part = os.read(reading, 1 << 16)
            except OSError:             # Linux's word for the end
                break
            if not part:
                break
            sent += part
    os.close(reading)
    assert process.returncode == 0, sent.decode()
    return replayed(sent.decode())


def replayed(sent):
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", sent):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            rows += [""] * (row == len(rows))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1])
        elif part == "\x1b[2K":
            rows[row] = ""
        elif not part.startswith("\x1b"):
            rows[row] = rows[row].ljust(column)[:column] + part + rows[row][column + len(part):]
            column += len(part)
    return [text.rstrip() for text in rows]


@pytest.mark.parametrize(("script", "lines"), [
    (BENCHMARK, [f"[deblur], :smile:, image {i}: failed: long" for i in (1, 2, 3)]), (TRAIN, ["row 1", "row 2", "row 3"])],
    ids=["benchmark", "train"])
def test_a_line_beside_a_live_bar_is_above_it(script, lines):
    """Not on its end, and a line that is too long for the terminal is on several."""
    rows = on_a_terminal(script)
    begun = [next(row for row in rows if line in row) for line in lines]
    assert all(row.startswith(line) for row, line in zip(begun, lines, strict=True)), rows
    assert not [row for row in rows if "━" in row and "toy" not in row], rows
    assert sum("━" in row for row in rows) <= 1         # of a training's, that stays
