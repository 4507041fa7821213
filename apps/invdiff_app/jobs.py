"""Long computations, one after the other, that outlive a page: started, watched, stopped, and forgotten after a while."""

import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from invdiff.errors import InputError
from invdiff_app import text
from invdiff_app.folders import folder_of
from invdiff_app.guard import went_wrong

FINISHED = ("done", "stopped", "failed")
PICTURE_SECONDS = 0.25          # between two pictures of the estimate
PREPARING, ESTIMATING, STEPPING, FINISHING = "preparing", "estimating", "stepping", "finishing"     # what a running job is at


@dataclass
class Job:
    """Something to compute, and how far it is.

    work: called with the job in the worker's thread; what it returns is `result`. folder: for files it needs, removed when it
    is finished. picture: the current estimate, uint8 (H, W) or (H, W, 3). about: plain values for the page. stage: what it is
    at, and trial, how far, while the width of a blur is estimated.
    """

    owner: str
    work: Callable[["Job"], Any]
    about: dict[str, Any]
    folder: Path = field(init=False)
    id: str = field(default_factory=lambda: secrets.token_hex(12))      # of no "__", which is Streamlit's own in keys
    state: str = "queued"
    stage: str = PREPARING
    trial: Any = None
    done: int = 0
    total: int = 0
    picture: np.ndarray | None = None
    result: Any = None
    message: str = ""
    stop_asked: bool = False
    began: float = 0.0
    ended: float = 0.0
    first_picture: float | None = None
    seen: float = field(default_factory=time.monotonic)
    drawn: float = 0.0
    paced: tuple[float, int] = (0.0, 0)                 # seconds and steps, where one came right after another
    last_step: float = 0.0

    def __post_init__(self) -> None:
        self.folder = folder_of(self, "job")

    @property
    def active(self) -> bool:
        return self.state not in FINISHED

    @property
    def seconds_left(self) -> float | None:
        """By the pace of steps that came right after another, without what is loaded before a run's first and said of it after
        its last; None until there are two, and while it is at something else."""
        seconds, steps = self.paced
        if self.state != "running" or self.stage != STEPPING or steps < 2:
            return None
        return max(seconds / steps * (self.total - self.done) - (time.monotonic() - self.last_step), 0.0)

    def prepare(self) -> None:
        """Before a run. Raises Stop when asked to."""
        self._at(PREPARING)

    def on_width(self, trial: Any) -> None:
        """For `invdiff.job.run`, while it estimates the width of a blur. Raises Stop when asked to."""
        self.trial = trial
        self._at(ESTIMATING)

    def _at(self, stage: str) -> None:
        from invdiff import Stop

        if self.stop_asked:
            raise Stop
        self.stage = stage

    def on_step(self, progress: Any, before: int = 0, after: int = 0) -> None:
        """For `invdiff.restore`; `before` steps were done by runs before this one, and `after` will be by those to come. Raises
        Stop when asked to."""
        from invdiff_app.pictures import estimate

        follows, now, done = self.stage == STEPPING, time.monotonic(), before + progress.done
        self._at(STEPPING if progress.done < progress.total else FINISHING)
        if follows:
            self.paced = self.paced[0] + now - self.last_step, self.paced[1] + done - self.done
        self.done, self.total, self.last_step = done, before + progress.total + after, now
        if self.picture is None or now - self.drawn > PICTURE_SECONDS:
            self.picture, self.drawn = estimate(progress.step.x0), now
            self.first_picture = self.first_picture or now - self.began


class Jobs:
    """A queue with one worker. At most `keep` finished jobs are remembered, each for `keep_seconds`; a job that nobody has
    looked at for `unseen_seconds` is stopped."""

    def __init__(self, keep: int = 6, keep_seconds: float = 1800, waiting: int = 8, unseen_seconds: float = 300):
        self.keep, self.keep_seconds, self.waiting, self.unseen_seconds = keep, keep_seconds, waiting, unseen_seconds
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._change = threading.Condition()
        threading.Thread(target=self._work, daemon=True, name="jobs").start()
        threading.Thread(target=self._tidy_forever, daemon=True, name="jobs-tidy").start()

    def submit(self, owner: str, work: Callable[[Job], Any], about: dict[str, Any], files: dict[str, Path]) -> Job:
        """Queue `work`; `files` are copied into the job's folder by these names. Raises InputError: the owner has an active
        job, or the queue is full."""
        with self._change:
            if self.active_of(owner):
                raise InputError(text.ONE_JOB)
            if len(self._queue) >= self.waiting:
                raise InputError(text.QUEUE_FULL)
            job = Job(owner, work, about)
            for name, path in files.items():
                shutil.copyfile(path, job.folder / name)
            self._jobs[job.id] = job
            self._queue.append(job)
            self._change.notify_all()
        return job

    def find(self, id: str | None) -> Job | None:
        """The job of that id, if it is remembered; it counts as looked at."""
        with self._change:
            job = self._jobs.get(id or "")
        if job:
            job.seen = time.monotonic()
        return job

    def active_of(self, owner: str) -> Job | None:
        """The owner's job that waits or runs."""
        with self._change:
            return next((job for job in self._jobs.values() if job.active and job.owner == owner), None)

    def ahead(self, job: Job) -> int:
        """How many others come before a queued job, the running one included."""
        with self._change:
            before = self._queue.index(job) if job in self._queue else 0
            return before + sum(other.state == "running" for other in self._jobs.values())

    def stop(self, job: Job) -> None:
        """At once if it waits, with the next step if it runs."""
        with self._change:
            job.stop_asked = True
            if job in self._queue:
                self._queue.remove(job)
                self._finish(job, "stopped")

    def end(self, seconds: float = 5.0) -> None:
        """Stop all, and wait that long for the running one: what computes on is cut off with the process, and not cleanly."""
        with self._change:
            active = [job for job in self._jobs.values() if job.active]
        for job in active:
            self.stop(job)
        with self._change:
            self._change.wait_for(lambda: not any(job.active for job in active), seconds)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._queue))
                job = self._queue.popleft()
                job.state, job.began = "running", time.monotonic()
            state = self._run(job)
            with self._change:
                self._finish(job, state)

    def _run(self, job: Job) -> str:
        from invdiff import Stop

        try:
            job.result = job.work(job)
            return "stopped" if job.stop_asked else "done"
        except Stop:
            return "stopped"
        except InputError as error:
            job.message = text.sentence(error)
        except Exception as error:
            job.message = went_wrong(error, f"job {job.id}")
        return "failed"

    def _finish(self, job: Job, state: str) -> None:
        job.state, job.ended = state, time.monotonic()
        shutil.rmtree(job.folder, ignore_errors=True)
        job.work = lambda job: None                             # and the files' contents that it may hold
        self._forget()
        self._change.notify_all()

    def _forget(self) -> None:
        finished = sorted((job for job in self._jobs.values() if not job.active), key=lambda job: job.ended)
        now = time.monotonic()
        for place, job in enumerate(reversed(finished)):
            if place >= self.keep or now - job.ended > self.keep_seconds:
                del self._jobs[job.id]

    def _tidy_forever(self) -> None:
        while True:
            time.sleep(min(10.0, self.unseen_seconds / 2))
            with self._change:
                unseen = [job for job in self._jobs.values()
                          if job.active and time.monotonic() - job.seen > self.unseen_seconds]
                self._forget()
            for job in unseen:
                self.stop(job)
