"""What is kept of a run under way: by whom, and what there is to say where it cannot be."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors import SafetensorError

from invdiff.errors import AnotherRun, InputError
from invdiff.io import partial
from invdiff.io.partial import PartialRun, holds_parts, remove_partial

PART = {"samples": torch.ones(2)}
OTHER = """
import sys, torch
from invdiff.io.partial import PartialRun
run = PartialRun(sys.argv[1], {"seed": int(sys.argv[2])}, {})
run.add({"samples": torch.zeros(2)}, {"slice": 7})
print("there", flush=True)
sys.stdin.read()
"""


@contextmanager
def another(folder, seed=0):
    """Another process that is at work in the folder, and killed in the end."""
    process = subprocess.Popen([sys.executable, "-c", OTHER, str(folder), str(seed)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"there\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.skipif(partial.fcntl is None, reason="no locks")
def test_two_processes_do_not_work_in_one_folder(tmp_path):
    early, other_seed = PartialRun(tmp_path / "run", {"seed": 0}, {}), PartialRun(tmp_path / "run", {"seed": 1}, {})
    with another(tmp_path / "run"):
        for begin in (lambda: PartialRun(tmp_path / "run", {"seed": 0}, {}), lambda: early.add(PART, {"slice": 1}),
                      lambda: PartialRun(tmp_path / "run", {"seed": 1}, {})):       # whose parts it could not go on from
            with pytest.raises(AnotherRun, match="run: another run is at work there; wait"):
                begin()
        assert [about["slice"] for _, about in early.parts()] == [7]
    with pytest.raises(AnotherRun, match="seed was 0, now 1"):        # begun before there was anything to compare with
        other_seed.add(PART, {"slice": 1})
    early.add(PART, {"slice": 1})                                     # nobody holds what the dead one held
    again = PartialRun(tmp_path / "run", {"seed": 0}, {})             # nor does a process shut itself out
    again.add(PART, {"slice": 2})
    assert [about["slice"] for about in again.index().values()] == [7, 1, 2]
    assert [again.read(file)[1]["slice"] for file in again.index()] == [7, 1, 2]
    remove_partial(tmp_path / "run")
    with another(tmp_path / "run", seed=1):
        pass
    with pytest.raises(AnotherRun, match="seed was 1, now 0"):        # the folder is another's by now
        early.add(PART, {"slice": 3})
    remove_partial(tmp_path / "run")
    early.add(PART, {"slice": 3})                                     # made anew
    assert os.listdir(tmp_path) == ["run"]
    remove_partial(tmp_path / "run")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"),
                                   SafetensorError("I/O error: No space left on device (os error 28)")])
def test_a_full_disk_is_a_sentence_and_leaves_no_empty_folder(error, tmp_path, monkeypatch):
    run, save = PartialRun(tmp_path / "run", {}, {}), partial.save_file

    def full(tensors, path, about):
        if "part" in path.name:
            raise error
        save(tensors, path, about)

    with monkeypatch.context() as patch:
        patch.setattr(partial, "save_file", full)
        with pytest.raises(InputError, match=r"run: cannot be written \(.*No space left on device.*\); make room there"):
            run.add(PART, {})
    assert os.listdir(tmp_path) == []
    run.add(PART, {})
    with monkeypatch.context() as patch:
        patch.setattr(partial, "save_file", full)
        with pytest.raises(InputError, match="cannot be written"):
            run.add(PART, {})
    assert (len(run), holds_parts(tmp_path / "run")) == (1, True)


def test_a_folder_without_a_part_is_nothing_to_go_on_from(tmp_path):
    assert not holds_parts(tmp_path / "none")
    assert not holds_parts(tmp_path)
