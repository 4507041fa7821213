"""Ctrl-C, and how a run goes on."""

import json

import pytest
from cli_runs import FILES, QUICK, assert_refused, names

from invdiff.io.images import sample_image, save_image
from invdiff.priors import EDMDenoiser


def interrupt(*_arguments, **_keywords):
    raise KeyboardInterrupt


def interrupt_after(calls, monkeypatch):
    """Ctrl-C in the network, after so many calls."""

    forward, seen = EDMDenoiser.forward, []

    def count(*arguments, **keywords):
        seen.append(1)
        if len(seen) > calls:
            raise KeyboardInterrupt
        return forward(*arguments, **keywords)

    monkeypatch.setattr("invdiff.priors.denoiser.EDMDenoiser.forward", count)


def test_ctrl_c_before_the_first_sample_leaves_nothing(work, restore, monkeypatch):
    interrupt_after(3, monkeypatch)                                   # two tell the priors apart, 3 make a sample
    code, _, err = restore("--task", "deblur", "--truth", "truth.png", *QUICK)
    assert (code, err) == (130, "interrupted\n")
    assert names(work) == {"truth.png"}


def test_ctrl_c_keeps_the_finished_samples_and_the_same_command_goes_on(work, restore, monkeypatch):
    command = ("--task", "deblur", "--truth", "truth.png", "--steps", "2", "--samples", "3")
    with monkeypatch.context() as patch:
        interrupt_after(9, patch)                                     # in the third sample
        code, _, err = restore(*command, output="out/")
    assert code == 130
    assert "out.partial: the samples finished so far; the same command goes on from there" in err
    assert err.endswith("interrupted\n")
    assert names(work) == {"truth.png", "out.partial"}
    with monkeypatch.context() as patch:
        interrupt_after(5, patch)                                     # of which it needs 2 + 3
        assert restore(*command)[0] == 0
    assert names(work) == {"truth.png", "out"}
    assert restore(*command, output="unbroken")[0] == 0
    for name in FILES - {"report.json"}:
        assert (work / "out" / name).read_bytes() == (work / "unbroken" / name).read_bytes(), name
    reports = [json.loads((work / folder / "report.json").read_text()) for folder in ("out", "unbroken")]
    assert reports[0] | {"seconds": 0} == reports[1] | {"seconds": 0}


def test_the_finished_samples_of_another_run_are_refused_and_kept(work, restore, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(5, patch)
        assert restore("--task", "deblur", "--truth", "truth.png", "--steps", "2", "--samples", "2")[0] == 130
    assert_refused(restore("--task", "deblur", "--truth", "truth.png", "--steps", "3", "--samples", "2"), work,
                   "out.partial: holds 1 finished parts of another run (sampler.steps was 2, now 3)")
    assert names(work) == {"truth.png", "out.partial"}


@pytest.mark.parametrize("target", ["invdiff.result.write_json", "invdiff.job.save_image"])
def test_ctrl_c_while_results_are_written_keeps_the_samples(target, work, restore, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(target, interrupt)
        code, _, err = restore("--task", "deblur", "--truth", "truth.png", *QUICK)
    assert code == 130
    assert "Traceback" not in err
    assert names(work) == {"truth.png", "out.partial"}
    assert restore("--task", "deblur", "--truth", "truth.png", *QUICK)[0] == 0
    assert names(work) == {"truth.png", "out"}


def test_ctrl_c_keeps_an_earlier_result(work, restore, monkeypatch):
    assert restore("--task", "deblur", "--truth", "truth.png", *QUICK)[0] == 0
    before = {path.name: path.read_bytes() for path in (work / "out").iterdir()}
    monkeypatch.setattr("invdiff.job.save_image", interrupt)
    assert restore("--task", "sr", "--truth", "truth.png", *QUICK)[0] == 130
    assert {path.name: path.read_bytes() for path in (work / "out").iterdir()} == before
    assert names(work) == {"truth.png", "out", "out.partial"}


# where the chains begin

def test_an_estimate_to_begin_from_is_read_from_a_file(work, restore):
    lower = ("--task", "deblur", "--truth", "truth.png", *QUICK, "--set", "sampler.start_sigma=0.2")
    assert restore(*lower, output="a")[0] == 0
    assert restore(*lower, "--set", "start=truth.png", output="b")[0] == 0
    calls = [json.loads((work / folder / "report.json").read_text())["network_calls"] for folder in "ab"]
    assert calls == [3, 2]                                            # the estimate spares the call that would make one
    save_image("small.png", sample_image(size=32))
    assert_refused(restore(*lower, "--set", "start=small.png"), work, "start: expected an image of (3, 64, 64)", "small.png")
    assert_refused(restore("--task", "deblur", "--truth", "truth.png", *QUICK, "--sampler", "dps", "--set",
                           "sampler.start_sigma=0.2"), work, "cannot begin from an estimate", "moment_matching")
