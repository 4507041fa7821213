import errno
import json
import math
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from invdiff.errors import InputError
from invdiff.io import results
from invdiff.io.files import unwritable
from invdiff.io.results import check_kept, check_output, holds_result, output_folder, write_json, write_yaml


def write_result(path, text):
    with output_folder(path) as folder:
        (folder / "report.json").write_text(text)


def refused(path):
    """The message of check_output, which output_folder repeats."""
    with pytest.raises(InputError) as checked:
        check_output(path)
    with pytest.raises(InputError) as opened, output_folder(path):
        pytest.fail("the folder was handed out")
    assert str(checked.value) == str(opened.value)
    assert str(path) in str(checked.value)
    return str(checked.value)


# The folder


def test_a_file_that_is_read_is_not_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for output, file in (("out", "out/restored.png"), ("link", "out/a/mask.png"), ("out", "link/y.npy"), ("y.png", "y.png")):
        with pytest.raises(InputError, match=f"{file}: would be replaced by the output, .*{output}; choose another one"):
            check_kept(tmp_path / output, [tmp_path / "truth.png", tmp_path / file])
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    others = [tmp_path / "out.png", tmp_path, tmp_path / "out2" / "y.png", tmp_path / "loop", "a\0b", "x" * 5000]
    check_kept(tmp_path / "out", others)        # files that nobody can read are refused by who reads them


def test_a_result_is_told_by_its_config_and_is_whole(tmp_path):
    config = {"task": "é", "slices": (1, 2), "sigma_y": np.float64(0.1)}
    write_yaml(tmp_path / "config.yaml", config)
    for name in ("restored.png", "result.h5", "report.json"):
        assert not holds_result(tmp_path, config)
        (tmp_path / name).touch()
    assert holds_result(tmp_path, config)
    assert not holds_result(tmp_path, config | {"sigma_y": 0.2})
    (tmp_path / "config.yaml").write_bytes(b"\xff")
    assert not holds_result(tmp_path, config)
    assert not holds_result(tmp_path / "nowhere", config)


def test_the_folder_appears_whole_at_the_end(tmp_path):
    out = tmp_path / "runs" / "a"
    with output_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_text("1")
        assert not out.exists()
        assert folder.parent == out.parent    # the same file system
        assert folder.name.startswith(".a")
    assert (out / "sub" / "x").read_text() == "1"
    assert os.listdir(out.parent) == ["a"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("earlier", [False, True])
def test_nothing_happened_where_the_run_was_broken_off(tmp_path, error, earlier):
    out = tmp_path / "out"
    if earlier:
        write_result(out, "old")

    def broken_off():
        with output_folder(out) as folder:
            (folder / "report.json").write_text("half")
            raise error

    with pytest.raises(error):
        broken_off()
    assert os.listdir(tmp_path) == (["out"] if earlier else [])
    if earlier:
        assert (out / "report.json").read_text() == "old"


def test_an_earlier_result_and_an_empty_folder_are_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_result(out, "first")
    (out / "extra.png").touch()
    write_result(str(out) + "/", "second")
    assert os.listdir(out) == ["report.json"]
    assert (out / "report.json").read_text() == "second"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_the_earlier_result_survives_a_failing_swap(tmp_path, monkeypatch, failing, error):
    out = tmp_path / "out"
    write_result(out, "old")
    rename, calls = os.rename, []

    def rename_that_fails(source, target):
        calls.append(source)
        if len(calls) == failing:
            raise error
        rename(source, target)

    monkeypatch.setattr(results.os, "rename", rename_that_fails)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_result(out, "new")
    assert (out / "report.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_files_put_there_during_the_run_are_kept(tmp_path):
    out = tmp_path / "out"

    def meanwhile():
        with output_folder(out):
            out.mkdir()
            (out / "thesis.tex").write_text("mine")

    with pytest.raises(InputError, match="not empty"):
        meanwhile()
    assert (out / "thesis.tex").read_text() == "mine"
    assert os.listdir(tmp_path) == ["out"]


def test_leftovers_of_killed_runs_do_not_block(tmp_path):
    for name in (".out", ".out-1", f".out.{os.getpid()}-00000000"):
        (tmp_path / name).mkdir()
    check_output(tmp_path / "out")
    write_result(tmp_path / "out", "new")
    assert (tmp_path / "out" / "report.json").read_text() == "new"


def test_two_runs_into_one_folder_leave_one_whole_result(tmp_path):
    out, gate = tmp_path / "out", threading.Barrier(2)

    def run(text):
        with output_folder(out) as folder:
            gate.wait()
            (folder / "report.json").write_text(text)
            (folder / "config.yaml").write_text(text)
            gate.wait()
            if text == "b":    # one after the other
                first.join()

    first, second = (threading.Thread(target=run, args=(text,)) for text in "ab")
    first.start()
    second.start()
    second.join()
    assert (out / "report.json").read_text() == (out / "config.yaml").read_text() == "b"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write_result(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "report.json").read_text() == "new"


def test_a_relative_path_and_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_result("out", "new")
    assert (tmp_path / "out" / "report.json").read_text() == "new"
    with pytest.raises(InputError, match="holds no earlier result"):
        check_output(".")


# Where it may not be written


def test_foreign_folders_and_files_are_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "x.png").touch()
    assert "is a file" in refused(tmp_path / "file")
    assert "cannot be written" in refused(tmp_path / "file" / "out")
    assert "holds no earlier result" in refused(tmp_path / "foreign")


@pytest.mark.parametrize("name", ["main.py", "notes.txt", "src/"])
def test_a_folder_with_somebodys_work_beside_a_report_is_refused(tmp_path, name):
    write_result(tmp_path / "out", "old")
    (tmp_path / "out" / name).mkdir() if name.endswith("/") else (tmp_path / "out" / name).touch()
    assert f"holds {name.strip('/')}, which is no result" in refused(tmp_path / "out")


def test_unwritable_places_are_refused(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    assert "cannot be written" in refused(tmp_path / ("x" * 300))
    assert "cannot be written" in refused(str(tmp_path / "out") + "\0")
    assert os.listdir(tmp_path) == []
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be written" in refused(tmp_path / "loop" / "out")
    monkeypatch.setattr(Path, "mkdir", read_only)
    assert "Read-only file system" in refused(tmp_path / "out")
    assert "Read-only file system" in refused(tmp_path / "a" / "b" / "out")


def test_a_full_disk_is_a_sentence_that_names_the_folder(tmp_path):
    """Of HDF5, too, which has more to say than the reason, and of a folder inside the output."""
    def fill(path, folders):
        with output_folder(path) as folder:
            if folders:
                fill(folder / folders[0], folders[1:])
            raise OSError(errno.ENOSPC, "Can't write\n, filename = 'x'")

    for folders in ((), ("dicom-std",)):
        with pytest.raises(InputError) as caught:
            fill(tmp_path / "out", folders)
        place = "/".join([str(tmp_path / "out"), *folders])
        assert str(caught.value) == (f"{place}: cannot be written (No space left on device); make room there, or choose "
                                     "another folder")
    assert os.listdir(tmp_path) == []
    assert str(unwritable("out", OSError(errno.EFBIG, "x"))) == (
        "out: cannot be written (File too large); raise the limit on the size of a file (ulimit -f), or ask for less")


def test_a_mount_point_is_refused():
    assert "mount point" in refused("/")


def test_the_check_leaves_nothing(tmp_path):
    check_output(tmp_path / "a" / "b")
    check_output(str(tmp_path / "c"))
    assert os.listdir(tmp_path) == []


# JSON and YAML


def test_json_is_strict_and_keeps_its_order(tmp_path):
    data = {"z": math.nan, "a": [math.inf, (1.5, -math.inf)], "ü": np.float32(0.5), "t": torch.tensor(3), "n": None,
            "array": np.array([1.0, np.nan]), "flag": True}
    write_json(tmp_path / "x.json", data)

    def no_constants(token):
        pytest.fail(f"{token} is not JSON")

    got = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=no_constants)
    assert list(got) == list(data)
    assert got == {"z": None, "a": [None, [1.5, None]], "ü": 0.5, "t": 3, "n": None, "array": [1.0, None], "flag": True}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_every_bit(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("text")
    write_json(folder / "x.json", {"value": value})
    write_yaml(folder / "x.yaml", {"value": value})
    assert json.loads((folder / "x.json").read_text())["value"] == value
    assert yaml.safe_load((folder / "x.yaml").read_text())["value"] == value


def test_yaml_is_plain_and_keeps_its_order(tmp_path):
    data = {"z": (1, 2), "a": {"size": np.int64(3)}, "s": "no", "f": math.inf}
    write_yaml(tmp_path / "x.yaml", data)
    got = yaml.safe_load((tmp_path / "x.yaml").read_text())
    assert list(got) == list(data)
    assert got == {"z": [1, 2], "a": {"size": 3}, "s": "no", "f": math.inf}


@pytest.mark.parametrize("write", [write_json, write_yaml])
def test_what_cannot_be_written_keeps_the_old_file(tmp_path, write):
    write(tmp_path / "x", {"a": 1})
    before = (tmp_path / "x").read_text()
    with pytest.raises((TypeError, yaml.YAMLError)):
        write(tmp_path / "x", {"a": object()})
    assert (tmp_path / "x").read_text() == before
    assert os.listdir(tmp_path) == ["x"]


def test_an_earlier_result_with_a_dicom_series_is_replaced(tmp_path):
    target = tmp_path / "out"
    (target / "dicom-magnitude").mkdir(parents=True)
    (target / "report.json").touch()
    (target / "dicom-magnitude" / "0001.dcm").touch()
    with output_folder(target) as folder:
        (folder / "report.json").touch()
    assert [path.name for path in target.iterdir()] == ["report.json"]
    (target / "dicom-magnitude").mkdir()
    (target / "dicom-magnitude" / "notes.txt").touch()
    with pytest.raises(InputError, match="holds dicom-magnitude"), output_folder(target):
        pass
