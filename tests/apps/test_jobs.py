"""The queue: one job at a time, in order, each owner with one; what is stopped, failed or forgotten."""

import gc
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from invdiff_app.folders import folder_of
from invdiff_app.jobs import ESTIMATING, FINISHING, PREPARING, Job, Jobs
from streamlit.testing.v1 import AppTest

from invdiff import Stop
from invdiff.blind import Trial
from invdiff.errors import InputError


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def progress(done, total):
    return SimpleNamespace(done=done, total=total, step=SimpleNamespace(x0=torch.full((1, 3, 8, 8), 0.5)))


class Held:
    """Work that goes on, step by step, until it is let go."""

    def __init__(self):
        self.go, self.began = threading.Event(), threading.Event()

    def __call__(self, job):
        for done in range(1, 1_000_000):
            job.on_step(progress(done, 1_000_000))
            self.began.set()
            if self.go.wait(0.01):
                return "result"


def test_a_job_runs_and_its_files_are_removed(tmp_path):
    (tmp_path / "upload").write_text("secret")
    jobs, seen = Jobs(), []

    def work(job):
        seen.append((job.folder / "photo.png").read_text())
        job.on_step(progress(1, 2))
        return "result"

    job = jobs.submit("me", work, {}, {"photo.png": tmp_path / "upload"})
    until(lambda: not job.active)
    assert (job.state, job.result, seen) == ("done", "result", ["secret"])
    assert job.picture.shape == (8, 8, 3)
    until(lambda: not job.folder.exists())


def test_a_job_s_name_may_stand_in_a_key():
    """Streamlit refuses a component whose key has two underscores in a row, and urlsafe names have some."""
    names = {Job("a", lambda job: None, {}).id for _ in range(50)}
    assert len(names) == 50
    assert all(name.isalnum() for name in names)


def test_an_owner_has_one_job_and_others_wait_their_turn():
    jobs, first, second = Jobs(), Held(), Held()
    mine = jobs.submit("me", first, {}, {})
    with pytest.raises(InputError, match="One job at a time"):
        jobs.submit("me", first, {}, {})
    theirs = jobs.submit("them", second, {}, {})
    assert first.began.wait(20)
    last = jobs.submit("others", lambda job: None, {}, {})
    assert (jobs.ahead(theirs), jobs.ahead(last)) == (1, 2)
    assert (theirs.state, second.began.is_set()) == ("queued", False)
    first.go.set(), second.go.set()
    until(lambda: not last.active)
    assert [job.state for job in (mine, theirs, last)] == ["done"] * 3


def test_the_time_left_does_not_count_what_comes_before_the_first_step_and_runs_down(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("invdiff_app.jobs.time.monotonic", lambda: clock.now)
    job = Job("me", lambda job: None, {}, state="running")
    for clock.now, done, left in ((60.0, 1, None), (62.0, 2, None), (64.0, 3, 14.0)):
        job.on_step(progress(done, 10))
        assert job.seconds_left == left
    clock.now = 65.0
    assert job.seconds_left == 13.0


def test_the_time_left_is_by_the_pace_of_steps_and_not_by_what_is_between_two_runs(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("invdiff_app.jobs.time.monotonic", lambda: clock.now)
    job = Job("me", lambda job: None, {}, state="running")
    for clock.now in (1.0, 2.0, 3.0):
        job.on_step(progress(int(clock.now), 3), after=3)
    assert (job.stage, job.seconds_left) == (FINISHING, None)
    clock.now = 100.0
    job.prepare()
    assert (job.stage, job.seconds_left) == (PREPARING, None)
    clock.now = 200.0
    job.on_step(progress(1, 3), before=3)
    assert (job.done, job.total, job.seconds_left) == (4, 6, 2.0)


def test_stop_ends_the_estimate_of_a_blur_with_its_next_step_and_the_preparation_of_a_run():
    job = Job("me", lambda job: None, {}, state="running")
    job.on_width(Trial(3, 11, 0.5))
    assert (job.stage, job.trial.number) == (ESTIMATING, 3)
    job.stop_asked = True
    for step in (lambda: job.on_width(Trial(3, 11, 0.6)), job.prepare):
        with pytest.raises(Stop):
            step()


@pytest.mark.parametrize(("stage", "said", "share"), [
    ("preparing", "Preparing the scan", 50), ("estimating", "Estimating the width of the blur, 3 of about 11", 22),
    ("stepping", "Step 5 of 10", 50), ("finishing", "Finishing", 50),
])
def test_the_page_says_what_a_job_is_at(stage, said, share):
    def drawn(stage):
        from invdiff_app.jobs import Job
        from invdiff_app.running import _progress

        from invdiff.blind import Trial

        _progress(Job("me", lambda job: None, {"page": "mri"}, state="running", stage=stage, done=5, total=10,
                      trial=Trial(3, 11, 0.5)))

    (bar,) = AppTest.from_function(drawn, args=(stage,)).run().get("progress")
    assert bar.proto.text.startswith(said)
    assert bar.proto.value == share
    assert "left" not in bar.proto.text


def test_the_queue_has_an_end():
    jobs, held = Jobs(waiting=2), Held()
    jobs.submit("me", held, {}, {})
    assert held.began.wait(20)
    jobs.submit("a", held, {}, {}), jobs.submit("b", held, {}, {})
    with pytest.raises(InputError, match="Too many"):
        jobs.submit("c", held, {}, {})
    held.go.set()


def test_stop_ends_a_running_job_with_its_next_step_and_a_waiting_one_at_once():
    jobs, held = Jobs(), Held()
    running = jobs.submit("me", held, {}, {})
    assert held.began.wait(20)
    waiting = jobs.submit("them", held, {}, {})
    jobs.stop(waiting)
    assert (waiting.state, waiting.began) == ("stopped", 0.0)
    jobs.stop(running)
    until(lambda: not running.active, 5)
    assert (running.state, running.result) == ("stopped", None)
    assert running.picture is not None


@pytest.mark.parametrize(("error", "said"), [
    (InputError("/tmp/x/0123456789abcdef01234567.png: is empty; give an image"), "is empty; give an image"),
    (MemoryError(), "more memory"), (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "more memory"),
    (RuntimeError("at 0x7f"), "went wrong"),
])
def test_a_failure_is_a_sentence(error, said):
    def work(job):
        raise error

    jobs = Jobs()
    job = jobs.submit("me", work, {}, {})
    until(lambda: not job.active)
    assert job.state == "failed"
    assert said in job.message
    assert not any(part in job.message for part in ("/tmp", "0x7f", "Traceback", "0123456789abcdef"))


def test_finished_jobs_are_forgotten_by_number_and_by_age():
    jobs = Jobs(keep=2, keep_seconds=1000)
    made = []
    for _ in range(3):
        made.append(jobs.submit("me", lambda job: None, {}, {}))
        until(lambda: not made[-1].active)
    assert [jobs.find(job.id) is not None for job in made] == [False, True, True]
    hasty = Jobs(keep_seconds=0.05, unseen_seconds=0.2)
    job = hasty.submit("me", lambda job: None, {}, {})
    until(lambda: job.id not in hasty._jobs)


def test_a_job_that_nobody_looks_at_is_stopped():
    jobs, held = Jobs(unseen_seconds=0.3), Held()
    job = jobs.submit("me", held, {}, {})
    until(lambda: not job.active)
    assert job.state == "stopped"


def test_with_the_process_jobs_are_stopped_and_their_files_removed(tmp_path):
    (tmp_path / "upload").write_text("secret")
    jobs, held = Jobs(), Held()
    running = jobs.submit("me", held, {}, {"photo.png": tmp_path / "upload"})
    assert held.began.wait(20)
    waiting = jobs.submit("them", held, {}, {})
    jobs.end()
    assert [job.state for job in (running, waiting)] == ["stopped"] * 2
    assert not running.folder.exists()


def test_a_folder_goes_with_its_owner_without_a_word(recwarn):
    class Owner:
        pass

    owner = Owner()
    folder = folder_of(owner, "test")
    (folder / "upload").write_text("secret")
    del owner
    gc.collect()
    assert (folder.exists(), len(recwarn)) == (False, 0)


def test_the_packages_are_not_searched_for_garbage_after_each_drawing_of_a_page():
    from invdiff_app.session import jobs

    jobs()
    assert gc.get_freeze_count() > 100_000
