"""Small pieces of the page that Streamlit has not: a before/after slider, pictures that zoom together, a brush for masks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from invdiff_app import text
from invdiff_app.pictures import data_url

_HERE = Path(__file__).parent


@st.cache_resource(show_spinner=False)
def _component(name: str):
    html, css, js = ((_HERE / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return st.components.v2.component(f"invdiff_{name}", html=html, css=css, js=js)


def before_after(before: np.ndarray, after: np.ndarray, labels: tuple[str, str], key: str) -> None:
    """Two pictures of one size and shape, uint8, parted by a line."""
    data = {"before": data_url(before), "after": data_url(after), "before_label": labels[0], "after_label": labels[1],
            "label": text.SLIDER}
    _component("before_after")(data=data, key=key)


def panels(pictures: Mapping[str, np.ndarray], key: str, captions: Mapping[str, str] | None = None, least: int = 170) -> None:
    """Pictures by title, side by side, each at least `least` pixels wide where the page is wide enough."""
    captions = captions or {}
    shown = [{"title": title, "src": data_url(pixels), "caption": captions.get(title, "")}
             for title, pixels in pictures.items()]
    data = {"panels": shown, "least": least, "label": text.ZOOM, "hint": text.ZOOM_HINT, "whole": text.ZOOM_WHOLE,
            "zoom_in": text.ZOOM_IN, "zoom_out": text.ZOOM_OUT}
    _component("panels")(data=data, key=key)


def draw_mask(picture: np.ndarray, strokes: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The strokes of a brush over the picture, as `pictures.without` takes them; those given are there to begin with."""
    height, width = picture.shape[:2]
    data = {"image": data_url(picture), "height": height, "width": width, "strokes": strokes, "label": text.DRAW,
            "brush": text.BRUSH, "undo": text.UNDO, "clear": text.CLEAR}
    result = _component("draw_mask")(data=data, key=key, on_strokes_change=lambda: None)
    return strokes if result.strokes is None else result.strokes
