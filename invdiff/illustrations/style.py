"""How all figures look: sizes in inches as printed, one map for densities, few colours, which colour-blind readers can tell."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH = 7.0             # inches, of a page's text
INK, MUTED, FAINT = "#1b1b1b", "#6a6a6a", "#b5b5b5"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"   # Okabe & Ito
ON_DENSITY = (VERMILION, GREEN, INK)        # of what lies on a density, which is blue

STYLE: Any = {
    "font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans", "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.title_fontsize": 7, "figure.titlesize": 9.5,
    "text.color": INK, "axes.edgecolor": MUTED, "axes.labelcolor": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "xtick.minor.size": 0, "ytick.minor.size": 0, "lines.linewidth": 1.3,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlepad": 4, "axes.labelpad": 2.5,
    "axes.axisbelow": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.5, "legend.frameon": False, "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.3, "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white",
    "figure.dpi": 100, "savefig.dpi": 200, "svg.fonttype": "path", "svg.hashsalt": "invdiff", "image.interpolation": "nearest",
}


def new_figure(height: float, title: str, across: float = 0.02) -> Figure:
    """An empty figure of this height in inches, whose panels make room for each other, `across` their width apart at least."""
    layout = ConstrainedLayoutEngine(w_pad=0.01 + across, h_pad=0.03, wspace=across, hspace=0.02)
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def bare(axes: Axes) -> None:
    """A panel without ticks, in a thin frame."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5, color=FAINT)


def _density_map(steps: int = 256) -> ListedColormap:
    """White to dark blue, along a straight line in Oklab (Ottosson 2020): equal steps of density look equal, in print also."""
    share = np.linspace(0, 1, steps)[:, None]
    lab = (1 - share) * [1.0, 0.0, 0.0] + share * [0.33, -0.03, -0.125]
    lms = (lab @ np.array([[1, 1, 1], [0.3963377774, -0.1055613458, -0.0894841775],
                           [0.2158037573, -0.0638541728, -1.2914855480]])) ** 3
    rgb = lms @ np.array([[4.0767416621, -1.2684380046, -0.0041960863], [-3.3077115913, 2.6097574011, -0.7034186147],
                          [0.2309699292, -0.3413193965, 1.7076147010]])
    rgb = rgb.clip(0, 1)
    return ListedColormap(np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055), name="density")


DENSITY = _density_map()
