"""What a visit has: a name for its jobs, a folder for its files that goes with it, and the job that is on the page."""

import atexit
import gc
import hashlib
import os
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from invdiff.errors import InputError
from invdiff_app import text
from invdiff_app.folders import folder_of
from invdiff_app.jobs import Job, Jobs

Made = TypeVar("Made")

UNSET = ("start", "compare", "reconstruct", "file", "mask_file", "scan_file")      # of buttons and uploads: nobody may set them


class Visit:
    """A visit's folder goes with this."""

    def __init__(self) -> None:
        self.folder = folder_of(self, "visit")


@cache
def jobs() -> Jobs:
    """One queue for all visits.

    Streamlit collects garbage whenever a page was drawn, twice a second while a job is watched. Among half a million objects
    of the packages that takes a quarter of a second, in which the job waits: so they are no longer looked through.
    """
    import invdiff.job  # noqa: F401

    gc.collect()
    gc.freeze()
    queue = Jobs()
    atexit.register(queue.end)
    return queue


def owner() -> str:
    return st.session_state.setdefault("_owner", secrets.token_hex(8))


def take_settings_along(page: str) -> None:
    """Before a page is drawn: the settings in the address of the page before it, of which Streamlit forgets what has not been
    touched since it came with a link."""
    before, settings = st.session_state.get("_settings", (page, {}))
    values = st.session_state.pop("_lost", {})
    st.session_state.pop("_taken", None)        # of a drawing that was cut short
    if before != page:
        values = st.session_state["_taken"] = {key: value for key, (value, _) in settings.items()}
        st.session_state["_settings"] = page, settings
        st.query_params.update({key: said for key, (_, said) in settings.items() if said})
    for key, value in values.items():
        st.session_state[key] = value
    st.session_state["_named"] = list(st.query_params)


def remember_settings(page: str) -> None:
    """After a page is drawn: the value of each setting in its address, also of those that have left it with this drawing, as
    they have their defaults by now, and how it is said there. Where the browser's Back led to the page, Streamlit has put the
    settings that both pages have back to their defaults, and lets nobody set them in that run: so it is drawn once more."""
    named = [key for key in dict.fromkeys([*st.session_state.pop("_named", ()), *st.query_params])
             if key in st.session_state and key not in UNSET]
    st.session_state["_settings"] = page, {key: (st.session_state[key], st.query_params.get_all(key)) for key in named}
    taken = st.session_state.pop("_taken", {})
    if lost := {key: value for key, value in taken.items() if st.session_state.get(key) != value}:
        st.session_state["_lost"] = lost
        st.rerun()


def keep_file(name: str, content: bytes) -> Path:
    """A file of this visit, under a name made of its content; the folder is removed when the visit's state is. The eight that
    were asked for last are kept."""
    if "_visit" not in st.session_state:
        st.session_state["_visit"] = Visit()
    folder = st.session_state["_visit"].folder
    suffix = Path(name).suffix.lower()
    suffix = suffix if suffix[1:].isalnum() and len(suffix) <= 6 else ""
    path = folder / (hashlib.sha256(content).hexdigest()[:24] + suffix)
    if path.exists():
        os.utime(path)
    else:
        for old in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime)[:-7]:
            old.unlink()
        path.write_bytes(content)
    return path


def remembered(key: str, about: Any, make: Callable[[], Made]) -> Made:
    """What `make` gives, made anew when `about` is another than last time; the visit keeps one for each key."""
    if st.session_state.get(key, (None,))[0] != about:
        st.session_state[key] = (about, make())
    return st.session_state[key][1]


def current_job(page: str) -> Job | None:
    """The page's job: that in the URL, which a reload brings along, or else the visit's last one here, put back there."""
    last: dict[str, str] = st.session_state.setdefault("_jobs", {})
    wanted = st.query_params.get("job")
    asked = jobs().find(wanted)
    job = asked if asked and asked.about["page"] == page else jobs().find(last.get(page))
    if wanted and asked is None:
        st.info(text.JOB_GONE)
    if job is not None:
        last[page] = st.query_params["job"] = job.id
    elif wanted:
        del st.query_params["job"]
    return job


def start(work, about: dict, files: dict[str, Path]) -> None:
    """Queue a job, and put it into the URL. What cannot be queued is said in a sentence."""
    try:
        job = jobs().submit(owner(), work, about, files)
    except InputError as error:
        st.error(text.sentence(error))
        if blocking := jobs().active_of(owner()):
            _elsewhere(blocking)
        return
    st.query_params["job"] = job.id
    st.rerun()


def _elsewhere(job: Job) -> None:
    """The way to the page of the visit's active job, and its end."""
    page = job.about["page"]
    with st.container(horizontal=True):
        st.page_link(f"views/{page}.py", label=text.ITS_PAGE.format(text.PAGES[page]))
        st.button(text.STOP, key=f"stop_{job.id}", on_click=jobs().stop, args=(job,))
