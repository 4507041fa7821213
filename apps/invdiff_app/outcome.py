"""A finished restoration on the page."""

import io
import tempfile
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import Any

import streamlit as st

from invdiff.config import WIDTHS
from invdiff.job import Outcome
from invdiff_app import spec, text
from invdiff_app.components import before_after, panels
from invdiff_app.jobs import Job
from invdiff_app.pictures import enlarged, png, shown, spread
from invdiff_app.running import estimate


def show(job: Job) -> None:
    """What has become of a job that is not active any more."""
    if job.state == "failed":
        st.error(job.message)
        return
    outcome: Outcome | None = job.result
    if job.state == "stopped":
        drawn = "" if outcome is None else text.STOPPED_KEPT.format(outcome.report["samples"], outcome.report["samples_asked"])
        st.info(text.STOPPED.format(drawn or (text.STOPPED_NOTHING if job.picture is not None else "")))
    if outcome is None:
        if job.picture is not None:
            estimate(job.picture)
        return
    worth(outcome.report)
    if "blur" in outcome.report:
        offer_width(job, outcome.report["blur"])
    for tab, draw in zip(st.tabs(text.TABS), (_before_after, _samples, _numbers, _repeat), strict=True):
        with tab:
            draw(job, outcome)
    _downloads(job, outcome)


def worth(report: dict[str, Any]) -> None:
    """What a restoration is worth, in words."""
    if strange := text.warning(report):
        st.warning(strange)
    first, *others = text.trust(report)
    st.markdown(first)
    for said in others:
        st.caption(said)


def offer_width(job: Job, blur: dict[str, Any]) -> None:
    """A button that gives the page the width that was estimated, where it would estimate it again with the next run."""
    ((name, width),) = blur["found"].items()
    slider = next(f"{operator}_{name}" for operator, key in WIDTHS.items() if key == name)
    box, value = f"{slider}_auto", round(width, 2)          # as exact as the slider
    if st.session_state.get(box):
        st.button(text.TAKE_WIDTH.format(value), key=f"width_{job.id}", on_click=_take_width, args=(slider, box, value))


def _take_width(slider: str, box: str, value: float) -> None:
    """Also in the address, where Streamlit puts no value of a slider that was not on the page."""
    st.session_state[slider], st.session_state[box] = value, False
    st.query_params[slider] = str(value)


def _before_after(job: Job, outcome: Outcome) -> None:
    from invdiff.evaluation.metrics import enlarged as to_size

    before = to_size(outcome.picture, outcome.result.mean.shape[-2:])
    before_after(enlarged(shown(before), 512), enlarged(shown(outcome.result.mean), 512),
                 (text.MEASURED, text.restored(outcome.several)), f"slider_{job.id}")


def _samples(job: Job, outcome: Outcome) -> None:
    result = outcome.result
    pictures = {text.restored(outcome.several): shown(result.mean)}
    captions = {}
    if outcome.several:
        pictures[text.SPREAD], top = spread(result.std[0])
        captions[text.SPREAD] = text.SPREAD_CAPTION.format(top)
    if outcome.provenance is not None:
        pictures[text.FILLED], top = spread(outcome.provenance.prior[0].abs())
        pictures[text.MEASURED_SHARE] = shown(outcome.provenance.measured)
        captions |= {text.FILLED: text.FILLED_CAPTION.format(top), text.MEASURED_SHARE: text.MEASURED_SHARE_CAPTION}
    if outcome.truth is not None:
        pictures[text.CLEAN] = shown(outcome.truth)
    if outcome.several:
        pictures |= {text.SAMPLE.format(i + 1): shown(sample) for i, sample in enumerate(result.samples[0])}
    panels(pictures, f"panels_{job.id}", captions)


def _numbers(job: Job, outcome: Outcome) -> None:
    report = outcome.report
    titles = text.rows(outcome.several)
    rows = {titles[name]: scores for name, scores in report["metrics"].items() if name in titles}
    if rows:
        st.table({"": list(rows), text.PSNR: [f"{row['psnr']:.2f}" for row in rows.values()],
                  text.SSIM: [f"{row['ssim']:.3f}" if "ssim" in row else "" for row in rows.values()]})
    else:
        st.write(text.NO_TRUTH)
    if "covered" in report["metrics"]:
        st.write(text.COVERED.format(report["metrics"]["covered"], report["interval"]["level"]))
    st.caption(text.cost(report))


def _repeat(job: Job, outcome: Outcome) -> None:
    repeat(outcome.config, job.about["given"])


def repeat(config: Any, ours: Container[str]) -> None:
    """The command line and the YAML of a config whose files have their users' names; `ours` are those that come with a
    download."""
    st.caption(text.COMMAND)
    st.code(spec.command_line(config), language="bash", wrap_lines=True)
    files = [value for value in (config.input, config.truth, config.operator.get("mask")) if value]
    if files:
        given = [name for name in files if name in ours]
        from_here = text.COMMAND_OURS.format(", ".join(given)) if given else ""
        st.caption(text.literal(text.COMMAND_FILES.format(", ".join(files)) + from_here))
    with st.expander(text.YAML):
        st.code(spec.as_yaml(config), language="yaml")


def _downloads(job: Job, outcome: Outcome) -> None:
    st.subheader(text.DOWNLOAD)
    with st.container(horizontal=True):
        st.download_button(text.DOWNLOAD_ALL, lambda: archive(outcome, job.about["given"]), f"{outcome.config.task}.zip",
                           "application/zip", key=f"zip_{job.id}", on_click="ignore")
        st.download_button(text.DOWNLOAD_PNG, png(shown(outcome.result.mean)), "restored.png", "image/png",
                           key=f"png_{job.id}", on_click="ignore")
        st.download_button(text.DOWNLOAD_H5, lambda: archive_file(outcome, "result.h5"), "result.h5", "application/x-hdf5",
                           key=f"h5_{job.id}", on_click="ignore")


def archive(outcome: Any, given: dict[str, bytes]) -> bytes:
    """The output folder, with the files that the app made for it, as a zip."""
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        saved = Path(folder) / "result"
        outcome.save(saved)
        for path in sorted(path for path in saved.rglob("*") if path.is_file()):
            file.write(path, path.relative_to(saved))
        for name, content in given.items():
            file.writestr(name, content)
    return buffer.getvalue()


def archive_file(outcome: Any, name: str) -> bytes:
    """One file of the output folder."""
    with tempfile.TemporaryDirectory() as folder:
        outcome.save(Path(folder) / "result")
        return (Path(folder) / "result" / name).read_bytes()
