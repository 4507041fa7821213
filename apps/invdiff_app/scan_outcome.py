"""A reconstructed scan on the page."""

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from invdiff_app import text
from invdiff_app import text_mri as words
from invdiff_app.components import panels
from invdiff_app.jobs import Job
from invdiff_app.outcome import archive, repeat, worth
from invdiff_app.pictures import overlay, spread, windowed


def show(job: Job) -> None:
    """Window, overlay, the pictures, their scores, and the files."""
    from invdiff.mri.scoring import estimates
    from invdiff.mri.uncertainty import magnitudes

    made = job.result
    if job.state == "stopped":
        kept = text.STOPPED_KEPT.format(made.report["samples"], made.report.get("samples_asked", made.config.samples))
        st.info(text.STOPPED.format(kept))
    st.caption(words.NOTICE)
    worth(made.report)
    tensors = next(iter(made.slices))[0]
    images = estimates(tensors)
    top = float(images["restored"].max()) or 1.0
    low, high = st.slider(words.WINDOW, 0.0, 1.0, (0.0, 0.8), 0.02, key="window", bind="query-params",
                          help=words.WINDOW_UNIT)
    several = len(tensors["samples"]) > 1
    share = st.slider(words.OVERLAY, 0.0, 1.0, 0.0, 0.05, key="overlay", bind="query-params") if several else 0.0
    pictures, captions = {}, {}
    for name, title in _titles(images, several).items():
        pictures[title] = windowed(_tensor(images[name]), low * top, high * top)
        captions[title] = _scores(made.report["metrics"], name)
    if several:
        colours, most = spread(magnitudes(tensors["samples"])[1][None])
        pictures[words.RESTORED] = overlay(pictures[words.RESTORED], colours, share) if share else pictures[words.RESTORED]
        pictures[words.SPREAD], captions[words.SPREAD] = colours, words.SPREAD_CAPTION.format(most / top)
    if "prior_part" in tensors:
        pictures[text.FILLED], most = spread(tensors["prior_part"][None])
        captions[text.FILLED] = words.FILLED_CAPTION.format(most / top)
    if "truth" in tensors:
        pictures[words.TRUTH] = windowed(tensors["truth"], low * top, high * top)
    panels(pictures, f"scan_{job.id}", captions, least=190)
    if "covered" in made.report["metrics"]:
        st.write(words.COVERED.format(made.report["metrics"]["covered"], made.report["interval"]["level"]))
    _downloads(job, made)
    repeat(made.config, job.about["given"])


def _tensor(image: Any) -> Any:
    import torch

    return torch.as_tensor(image)


def _titles(images: dict[str, Any], several: bool) -> dict[str, str]:
    """In the order they are shown; a single sample is what is restored."""
    classical = {name: words.BASELINES[name].capitalize() if name != "sense" else words.BASELINES[name]
                 for name in images if name in words.BASELINES and name != "zero_filled"}
    sample = {"sample": words.SAMPLE} if several else {}
    return {"zero_filled": words.ZERO_FILLED, **classical, "restored": words.RESTORED, **sample}


def _scores(metrics: dict[str, Any], name: str) -> str:
    found = metrics.get("measurement" if name == "zero_filled" else name) or metrics.get("baselines", {}).get(name)
    return words.SCORES.format(found["psnr"], found["ssim"]) if found else ""


def _downloads(job: Job, made: Any) -> None:
    st.subheader(words.DOWNLOAD)
    with st.container(horizontal=True):
        files: list[tuple[str, Callable[[], bytes], str, str]] = [
            (words.DOWNLOAD_ALL, lambda: archive(made, job.about["given"]), "mri.zip", "application/zip"),
            (words.DOWNLOAD_NIFTI, lambda: _one(made, "magnitude.nii.gz"), "magnitude.nii.gz", "application/gzip"),
            (words.DOWNLOAD_DICOM, lambda: _series(made), "dicom.zip", "application/zip"),
            (words.DOWNLOAD_H5, lambda: _one(made, "result.h5"), "result.h5", "application/x-hdf5"),
        ]
        for label, make, name, mime in files:
            st.download_button(label, make, name, mime, key=f"{name}_{job.id}", on_click="ignore")


def _one(made: Any, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder) / "result")
        return (Path(folder) / "result" / name).read_bytes()


def _series(made: Any) -> bytes:
    """The folders of DICOM files."""
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        made.save(Path(folder) / "result")
        for path in sorted((Path(folder) / "result").glob("dicom-*/*.dcm")):
            file.write(path, path.relative_to(Path(folder) / "result"))
    return buffer.getvalue()
