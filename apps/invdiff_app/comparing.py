"""The page that sets samplers side by side on one measurement."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from invdiff_app import spec, text
from invdiff_app import text_compare as words
from invdiff_app.choosing import choose_operator, choose_picture
from invdiff_app.guard import guarded
from invdiff_app.jobs import Job
from invdiff_app.session import current_job, start

MOST = 6                        # runs
STEPS = (5, 10, 20, 30, 60, 100)
FIRST = ["moment_matching", "diffpir"]


@dataclass
class Comparison:
    """Finished runs by label, those refused, with their sentence, and those that were cut short or not begun; the entry of a
    report on a blur's width, where that was estimated for all."""

    outcomes: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    blur: dict[str, Any] = field(default_factory=dict)


def page() -> None:
    st.title(words.TITLE)
    st.caption(words.ABOUT)
    left, right = st.columns([1, 2], gap="large")
    with left:
        picture = choose_picture()
        with st.spinner(text.STARTING):
            import invdiff.job  # noqa: F401
        task, given = choose_operator(picture)
        runs = _choose_runs()
    with right:
        job, above, settings = current_job("compare"), st.container(), None
        if not picture.awaited and runs and not (job and job.active):
            with guarded():
                settings = _prepare(picture, task, given, runs)
        if job is not None:
            from invdiff_app import running

            with above:
                running.show(job, lambda job: _show(job, job.result), settings)


def _choose_runs() -> list[dict[str, Any]]:
    """Sampler and steps of each run, and how many samples."""
    from invdiff.config import SAMPLERS

    offered = [name for name in text.SAMPLERS if name in SAMPLERS]
    names = st.multiselect(words.SAMPLERS, offered, FIRST, format_func=text.SAMPLERS.__getitem__, key="samplers",
                           bind="query-params")
    steps = st.multiselect(words.STEPS, STEPS, [10, 30], key="compare_steps", bind="query-params")
    samples = st.slider(words.SAMPLES, 1, 4, 2, key="compare_samples", bind="query-params")
    runs = [{"sampler.name": name, "sampler.steps": count, "samples": samples} for name in names for count in sorted(steps)]
    if not runs:
        st.info(words.CHOOSE)
    elif len(runs) > MOST:
        st.info(words.TOO_MANY.format(len(runs), MOST))
    else:
        st.caption(words.RUNS.format(len(runs), sum(run["sampler.steps"] for run in runs)))
        return runs
    return []


def sampler_of(config: Any) -> str:
    return text.sampler(config.sampler["name"])


def label(config: Any) -> str:
    return words.LABEL.format(sampler_of(config), config.sampler["steps"])


def _prepare(picture: Any, task: str, given: dict[str, Any], runs: list[dict[str, Any]]) -> Any:
    """As the page Restore's."""
    from invdiff_app import preview
    from invdiff_app.restoring import complete, title

    if not complete(picture, given):
        return None
    configs = [spec.resolve(task, given | run) for run in runs]
    seen = preview.preview_of(configs[0])
    names = dict(picture.names)
    settings = [spec.settings(config, names) for config in configs]
    files_given = {name: path.read_bytes() for name, path in picture.given.items()}
    if st.button(words.START, type="primary", key="compare"):
        about = {"page": "compare", "given": files_given, "title": title(spec.named(configs[0], names)), "settings": settings}
        files = {name: Path(path) for path, name in names.items()}
        start(lambda job: run_all(job, configs, names), about, files)
    preview.show(seen)
    _commands([spec.named(config, names) for config in configs], files_given, "commands")
    return settings


def _commands(configs: list[Any], given: dict[str, bytes], key: str) -> None:
    """The same on the command line, and the files for it that came from here."""
    with st.expander(words.COMMANDS):
        st.code("\n".join(spec.command_line(config, _folder(config)) for config in configs), language="bash",
                wrap_lines=True)
        for name, content in given.items():
            st.download_button(words.FILE.format(text.literal(name)), content, name, key=f"{key}_{name}", on_click="ignore")


def _folder(config: Any) -> str:
    """One for each run: by default all of a task write into the same."""
    return f"restored/{config.task}-{config.sampler['name']}-{config.sampler['steps']}"


def run_all(job: Job, configs: list[Any], names: dict[str, str]) -> Comparison:
    """In the worker: one run after the other; a sampler that cannot take the operator is left out, with its reason."""
    from invdiff import Stop

    made = Comparison()
    with suppress(Stop):
        _run_each(job, configs, names, made)
    made.missing = [name for name in map(label, configs) if name not in made.outcomes | made.refused]
    return made


def _run_each(job: Job, configs: list[Any], names: dict[str, str], made: Comparison) -> None:
    """Into `made`, with the same width of the blur for all. Raises InputError where none can be estimated."""
    from invdiff.blind import with_width
    from invdiff.errors import InputError
    from invdiff.priors import load_prior

    load, steps = cache(load_prior), [_steps(config) for config in configs]
    made.blur = with_width(spec.inside(configs[0], job.folder, names), load, job.on_width)[1].get("blur", {})
    for place, config in enumerate(configs):
        known = config.model_copy(update={"operator": config.operator | made.blur.get("found", {})})
        try:
            made.outcomes[label(config)] = _run(job, known, names, load, sum(steps[place + 1 :]))
        except InputError as error:
            made.refused[label(config)] = text.sentence(error)


def _steps(config: Any) -> int:
    """Of a run: a population takes its steps together."""
    from invdiff.config import SAMPLERS

    return config.sampler["steps"] * (1 if SAMPLERS[config.sampler["name"]].population else config.samples)


def _run(job: Job, config: Any, names: dict[str, str], load: Callable[[str], Any], after: int) -> Any:
    """One run, with `after` steps of others to come. Raises Stop also with a part of its samples, which would be compared with
    all of another's."""
    from invdiff import Stop
    from invdiff.job import run

    before = job.done
    job.prepare()
    outcome = run(spec.inside(config, job.folder, names), lambda progress: job.on_step(progress, before, after), load=load)
    if outcome.report["samples"] < config.samples:
        raise Stop
    return replace(outcome, config=spec.named(config, names))


def _show(job: Job, made: Comparison) -> None:
    """What is missing, the table, the plot and the pictures."""
    from invdiff_app.components import panels
    from invdiff_app.outcome import offer_width
    from invdiff_app.pictures import shown

    if made.missing:
        st.info(text.STOPPED.format(words.MISSING.format("; ".join(made.missing))))
    for name, reason in made.refused.items():
        st.info(words.REFUSED.format(name, reason))
    if made.blur:
        st.markdown(made.blur["words"])
        offer_width(job, made.blur)
    if not made.outcomes:
        return
    rows = [_row(outcome) for outcome in made.outcomes.values()]
    st.table({title: [row[i] for row in rows] for i, title in enumerate(words.COLUMNS)})
    first = next(iter(made.outcomes.values()))
    for note in _notes(made):
        st.caption(note)
    if first.truth is not None:
        _plot(made)
    pictures = {words.MEASURED: shown(first.picture)}
    if first.truth is not None:
        pictures[words.CLEAN] = shown(first.truth)
    captions = {}
    for name, outcome in made.outcomes.items():
        pictures[name] = shown(outcome.result.mean)
        if outcome.truth is not None:
            captions[name] = f"{outcome.report['metrics']['restored']['psnr']:.2f} dB"
    panels(pictures, f"compare_{job.id}", captions)
    _commands([outcome.config for outcome in made.outcomes.values()], job.about["given"], f"commands_{job.id}")


def _notes(made: Comparison) -> list[str]:
    """How to read the table."""
    first = next(iter(made.outcomes.values()))
    notes = [words.COLUMNS_NOTE, words.RESIDUAL_NOTE if first.report["residual"]["expected"] else words.RESIDUAL_NOISELESS]
    if first.truth is not None:
        notes.append(words.SCORED_MEAN if first.several else words.SCORED_ONE)
    if any(outcome.config.sampler["name"] == "red_diff" for outcome in made.outcomes.values()):
        notes.append(words.POINT)
    return notes


def _row(outcome: Any) -> list[str]:
    report, config = outcome.report, outcome.config
    scores, residual = report["metrics"].get("restored", {}), report["residual"]["value"]
    return [sampler_of(config), str(config.sampler["steps"]), _costs(report), f"{report['seconds']:.1f}",
            f"{scores['psnr']:.2f}" if scores else "", f"{scores['ssim']:.3f}" if "ssim" in scores else "",
            f"{residual:.2f}" if residual >= 0.1 else f"{residual:.0e}"]


def _costs(report: dict[str, Any]) -> str:
    calls, gradients = report["network_calls"], report["network_gradients"]
    return f"{calls:g} + {gradients:g}" if gradients else f"{calls:g}"


def _plot(made: Comparison) -> None:
    import altair
    import pandas

    several = next(iter(made.outcomes.values())).several
    score = words.PLOT_MEAN if several else words.PLOT_ONE
    data = pandas.DataFrame([
        {words.PASSES: outcome.report["network_calls"] + outcome.report["network_gradients"],
         score: outcome.report["metrics"]["restored"]["psnr"], words.COLUMNS[0]: sampler_of(outcome.config)}
        for outcome in made.outcomes.values()])
    st.subheader(words.PLOT)
    numbers = altair.Axis(format=".4~g")            # of a single run, Vega's own have six decimals
    base = altair.Chart(data).encode(
        altair.X(words.PASSES, axis=numbers, scale=altair.Scale(zero=False)),
        altair.Y(score, axis=numbers, scale=altair.Scale(zero=False, padding=12)),
        altair.Color(words.COLUMNS[0], scale=altair.Scale(scheme="tableau10")))
    points = base.mark_point(filled=True, size=70).encode(altair.Shape(words.COLUMNS[0]))
    st.altair_chart((base.mark_line() + points).properties(height=280), width="stretch")
    st.caption(words.PLOT_ALT)
