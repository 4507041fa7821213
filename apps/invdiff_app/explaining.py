"""The page on diffusion itself: one idea at a time, its equation, and a figure that the library draws as one asks for it."""

import io
import threading
from typing import Any

import streamlit as st

from invdiff_app import text_explained as text

_DRAWING = threading.Lock()         # matplotlib's settings are one for all threads


def page() -> None:
    st.title(text.TITLE)
    st.caption(text.ABOUT)
    idea = st.selectbox(text.IDEA, list(text.IDEAS), format_func=lambda name: text.IDEAS[name].title, key="idea",
                        bind="query-params")
    about = text.IDEAS[idea]
    left, right = st.columns([2, 5], gap="large")
    with left:
        st.subheader(about.title)
        for part in about.parts:
            (st.latex if part.startswith("\\") else st.markdown)(part.removeprefix("\\displaystyle "))
        options = _options(idea)
    with right:
        with st.spinner(text.DRAWING):
            picture = drawn(idea, **options)
        st.image(picture, width="stretch", alt=about.alt)
        st.caption(_caption(idea))
        st.download_button(text.DOWNLOAD, picture, f"{idea}.png", "image/png", on_click="ignore")
        said, language = repeated(idea, options)
        st.code(said, language=language, wrap_lines=True)


def _options(idea: str) -> dict[str, Any]:
    """The figure's own settings, at first those that the library gives it."""
    own = _own(idea)

    def levels(low: float, high: float) -> tuple[float, ...]:
        largest = max(own["sigmas"])
        top = st.slider(text.TIME, low, high, largest, low, key=f"{idea}_level", bind="query-params")
        return tuple(round(sigma * top / largest, 4) for sigma in own["sigmas"])

    def seed() -> int:
        return int(st.number_input(text.SEED, 0, 999, own["seed"], key=f"{idea}_seed", bind="query-params"))

    if idea == "forward":
        return {"sigmas": levels(0.05, 5.0), "seed": seed()}
    if idea == "reverse":
        steps = st.slider(text.STEPS, 8, 60, own["steps"], key="reverse_steps", bind="query-params")
        left = st.slider(text.TIME_LEFT, 0.0, 1.0, 0.0, 0.05, key="reverse_left", bind="query-params")
        return {"steps": steps, "left": left, "seed": seed()}
    if idea == "score_field":
        return {"sigmas": levels(0.02, 0.6)}
    if idea == "sde_and_ode":
        return {"paths": st.slider(text.PATHS, 2, 20, own["paths"], key="paths", bind="query-params"), "seed": seed()}
    if idea == "samplers":
        most = st.select_slider(text.CALLS, own["budgets"], own["budgets"][-1], key="calls", bind="query-params")
        return {"budgets": tuple(calls for calls in own["budgets"] if calls <= most), "seed": seed()}
    if idea == "guidance":
        scale = st.slider(text.SCALE, 2.5, 8.0, own["scales"][-1], 0.5, key="scale", bind="query-params")
        return {"scales": (0.0, 1.0, scale / 2, scale), "seed": seed()}
    return {}


@st.cache_data(max_entries=40, show_spinner=False)
def drawn(idea: str, **options: Any) -> bytes:
    """The figure as a PNG, by the library's own code."""
    from matplotlib import rc_context

    from invdiff.illustrations.gallery import draw
    from invdiff.illustrations.style import STYLE

    buffer = io.BytesIO()
    with _DRAWING, rc_context(STYLE):
        draw(idea, **options).savefig(buffer, format="png", dpi=170)
    return buffer.getvalue()


def _own(idea: str) -> dict[str, Any]:
    """The figure's settings in the library, by name."""
    from inspect import signature

    from invdiff.illustrations.gallery import FIGURES

    return {name: parameter.default for name, parameter in signature(FIGURES[idea]).parameters.items()}


def repeated(idea: str, options: dict[str, Any]) -> tuple[str, str]:
    """What draws the figure elsewhere, and its language: the command line, or Python for settings that it has not."""
    own = _own(idea)
    changed = {name: value for name, value in options.items() if value != own[name]}
    if changed.keys() <= {"seed"}:
        return " ".join(["invdiff figures", idea, *(f"--seed {seed}" for seed in changed.values())]), "bash"
    given = ", ".join([repr(idea), *(f"{name}={value!r}" for name, value in changed.items())])
    return text.PYTHON.format(given, idea), "python"


def _caption(idea: str) -> str:
    from invdiff.illustrations.captions import CAPTIONS

    return CAPTIONS[idea]
