"""The page on MRI: a scan, a mask over it, and what is made of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from invdiff_app import spec, text
from invdiff_app import text_mri as words
from invdiff_app.choosing import plain_name, read_picture, reworded
from invdiff_app.guard import guarded
from invdiff_app.jobs import Job
from invdiff_app.session import current_job, keep_file, remembered, start

MEGABYTES = 300
LARGEST_GRID = 640 * 640            # pixels of a slice
COILS_SHOWN = 8
FEW_STEPS = 10                      # from which on the task's own covariance is the better one


def page() -> None:
    st.title(words.TITLE)
    st.warning(words.NOTICE)
    st.caption(words.ABOUT)
    left, right = st.columns([1, 2], gap="large")
    with left:
        source, chosen = _choose_scan()
        scan = None
        with guarded(), st.spinner(text.STARTING):
            scan = chosen and _scan(chosen[0])
        given = _choose_settings(scan, source == "upload")
    with right:
        job, above, settings = current_job("mri"), st.container(), None
        if chosen and scan:
            with guarded():
                settings = _prepare(scan, *chosen, source == "head", given, job)
        if job is not None:
            from invdiff_app import running, scan_outcome

            with above:
                running.show(job, scan_outcome.show, settings)


def _choose_scan() -> tuple[str, tuple[Path | None, str] | None]:
    """Where the scan is from; once there is one, its path (None for the command line's own) and its name for the user."""
    from invdiff.paths import bundled

    source = st.selectbox(words.SOURCE, list(words.SOURCES), format_func=words.SOURCES.__getitem__, key="scan",
                          bind="query-params")
    st.caption(words.SOURCE_NOTES[source])
    if source == "phantom":
        return source, (None, "")
    if source == "head":
        return source, (bundled("data", "samples", "head.h5"), "head.h5")
    upload = st.file_uploader(words.UPLOAD, key="scan_file", max_upload_size=MEGABYTES, help=words.PRIVATE)
    if upload is None:
        st.caption(words.UPLOAD_FIRST)
        return source, None
    return source, (keep_file(upload.name, upload.getvalue()), plain_name(upload.name))


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
    operator: dict[str, Any] = {"name": "mri", "acceleration": None}
    if not (own and _as_it_is(scan, number)):
        operator["acceleration"] = st.slider(words.ACCELERATION, 2.0, 12.0, 4.0, 0.5, key="acceleration", bind="query-params")
        operator["pattern"] = st.selectbox(words.PATTERN, list(words.PATTERNS), format_func=words.PATTERNS.__getitem__,
                                           key="pattern", bind="query-params")
        operator["mask_seed"] = st.slider(words.MASK_SEED, 0, 20, 0, key="mask_seed", bind="query-params")
    with st.expander(words.METHOD, expanded=True):
        steps = st.slider(words.STEPS, 2, 60, 20, key="mri_steps", bind="query-params")
        local = steps < FEW_STEPS and st.checkbox(words.LOCAL, True, key="local", bind="query-params")
        samples = st.slider(words.SAMPLES, 1, 8, 4, key="mri_samples", bind="query-params")
        baseline = st.selectbox(words.BASELINE, list(words.BASELINES), format_func=words.BASELINES.__getitem__, key="baseline",
                                bind="query-params")
        seed = st.number_input(words.SEED, 0, 2**31, 0, key="mri_seed", bind="query-params")
    return {"operator": operator, "slices": [number, number], "samples": samples, "seed": int(seed),
            "sampler.steps": steps, **({"sampler.covariance": "local"} if local else {}),
            "baselines": [] if baseline == "zero_filled" else [baseline], "write": ["nifti", "dicom", "fastmri", "montage"]}


def _as_it_is(scan: Any | None, number: int) -> bool:
    """Whether no mask is to be put over the user's scan; over one that is undersampled already none can be."""
    from invdiff_app.scan_views import undersampled

    there = remembered("_undersampled", (str(scan.path), number), lambda: undersampled(scan, number)) if scan else None
    if there is None:
        return st.checkbox(words.FULL, key="as_it_is", bind="query-params")
    st.checkbox(words.FULL, True, key="as_it_must_be", disabled=True)
    st.caption(words.UNDERSAMPLED.format(there))
    return True


def _prepare(scan: Any, path: Path | None, name: str, ours: bool, given: dict[str, Any], job: Job | None) -> Any:
    """k-space, mask and coils of these settings, how to say them elsewhere, and the button. ours: the file is not the user's,
    who is given it. The settings as a job keeps them."""
    from invdiff_app.components import panels
    from invdiff_app.outcome import repeat
    from invdiff_app.scan_views import coil_pictures, kspace_pictures

    config = spec.resolve("mri", given if path is None else given | {"input": str(path)})
    names = {} if path is None else {str(path): name}
    busy = job is not None and job.active
    settings = spec.settings(config, names)
    pictures, captions = kspace_pictures(scan, config)
    if st.button(words.START, type="primary", key="reconstruct", disabled=busy):
        files = {name: Path(path) for path, name in names.items()}
        about = {"page": "mri", "given": {name: path.read_bytes() for name, path in files.items() if ours},
                 "title": _title(name, config), "settings": settings}
        start(lambda job: _run(job, config, names), about, files)
    panels(pictures, "kspace", captions, least=200)
    if st.toggle(words.COILS, key="coils", bind="query-params"):
        st.caption(words.COILS_NOTE)
        about = config.model_dump_json(include={"operator", "slices", "input"})
        panels(remembered("_coils", about, lambda: coil_pictures(scan, config, COILS_SHOWN)), "coil_panels", least=110)
    repeat(spec.named(config, names), [name] if ours else [])
    return settings


def _title(name: str, config: Any) -> str:
    """What a job is of, briefly: file, slice and mask."""
    operator = config.operator
    mask = words.AS_IT_IS if operator["acceleration"] is None else words.MASKED.format(operator["acceleration"],
                                                                                      words.PATTERNS[operator["pattern"]])
    return words.RESULT.format(name or words.SOURCES["phantom"], config.slices[0], mask)


def _run(job: Job, config: Any, names: dict[str, str]) -> Any:
    """In the worker: the same as `invdiff restore --task mri`, on the job's copy of the file."""
    from invdiff.job import run

    job.prepare()
    made = run(spec.inside(config, job.folder, names), job.on_step)
    called = spec.named(config, names)
    return replace(made, config=called, report=made.report | {"config": called.model_dump(mode="json")})
