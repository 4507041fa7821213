"""Finished slices are there for any choice of slices, and a run that fails says where they are."""

import pytest
import torch
from mri_runs import command, config_of, stop_at
from mri_scans import kspace, names, write_fastmri

from invdiff.mri.job import run_scan
from invdiff.mri.preparing import prepare
from invdiff.mri.volume import Slices
from invdiff.restoration import Stop


def broken(number, count=3):
    """A scan of which one slice holds NaN."""
    data = kspace(count)
    data[number, 1, 3, 4] = float("nan")
    write_fastmri("scan.h5", data)


def test_a_bad_slice_costs_none_of_the_finished_and_they_are_there_for_another_choice(complex_prior, work, invdiff):
    broken(2)
    code, _, err = invdiff(*command(complex_prior, steps=2))
    assert (code, err.count("\n")) == (2, 1)
    assert "slice 2 holds 1 NaN or infinite values" in err
    assert f"what was finished before is kept in {work / 'out.partial'}" in err
    again = config_of(complex_prior, 2, more=("slices=[0,1]",))
    assert len(run_scan(again, lambda _: pytest.fail("drawn again"), work / "out.partial").slices) == 2
    code, _, err = invdiff(*command(complex_prior, "--set", "slices=[0,1]", steps=2))
    assert code == 0, err
    assert names(work) == {"scan.h5", "out"}
    assert invdiff(*command(complex_prior, "--set", "slices=[0,1]", steps=2), "--output", "unbroken")[0] == 0
    assert (work / "out" / "result.h5").read_bytes() == (work / "unbroken" / "result.h5").read_bytes()


def test_any_error_on_the_way_says_what_is_kept(complex_prior, work, monkeypatch, invdiff):
    write_fastmri("scan.h5", kspace(2))

    def fail(scan, number, *rest):
        if number:
            raise MemoryError
        return prepare(scan, number, *rest)

    monkeypatch.setattr("invdiff.mri.volume.prepare", fail)
    code, _, err = invdiff(*command(complex_prior, steps=2))
    assert code == 2
    assert "out.partial: the samples finished so far; the same command goes on from there" in err


def test_samples_of_an_unfinished_slice_stay_for_the_run_that_asks_for_it(complex_prior, work, invdiff):
    write_fastmri("scan.h5", kspace(2))
    seen = []

    def kill(progress):
        seen.append(progress)
        if len(seen) == 3:                                            # in the second sample
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_scan(config_of(complex_prior, 2, 2, ("slices=[0,0]",)), kill, work / "out.partial")
    assert names(work) == {"scan.h5", "out.partial-0"}
    for slices in ("[1,1]", "[0,0]"):
        code, _, err = invdiff(*command(complex_prior, "--set", f"slices={slices}", "--samples", "2", steps=2))
        assert code == 0, err
        assert names(work) == {"scan.h5", "out"} | ({"out.partial-0"} if slices == "[1,1]" else set())


def test_what_belongs_to_another_run_is_not_said_to_go_on(complex_prior, work, invdiff):
    write_fastmri("scan.h5", kspace(2))
    with pytest.raises(Stop):
        run_scan(config_of(complex_prior, 2, 2, ("slices=[0,0]",)), stop_at(2), work / "out.partial")
    other = command(complex_prior, "--set", "slices=[0,0]", "--samples", "2", "--seed", "5", steps=2)
    code, _, err = invdiff(*other)
    assert (code, err.count("another run")) == (2, 1)
    assert "what was finished before" not in err


def test_slices_finished_in_any_order_come_in_their_own_and_those_not_asked_for_stay(complex_prior, work, invdiff):
    data = kspace(4)
    data[2] = 0
    write_fastmri("scan.h5", data)
    late, middle, whole = (config_of(complex_prior, 2, 2, more) for more in (("slices=[3,3]",), ("slices=[1,2]",), ()))
    run_scan(late, None, work / "out.partial")
    run_scan(middle, None, work / "out.partial")
    seen = []
    made = run_scan(whole, seen.append, work / "out.partial")
    assert len(seen) == 2 * 2                                         # the first slice alone
    assert [about["slice"] for _, about in made.slices] == [one["slice"] for one in made.report["slices"]] == [0, 1, 2, 3]
    assert made.spare == []
    made.save("out")
    run_scan(whole).save("unbroken")
    assert (work / "out" / "result.h5").read_bytes() == (work / "unbroken" / "result.h5").read_bytes()
    code, _, err = invdiff(*command(complex_prior, "--samples", "2", "--set", "slices=[0,1]", steps=2))
    assert code == 0, err
    assert "out.partial: keeps 2 finished slices that were not asked for; the same command with them goes on from there" in err
    assert len(run_scan(whole, lambda _: pytest.fail("drawn again"), work / "out.partial").slices) == 4


def test_a_slice_that_is_missing_ends_what_is_there_of_a_run(work):
    slices = Slices(work / "kept", {}, range(4))
    for number in (3, 0, 1):
        slices.add({"samples": torch.full((1, 2, 4, 4), float(number))}, {"slice": number})
    for found in (slices, Slices(work / "kept", {}, range(4))):
        assert len(found) == 2
        assert [(float(tensors["samples"].max()), about["slice"]) for tensors, about in found] == [(0, 0), (1, 1)]
    assert [about["slice"] for _, about in Slices(work / "kept", {})] == [0, 1, 3]


def test_a_run_that_found_nothing_leaves_nothing(complex_prior, work, invdiff):
    data = kspace(3)
    data[:2] = 0
    write_fastmri("scan.h5", data)
    code, _, err = invdiff(*command(complex_prior, "--set", "slices=[0,1]", steps=2))
    assert (code, err.count("\n")) == (2, 1)
    assert "all that were chosen are zero everywhere" in err
    assert names(work) == {"scan.h5"}
    assert len(run_scan(config_of(complex_prior, 2, 3), stop_at(3)).slices) == 3      # with fewer samples, the empty ones too
    code, _, err = invdiff(*command(complex_prior, steps=2))
    assert code == 0, err
    assert names(work) == {"scan.h5", "out"}


def test_slices_are_found_by_their_own_number_whatever_else_comes_into_the_folder(work):
    """As from another run at once, where the file system has no locks."""
    def add(slices, number):
        slices.add({"samples": torch.full((1,), float(number))}, {"slice": number})

    first, second = Slices("kept", {}, range(2)), Slices("kept", {}, range(2, 4))
    for slices, number in ((second, 2), (first, 0), (second, 3), (first, 1)):
        add(slices, number)
    for slices, numbers in ((first, [0, 1]), (second, [2, 3]), (Slices("kept", {}), [0, 1, 2, 3])):
        assert [about["slice"] for _, about in slices] == numbers
        assert [int(tensors["samples"]) for tensors, _ in slices] == numbers


def test_a_full_disk_while_results_are_written_is_a_sentence_and_costs_no_slice(complex_prior, work, monkeypatch, invdiff):
    write_fastmri("scan.h5", kspace(1))

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("invdiff.mri.job.write_volumes", full)
        code, _, err = invdiff(*command(complex_prior, steps=2))
    assert (code, err.count("\n")) == (2, 2)
    assert "out.partial: the samples finished so far; the same command goes on from there" in err
    assert "out: cannot be written (No space left on device); make room there" in err
    with monkeypatch.context() as patch:
        patch.setattr("invdiff.io.partial.save_file", full)
        code, _, err = invdiff(*command(complex_prior, "--seed", "1", steps=2), "--output", "other")
    assert (code, err.count("\n")) == (2, 1)
    assert "other.partial-0: cannot be written (No space left on device)" in err
    assert names(work) == {"scan.h5", "out.partial"}
