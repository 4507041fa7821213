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
        st.code(f"invdiff figures {idea}", language="bash")


def _options(idea: str) -> dict[str, Any]:
    """The figure's own settings."""
    def level(label: str, low: float, high: float, value: float) -> float:
        return st.slider(label, low, high, value, low, key=f"{idea}_level", bind="query-params")

    def seed() -> int:
        return int(st.number_input(text.SEED, 0, 999, 0, key=f"{idea}_seed", bind="query-params"))

    if idea == "forward":
        top = level(text.TIME, 0.05, 5.0, 1.5)
        return {"sigmas": (0.0, top / 8, top / 4, top / 2, top), "seed": seed()}
    if idea == "reverse":
        steps = st.slider(text.STEPS, 8, 60, 24, key="reverse_steps", bind="query-params")
        left = st.slider(text.TIME_LEFT, 0.0, 1.0, 0.0, 0.05, key="reverse_left", bind="query-params")
        return {"steps": steps, "left": left, "images": 2, "seed": seed()}
    if idea == "score_field":
        top = level(text.TIME, 0.02, 0.6, 0.3)
        return {"sigmas": (top, top / 2, top / 4, top / 8)}
    if idea == "sde_and_ode":
        return {"paths": st.slider(text.PATHS, 2, 20, 10, key="paths", bind="query-params"), "seed": seed()}
    if idea == "samplers":
        calls = st.select_slider(text.CALLS, (5, 9, 17, 33, 65), 17, key="calls", bind="query-params")
        return {"budgets": (5, calls) if calls > 5 else (5,), "seed": seed()}
    if idea == "guidance":
        scale = st.slider(text.SCALE, 1.5, 8.0, 3.0, 0.5, key="scale", bind="query-params")
        return {"scales": (0.0, 1.0, scale), "seed": seed()}
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


def _caption(idea: str) -> str:
    from invdiff.illustrations.captions import CAPTIONS

    return CAPTIONS[idea]
