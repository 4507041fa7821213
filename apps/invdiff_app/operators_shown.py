"""Which operators a task offers on the page, and the widget of each of their parameters; the defaults are the configs' own."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from invdiff.config import FOUND, WIDTHS
from invdiff_app import text

TASKS = {
    "deblur": ("gaussian_blur", "uniform_blur", "defocus_blur"), "motion-deblur": ("motion_blur",),
    "inpaint": ("random_inpainting", "row_inpainting", "box_inpainting", "half_inpainting", "mask_inpainting"),
    "sr": ("super_resolution", "bicubic_super_resolution", "gaussian_super_resolution"), "denoise": ("denoising",),
    "cs": ("compressed_sensing", "dct_sensing"),
}


@dataclass(frozen=True)
class Slider:
    low: float
    high: float
    step: float
    value: float


@dataclass(frozen=True)
class Pixels:
    """Whole pixels along an axis of the image (0: rows), from `low` up to its length; at first that share of it."""

    axis: int
    low: int
    share: float


@dataclass(frozen=True)
class Choice:
    options: tuple[Any, ...]


BOUNDARY = Choice(("auto", "circular", "reflect", "replicate", "zero", "valid"))
KEEP, PATTERN = Slider(0.05, 0.95, 0.05, 0.5), Slider(0, 20, 1, 0)
BOX = {"top": Pixels(0, 0, 1 / 4), "left": Pixels(1, 0, 1 / 4), "height": Pixels(0, 1, 3 / 8), "width": Pixels(1, 1, 3 / 8)}
PARAMETERS: dict[str, dict[str, Slider | Choice | Pixels]] = {
    "denoising": {},
    "gaussian_blur": {"sigma": Slider(0.4, 6.0, 0.01, 1.6), "boundary": BOUNDARY},
    "uniform_blur": {"size": Slider(3, 21, 2, 9), "boundary": BOUNDARY},
    "defocus_blur": {"radius": Slider(1.0, 10.0, 0.01, 3.0), "boundary": BOUNDARY},
    "motion_blur": {"size": Slider(5, 41, 2, 21), "intensity": Slider(0.0, 1.0, 0.1, 0.5), "seed": PATTERN,
                    "boundary": BOUNDARY},
    "random_inpainting": {"keep": KEEP, "seed": PATTERN},
    "row_inpainting": {"keep": KEEP, "seed": PATTERN},
    "box_inpainting": BOX,
    "half_inpainting": {"missing": Choice(("right", "left", "top", "bottom"))},
    "mask_inpainting": {},
    "super_resolution": {"factor": Choice((2, 4, 8))},
    "bicubic_super_resolution": {"factor": Choice((2, 4, 8))},
    "gaussian_super_resolution": {"factor": Choice((2, 4, 8))},
    "compressed_sensing": {"rate": Slider(0.05, 1.0, 0.05, 0.25), "seed": PATTERN},
    "dct_sensing": {"rate": Slider(0.05, 1.0, 0.05, 0.25), "seed": PATTERN},
}


def parameters(operator: str, size: tuple[int, int], measured: bool) -> dict[str, Any]:
    """A widget for each parameter, and what they are set to. size: (H, W) of the image, which a box stays within. measured: it
    is a measurement, which may tell a blur's width."""
    values: dict[str, Any] = {}
    for name, kind in PARAMETERS[operator].items():
        label, key = text.PARAMETERS[name], f"{operator}_{name}"
        if isinstance(kind, Choice):
            values[name] = st.selectbox(label, kind.options, key=key, bind="query-params", help=text.HELP.get(name))
        elif isinstance(kind, Pixels):
            values[name] = _pixels(label, kind, size[kind.axis], key)
        elif measured and name == WIDTHS.get(operator) and st.checkbox(text.WIDTH_AUTO, key=f"{key}_auto", bind="query-params",
                                                                       help=text.WIDTH_AUTO_HELP):
            values[name] = FOUND
        else:
            values[name] = st.slider(label, kind.low, kind.high, kind.value, kind.step, key=key, bind="query-params")
    if operator == "box_inpainting":
        values["height"] = min(values["height"], size[0] - values["top"])
        values["width"] = min(values["width"], size[1] - values["left"])
    return values


def _pixels(label: str, kind: Pixels, length: int, key: str) -> int:
    """Each length has a slider of its own, for a value from a longer one may lie beyond its end."""
    high = length - 1 + kind.low            # a first row is one of the image's, a height may be all of it
    if high == kind.low:
        return kind.low
    return st.slider(label, kind.low, high, max(int(kind.share * length), kind.low), key=f"{key}_{length}", bind="query-params")
