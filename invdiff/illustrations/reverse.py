"""How noise goes: the state and the clean estimate on the way from noise to an image."""

from itertools import pairwise

import numpy as np
from deepinv.models import Denoiser
from matplotlib import rc_context
from matplotlib.figure import Figure

from invdiff.diffusion.sdes import VP
from invdiff.illustrations.pictures import draw_from, picture, row_label, shown_state
from invdiff.illustrations.style import STYLE, new_figure


@rc_context(STYLE)
def reverse(prior: Denoiser, images: int = 2, columns: int = 8, steps: int = 24, left: float = 0.0,
            seed: int = 0) -> Figure:
    """x at a noise level, shown as the variance-preserving z of the same, and D(x, sigma) = E[x0 | x] below it.

    Args:
        prior: of images.
        images: how many are drawn, by DPM-Solver++(2M); two rows each.
        columns: how many of the levels are shown at most, evenly over the steps.
        steps: of the sampler.
        left: share of the steps, 0 to 1, that are still to be taken in the last column; the first is always shown.
        seed: of the starting noise.
    """
    drawn, chain = draw_from(prior, images, steps, seed)
    process = VP(centre=0.0 if drawn.images.shape[1] == 2 else 0.5)
    # the estimate that a step went by belongs to the state before it
    shown = [(before.sigma, before.x, step.x0) for before, step in pairwise(chain)]
    taken = max(round((1 - left) * len(shown)), 1)
    shown = [shown[i] for i in np.linspace(0, taken - 1, min(columns, taken)).round().astype(int)]
    figure = new_figure(0.45 + images * 1.66, "From noise to an image: every step takes the state towards the clean estimate")
    panels = figure.subplots(2 * images, len(shown), squeeze=False)
    for column, (sigma, x, x0) in zip(panels.T, shown, strict=True):
        z, t = process.from_frame(x.cpu(), sigma)
        for i in range(images):
            picture(column[2 * i], shown_state(z[i], process, t))
            picture(column[2 * i + 1], x0[i].cpu())
        column[0].set_title(rf"$\sigma = {sigma:.2g}$" if sigma < 10 else rf"$\sigma = {sigma:.0f}$")
    for i in range(images):
        row_label(panels[2 * i, 0], "state", r"$z_t$")
        row_label(panels[2 * i + 1, 0], "estimate", r"$D(x, \sigma)$")
    return figure
