"""Pages without a browser."""

import io
import time
from pathlib import Path

from invdiff_app.session import jobs
from PIL import Image
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


def png(size=(24, 20), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, 128).save(buffer, "PNG")
    return buffer.getvalue()


def upload(at, name, content, kind="truth"):
    at.radio(key="source").set_value("upload").run()
    at.radio(key="kind").set_value(kind)
    return at.file_uploader(key="file").set_value((name, content, "image/png")).run()


def quick(at):
    """A small image, in two steps and one sample."""
    at.select_slider(key="size").set_value(128)
    at.slider(key="moment_matching_steps").set_value(2)
    return at.slider(key="samples").set_value(1).run()


def command(at):
    return next(block.value for block in at.code if block.value.startswith("invdiff"))


def commands(at):
    return [block.value for block in at.code if block.value.startswith("invdiff")]
