"""The page that restores one image."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from invdiff_app import spec, text
from invdiff_app.choosing import Picture, choose_operator, choose_picture, require_size
from invdiff_app.guard import guarded
from invdiff_app.jobs import Job
from invdiff_app.masking import put_mask
from invdiff_app.method import choose_method, priors
from invdiff_app.operators_shown import TASKS
from invdiff_app.session import current_job, start


def page() -> None:
    st.title(text.PAGES["restore"])
    st.caption(text.ABOUT)
    left, right = st.columns([1, 2], gap="large")
    with left:
        picture = choose_picture()
        with st.spinner(text.STARTING):
            cards = _ready()
        task, given = choose_operator(picture)
        method = choose_method(cards, task)
    with right:
        job, above, settings = current_job("restore"), st.container(), None
        if not picture.awaited and not (job and job.active):
            with guarded():
                settings = _prepare(picture, task, given, method)
        if job is not None:
            from invdiff_app import outcome, running

            with above:
                running.show(job, outcome.show, settings)


@st.cache_resource(show_spinner=False)
def _ready() -> dict[str, dict[str, Any]]:
    """The library, imported once; the priors' cards."""
    import invdiff.job  # noqa: F401

    return priors()


def _prepare(picture: Picture, task: str, given: dict[str, Any], method: dict[str, Any]) -> Any:
    """The measurement of these settings, how to say them elsewhere, and the button. The settings as a job keeps them, or None
    where something is missing."""
    from invdiff_app import preview
    from invdiff_app.outcome import repeat

    if not complete(picture, given):
        return None
    config = spec.resolve(task, given | method)
    seen = preview.preview_of(config)
    names = dict(picture.names)
    settings = spec.settings(config, names)
    if st.button(text.START, type="primary", key="start"):
        given_files = {name: path.read_bytes() for name, path in picture.given.items()}
        about = {"page": "restore", "given": given_files, "title": title(spec.named(config, names)), "settings": settings}
        start(lambda job: _run(job, config, names), about, {name: Path(path) for path, name in names.items()})
    preview.show(seen)
    repeat(spec.named(config, names), picture.given)
    return settings


def title(config: Any) -> str:
    """What a job is of, briefly: file, task and operator."""
    operator = config.operator["name"]
    kind = f" ({text.OPERATORS[operator]})" if len(TASKS[config.task]) > 1 else ""
    return text.RESULT.format(config.truth or config.input or text.PHOTOS["astronaut"], text.TASKS[config.task] + kind)


def _run(job: Job, config: Any, names: dict[str, str]) -> Any:
    """In the worker: the same as `invdiff restore`, on the job's copies of the files, which are then called by their names."""
    from invdiff.job import run

    job.prepare()
    outcome = run(spec.inside(config, job.folder, names), job.on_step, on_width=job.on_width)
    called = spec.named(config, names)
    report = outcome.report | {"config": called.model_dump()}
    return replace(outcome, config=called, result=replace(outcome.result, report=report))


def complete(picture: Picture, given: dict[str, Any]) -> bool:
    """What there is to say of the picture, and the brush where a mask is to be drawn; False while a mask is awaited. Raises
    InputError."""
    factor = given["operator"].get("factor", 1) if picture.kind == "input" else 1
    require_size([factor * n for n in picture.size])            # before anything that a large one makes slow
    if picture.note:
        st.caption(picture.note)
    return given["operator"]["name"] != "mask_inpainting" or put_mask(picture, given["operator"])
