"""What tests of the command line share."""

import sys

import pytest

from invdiff import cli


@pytest.fixture
def invdiff(monkeypatch, capsys):
    """Runs a command line in this process; returns its exit code, its output and its complaints."""
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["invdiff", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main()
        captured = capsys.readouterr()
        return done.value.code or 0, captured.out, captured.err
    return run
