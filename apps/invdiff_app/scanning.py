"""The page on MRI: a scan, a mask over it, and what is made of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from invdiff_app import spec, text
from invdiff_app import text_mri as words
from invdiff_app.choosing import plain_name, read_picture, reworded
from invdiff_app.guard import guarded
from invdiff_app.jobs import Job
from invdiff_app.session import current_job, keep_file, start

MEGABYTES = 300
LARGEST_GRID = 640 * 640            # pixels of a slice
COILS_SHOWN = 8


def page() -> None:
    st.title(words.TITLE)
    st.warning(words.NOTICE)
    st.caption(words.ABOUT)
    left, right = st.columns([1, 2], gap="large")
    with left:
        own, chosen = _choose_scan()
        scan = None
        with guarded(), st.spinner(text.STARTING):
            scan = chosen and _scan(chosen[0])
        given = _choose_settings(scan, own)
    with right:
        job = current_job("mri")
        if job is not None:
            from invdiff_app import running, scan_outcome

            running.show(job, scan_outcome.show)
        if chosen and scan:
            with guarded():
                _prepare(scan, *chosen, given, job)


def _choose_scan() -> tuple[bool, tuple[Path | None, str] | None]:
    """Whether the scan is the user's; once there is one, its path (None for the command line's own) and its name for them."""
    from invdiff.paths import bundled

    source = st.selectbox(words.SOURCE, list(words.SOURCES), format_func=words.SOURCES.__getitem__, key="scan",
                          bind="query-params")
    st.caption(words.SOURCE_NOTES[source])
    if source == "phantom":
        return False, (None, "")
    if source == "head":
        return False, (bundled("data", "samples", "head.h5"), "data/samples/head.h5")
    upload = st.file_uploader(words.UPLOAD, key="scan_file", max_upload_size=MEGABYTES, help=words.PRIVATE)
    if upload is None:
        st.caption(words.UPLOAD_FIRST)
        return True, None
    return True, (keep_file(upload.name, upload.getvalue()), plain_name(upload.name))


def _scan(path: Path | None) -> Any:
    """Raises InputError."""
    from invdiff.errors import InputError
    from invdiff.io.scans import open_scan
    from invdiff.paths import bundled

    path = path or bundled("data", "samples", "phantom.h5")
    try:
        scan = open_scan(path)
    except InputError as error:
        raise reworded(error, path, read_picture, words.IS_PICTURE, words.UPLOAD) from error
    if scan.size[0] * scan.size[1] > LARGEST_GRID:
        raise InputError(text.TOO_LARGE.format(scan.size[1], scan.size[0], 640, 640))
    return scan


def _choose_settings(scan: Any | None, own: bool) -> dict[str, Any]:
    """Slice, mask and method, by dotted key; also while the scan is awaited, so that none changes meanwhile."""
    number = 0
    if scan:
        st.caption(words.ABOUT_SCAN.format(scan.format, *scan.size, scan.slices, scan.coils))
        if scan.slices > 1:
            number = st.slider(words.SLICE, 0, scan.slices - 1, scan.slices // 2, key="slice", bind="query-params")
    operator: dict[str, Any] = {"name": "mri", "acceleration": 1.0}
    whole = own and st.checkbox(words.FULL, key="as_it_is", bind="query-params")
    if whole:
        operator["acceleration"] = None
    else:
        operator["acceleration"] = st.slider(words.ACCELERATION, 2.0, 12.0, 4.0, 0.5, key="acceleration", bind="query-params")
        operator["pattern"] = st.selectbox(words.PATTERN, list(words.PATTERNS), format_func=words.PATTERNS.__getitem__,
                                           key="pattern", bind="query-params")
        operator["mask_seed"] = st.slider(words.MASK_SEED, 0, 20, 0, key="mask_seed", bind="query-params")
    with st.expander(words.METHOD, expanded=True):
        steps = st.slider(words.STEPS, 2, 60, 20, key="mri_steps", bind="query-params")
        samples = st.slider(words.SAMPLES, 1, 8, 4, key="mri_samples", bind="query-params")
        baseline = st.selectbox(words.BASELINE, list(words.BASELINES), format_func=words.BASELINES.__getitem__, key="baseline",
                                bind="query-params")
        seed = st.number_input(words.SEED, 0, 2**31, 0, key="mri_seed", bind="query-params")
    return {"operator": operator, "slices": [number, number], "samples": samples, "seed": int(seed),
            "sampler.steps": steps,
            "baselines": [] if baseline == "zero_filled" else [baseline], "write": ["nifti", "dicom", "fastmri", "montage"]}


def _prepare(scan: Any, path: Path | None, name: str, given: dict[str, Any], job: Job | None) -> None:
    """k-space, mask and coils of these settings, how to say them elsewhere, and the button."""
    from invdiff_app.components import panels
    from invdiff_app.outcome import repeat
    from invdiff_app.scan_views import coil_pictures, kspace_pictures

    config = spec.resolve("mri", given if path is None else given | {"input": str(path)})
    names = {} if path is None else {str(path): name}
    busy = job is not None and job.active
    pictures, captions = kspace_pictures(scan, config)
    if st.button(words.START, type="primary", key="reconstruct", disabled=busy):
        files = {name.replace("/", "-"): path for path, name in names.items()}
        start(lambda job: _run(job, config, names), {"page": "mri", "given": {}},
              {name: Path(path) for name, path in files.items()})
    panels(pictures, "kspace", captions, least=200)
    if st.toggle(words.COILS, key="coils", bind="query-params"):
        st.caption(words.COILS_NOTE)
        panels(_remembered("_coils", config, lambda: coil_pictures(scan, config, COILS_SHOWN)), "coil_panels", least=110)
    repeat(spec.named(config, names))


def _remembered(key: str, config: Any, make: Any) -> Any:
    """Made anew when operator, slice or file have changed."""
    known = json.dumps([config.operator, config.slices, config.input])
    if st.session_state.get(key, ("",))[0] != known:
        st.session_state[key] = (known, make())
    return st.session_state[key][1]


def _run(job: Job, config: Any, names: dict[str, str]) -> Any:
    """In the worker: the same as `invdiff restore --task mri`, on the job's copy of the file."""
    from invdiff.job import run

    copies = {path: name.replace("/", "-") for path, name in names.items()}
    made = run(spec.inside(config, job.folder, copies), job.on_step)
    called = spec.named(config, names)
    return replace(made, config=called, report=made.report | {"config": called.model_dump(mode="json")})
