"""Pages without a browser."""

import time
from pathlib import Path

from invdiff_app.session import jobs
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[2] / "apps" / "app.py"


def page(name="restore", **address):
    """A page as a new visit sees it, with these query parameters."""
    at = AppTest.from_file(str(APP), default_timeout=120)
    if name != "restore":
        at.run()
        at.switch_page(f"views/{name}.py")
    for key, value in address.items():
        at.query_params[key] = value
    return at.run()


def job_of(at):
    """The job in a page's address."""
    (id,) = [at.query_params["job"]] if isinstance(at.query_params["job"], str) else at.query_params["job"]
    return jobs().find(id)


def finished(at, seconds=300):
    """The job in a page's address, once it is finished."""
    end = time.monotonic() + seconds
    job = job_of(at)
    while job.active:
        job.seen = time.monotonic()
        assert time.monotonic() < end, "the job goes on and on"
        time.sleep(0.05)
    return job
