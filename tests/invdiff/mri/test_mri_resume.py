"""Long scans: stopped, killed and gone on with; one slice in memory at a time."""

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from mri_runs import command, config_of, stop_at
from mri_scans import SIZE, kspace, scan_of, write_fastmri

import invdiff.job
from invdiff.config import build_sampler
from invdiff.evaluation.consistency import EXPLAINED
from invdiff.evaluation.intervals import uncalibrated, unexplained
from invdiff.io.scans.scan import Header, RawSlice
from invdiff.mri.job import _files, _identity, run_scan
from invdiff.mri.settings import ScanSettings
from invdiff.mri.volume import Recipe, Slices, restore_slices
from invdiff.mri.writing import write_result, write_volumes
from invdiff.priors import load_prior
from invdiff.restoration import Stop


def samples_of(folder):
    with h5py.File(folder / "result.h5") as file:
        return file["samples"][()]


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_killed_run_goes_on_after_its_last_finished_slice(complex_prior, work, invdiff):
    write_fastmri("scan.h5", kspace(3))
    process = subprocess.Popen([sys.executable, "-c", "from invdiff.cli.main import main; main()", *command(complex_prior)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first, deadline = work / "out.partial" / "part-000000.safetensors", time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (work / "out").exists()
    finished = len(list((work / "out.partial").glob("part-*")))
    assert 1 <= finished < 3
    before = first.read_bytes(), first.stat().st_mtime_ns

    config, seen = config_of(complex_prior), []
    run_scan(config, seen.append, "out.partial")                      # keeps the folder
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    assert len(seen) == (3 - finished) * 40
    assert (seen[-1].done, seen[-1].total) == (len(seen), len(seen))
    code, _, err = invdiff(*command(complex_prior))
    assert code == 0, err
    assert names(work) == {"scan.h5", "out"}                          # and no out.partial, nor out.partial-1
    assert invdiff(*command(complex_prior), "--output", "unbroken")[0] == 0
    for name in ("result.h5", "magnitude.nii.gz", "montage.png", "comparison.png", "config.yaml"):
        assert (work / "out" / name).read_bytes() == (work / "unbroken" / name).read_bytes(), name


def interrupt_after(steps, monkeypatch):
    """Ctrl-C at a step of the whole run."""
    run = invdiff.job.run

    def interrupted(config, on_step, partial):
        seen = []

        def step(progress):
            seen.append(progress)
            if len(seen) == steps:
                raise KeyboardInterrupt
            on_step(progress)
        return run(config, step, partial)

    monkeypatch.setattr("invdiff.job.run", interrupted)


def test_ctrl_c_says_where_the_finished_slices_are_and_another_run_is_refused(complex_prior, work, monkeypatch, request):
    run = request.getfixturevalue("invdiff")
    write_fastmri("scan.h5", kspace(3))
    with monkeypatch.context() as patch:
        interrupt_after(6, patch)                                     # in the second slice, of 4 steps
        code, _, err = run(*command(complex_prior, steps=4))
    assert code == 130
    assert "out.partial: the samples finished so far; the same command goes on from there" in err
    assert names(work) == {"scan.h5", "out.partial"}
    for more, says in ((("--seed", "1"), "seed was 0, now 1"),
                       (("--set", "operator.acceleration=2.5"), "acceleration was 2.0, now 2.5")):
        code, _, err = run(*command(complex_prior, *more, steps=4))
        assert (code, err.count("\n")) == (2, 1)
        assert "out.partial: holds 1 finished parts of another run" in err
        assert says in err
    assert names(work) == {"scan.h5", "out.partial"}
    code, _, err = run(*command(complex_prior, "--set", "write=[fastmri]", steps=4))       # does not change the samples
    assert code == 0, err
    assert names(work) == {"scan.h5", "out"}
    assert run(*command(complex_prior, steps=4), "--output", "unbroken")[0] == 0
    assert np.array_equal(samples_of(work / "out"), samples_of(work / "unbroken"))


def test_the_samples_of_a_slice_under_way_are_kept_too(complex_prior, work, monkeypatch, request):
    run = request.getfixturevalue("invdiff")
    write_fastmri("scan.h5", kspace(2))
    many = command(complex_prior, "--samples", "3", steps=4)
    with monkeypatch.context() as patch:
        interrupt_after(12 + 9, patch)                                # in the third sample of the second slice
        assert run(*many)[0] == 130
    assert names(work) == {"scan.h5", "out.partial", "out.partial-1"}
    seen = []
    run_scan(config_of(complex_prior, 4, 3), seen.append, work / "out.partial")
    assert len(seen) == 4
    assert names(work) == {"scan.h5", "out.partial"}
    assert run(*many)[0] == 0
    assert names(work) == {"scan.h5", "out"}
    assert run(*many, "--output", "unbroken")[0] == 0
    assert np.array_equal(samples_of(work / "out"), samples_of(work / "unbroken"))


def test_what_is_kept_is_known_by_every_file_that_was_read(complex_prior, work):
    """A trajectory, both of BART's, whatever their name ends in, and those of a folder."""
    for name in ("scan.h5", "t.npy", "b.multi.cfl", "b.multi.hdr", "b.h5"):
        (work / name).write_bytes(b"1")
    assert _files(work / "b.multi") == [work / "b.multi.cfl", work / "b.multi.hdr"]
    assert _files(work / "b.multi.hdr") == [work / "b.multi.hdr", work / "b.multi.cfl"]
    (work / "folder").mkdir()
    (work / "folder" / "1.dcm").write_bytes(b"1")
    assert _files(work / "folder") == [work / "folder" / "1.dcm"]
    config = config_of(complex_prior, more=["operator.trajectory=t.npy"])
    scan, prior = scan_of(kspace()), load_prior(str(complex_prior))
    scan = replace(scan, path=str(work / "scan.h5"))
    before = _identity(config, scan, prior)
    assert before == _identity(config, scan, prior)
    for name in ("scan.h5", "t.npy"):
        (work / name).write_bytes(b"22")
        after = _identity(config, scan, prior)
        assert after != before
        before = after


# an early end

@pytest.mark.parametrize(("at", "left"), [(9, 1), (12, 1), (25, 2)])
def test_a_stop_keeps_the_slices_that_are_finished_and_begins_no_other(at, left, complex_prior, work):
    write_fastmri("scan.h5", kspace(3))
    config = config_of(complex_prior, 4, 3)
    if at < 12:                                                       # the first slice has two samples by then
        done = run_scan(config, stop_at(at))
        assert done.report["samples"] == 2
    else:
        done = run_scan(config, stop_at(at))
        assert done.report["samples"] == 3
    assert len(done.slices) == left
    assert done.report["consistency"]["verdict"] not in EXPLAINED     # by a prior that was not trained
    assert done.report["interval"] == unexplained(uncalibrated(done.report["samples"], done.report["antithetic"]))
    assert done.report["scan"]["slices"] == [0, left - 1]
    done.save("out")
    whole = run_scan(config)
    whole.save("whole")
    assert np.array_equal(samples_of(work / "out"), samples_of(work / "whole")[:left, : done.report["samples"]])


def test_a_stop_before_there_is_anything_ends_the_run(complex_prior, work):
    write_fastmri("scan.h5", kspace(3))
    with pytest.raises(Stop):
        run_scan(config_of(complex_prior, 4, 3), stop_at(2))
    with pytest.raises(Stop):                                         # nor does a folder of slices get one with fewer samples
        run_scan(config_of(complex_prior, 4, 3), stop_at(9), "kept")
    seen = []
    assert len(run_scan(config_of(complex_prior, 4, 3), seen.append, "kept").slices) == 3
    assert len(seen) == 36 - 8                                        # its two samples are not drawn again


# memory

def test_slices_are_read_one_at_a_time_each_once_and_none_ahead(complex_prior, work):
    data, read = kspace(3), []
    slices = Slices(work / "kept", {})

    def reading(number):
        read.append((number, len(slices)))
        return RawSlice(data[number], torch.ones(SIZE, dtype=torch.bool))

    recipe = Recipe(ScanSettings(acceleration=2, noise="none"), load_prior(complex_prior),
                    build_sampler({"name": "moment_matching", "steps": 1}), samples=1, seed=0)
    restore_slices(scan_of(data, read=reading), range(3), recipe, slices)
    assert read == [(0, 0), (1, 1), (2, 2)]                           # slice, and how many were finished and on disk
    assert len(list((work / "kept").glob("part-*"))) == 3
    restore_slices(scan_of(data, read=reading), range(3), recipe, slices)
    assert len(read) == 3


class Watched:
    """Slices that note how many of them are alive at once."""

    def __init__(self, count):
        self.count, self.alive, self.most, self.drawn = count, weakref.WeakSet(), 0, 0

    def __len__(self):
        return self.count

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for number in range(self.count):
            tensors = {"samples": torch.randn(2, 2, 16, 12, generator=generator), "zero_filled": torch.rand(16, 12)}
            self.alive.add(tensors["samples"])
            self.drawn += 1
            self.most = max(self.most, len(self.alive))
            yield tensors, {"slice": number}
            del tensors


def test_volumes_are_written_as_they_are_read(work):
    watched = Watched(12)
    write_result(work / "result.h5", watched, 1.5, {})
    write_volumes(work, watched, Header(), ("nifti", "complex", "dicom", "fastmri", "montage"), False, "seed")
    assert watched.drawn >= 8 * 12
    assert watched.most <= 2
    with h5py.File("result.h5") as file:
        assert file["samples"].shape == (12, 2, 2, 16, 12)
        assert json.loads(file.attrs["provenance"]) == {}
