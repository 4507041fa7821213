"""The page that restores one image."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from invdiff_app import spec, text
from invdiff_app.choosing import Picture, choose_method, choose_operator, choose_picture, priors
from invdiff_app.jobs import Job
from invdiff_app.session import current_job, keep_file, start


def page() -> None:
    st.title(text.PAGES["restore"])
    st.caption(text.ABOUT)
    left, right = st.columns([1, 2], gap="large")
    with left:
        picture = choose_picture()
        with st.spinner(text.STARTING):
            cards = _ready()
        chosen = None if picture is None else (picture, *choose_operator(picture))
        method = choose_method(cards, chosen[1] if chosen else None)
    with right:
        job = current_job()
        if job is not None and job.about["page"] == "restore":
            from invdiff_app import outcome, running

            running.show(job, outcome.show)
        if chosen is not None and not (job and job.active):
            _prepare(*chosen, method, finished=job is not None)


@st.cache_resource(show_spinner=False)
def _ready() -> dict[str, dict[str, Any]]:
    """The library, imported once; the priors' cards."""
    import invdiff.job  # noqa: F401

    return priors()


def _prepare(picture: Picture, task: str, given: dict[str, Any], method: dict[str, Any], finished: bool) -> None:
    """The measurement of these settings, how to say them elsewhere, and the button."""
    from invdiff_app import preview
    from invdiff_app.outcome import repeat

    if picture.note:
        st.caption(picture.note)
    if given["operator"]["name"] == "mask_inpainting" and not draw_mask_for(picture, given):
        st.info(text.DRAW_FIRST)
        return
    config = spec.resolve(task, given | method)
    seen = preview.preview_of(config)
    names = dict(picture.names)
    pressed = st.button(text.START, type="primary", key="start")
    preview.show(seen)
    repeat(spec.named(config, names))
    if pressed:
        given_files = {name: path.read_bytes() for name, path in picture.given.items()}
        about = {"page": "restore", "given": given_files}
        start(lambda job: _run(job, config, names), about, {name: Path(path) for path, name in names.items()})


def _run(job: Job, config: Any, names: dict[str, str]) -> Any:
    """In the worker: the same as `invdiff restore`, on the job's copies of the files, which are then called by their names."""
    from invdiff.job import run

    outcome = run(spec.inside(config, job.folder, names), job.on_step)
    called = spec.named(config, names)
    report = outcome.report | {"config": called.model_dump()}
    return replace(outcome, config=called, result=replace(outcome.result, report=report))


def draw_mask_for(picture: Picture, given: dict[str, Any]) -> bool:
    """The mask drawn over the picture, put into the operator's parameters; False while nothing is."""
    import base64

    from invdiff.io.images import load_image, sample_image
    from invdiff_app.components import draw_mask
    from invdiff_app.pictures import shown

    image = sample_image() if picture.path is None else load_image(picture.path)
    drawn = draw_mask(shown(image), image.shape[-2:], "drawn")
    if drawn is None:
        return False
    path = keep_file("mask.png", base64.b64decode(drawn.partition(",")[2]))
    given["operator"]["mask"] = str(path)
    picture.names[str(path)] = "drawn-mask.png"
    picture.given["drawn-mask.png"] = path
    return True
