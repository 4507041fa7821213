"""A job on the page while it waits and runs: its place, its progress, the estimate as it sharpens, and how to stop it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from invdiff_app import text
from invdiff_app.guard import guarded
from invdiff_app.jobs import ESTIMATING, FINISHING, PREPARING, Job
from invdiff_app.session import jobs

POLL_SECONDS = 0.5


def show(job: Job, finished: Callable[[Job], None], settings: Any) -> None:
    """What a job is of, and the job while it runs, what `finished` draws of its result, or why there is none. settings: those
    of the page now, to compare with the job's; None where there are none."""
    from invdiff_app import outcome

    st.subheader(text.literal(job.about["title"]), anchor=False)
    if not job.active and settings not in (None, job.about["settings"]):
        st.info(text.OTHERWISE)
    if job.active:
        watch(job)
    elif job.result is None:
        outcome.show(job)
    else:
        finished(job)
        st.divider()


def watch(job: Job) -> None:
    """Draws the job anew twice a second, and the whole page once it is finished."""
    st.fragment(_watched, run_every=POLL_SECONDS)(job.id)


def _watched(id: str) -> None:
    with guarded():
        job = jobs().find(id)
        if job is None or not job.active:
            st.rerun()
        _progress(job)
        if st.button(text.STOP, key=f"stop_{id}", disabled=job.stop_asked):
            jobs().stop(job)
            st.rerun()
        if job.picture is not None:
            estimate(job.picture)


def estimate(picture: np.ndarray) -> None:
    """The estimate so far, uint8 (H, W) or (H, W, 3), within the page: a file is gone before a slow browser asks."""
    from invdiff_app.pictures import data_url, enlarged

    st.image(data_url(enlarged(picture, 384)), text.ESTIMATE, alt=text.ESTIMATE)


def _progress(job: Job) -> None:
    if job.state == "queued":
        st.progress(0.0, text.QUEUED.format(jobs().ahead(job)))
    elif job.stop_asked:
        st.progress(_share(job), text.STOPPING)
    elif job.stage == ESTIMATING:
        trial = job.trial
        st.progress(min((trial.number - 1 + trial.share) / trial.count, 1.0), text.ESTIMATING.format(trial.number, trial.count))
    elif job.stage == PREPARING:
        st.progress(_share(job), text.PREPARING[job.about["page"]])
    elif job.stage == FINISHING:
        st.progress(_share(job), text.FINISHING)
    else:
        left = job.seconds_left
        remaining = text.LEFT.format(text.duration(left)) if left else ""
        st.progress(_share(job), text.STEP.format(job.done, job.total, remaining))


def _share(job: Job) -> float:
    return min(job.done / job.total, 1.0) if job.total else 0.0
