"""The score at several noise levels."""

from collections.abc import Sequence
from functools import partial

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from invdiff.illustrations.plane import UNIT_SQUARE, density, grid
from invdiff.illustrations.style import INK, STYLE, new_figure
from invdiff.illustrations.targets import three_modes
from invdiff.priors.analytic import MixturePrior


@rc_context(STYLE)
def score_field(target: MixturePrior | None = None, sigmas: Sequence[float] = (0.3, 0.15, 0.07, 0.02),
                arrows: int = 13) -> Figure:
    """The density of x0 + sigma n and its score (D - x) / sigma^2 by Tweedie's formula (Efron 2011, Eq. 1.4), times sigma.

    Args:
        target: of images (1, 1, 2).
        sigmas: a panel for each.
        arrows: to a side of a panel.
    """
    prior = target or three_modes()
    figure = new_figure(2.15, "The score points to where data are, and with less noise in finer detail")
    at = grid(UNIT_SQUARE, arrows)
    x, y = at.reshape(-1, 2).T.numpy()
    for axes, sigma in zip(figure.subplots(1, len(sigmas), squeeze=False)[0], sigmas, strict=True):
        density(axes, partial(prior.log_prob, sigma=sigma), UNIT_SQUARE, strength=0.65)
        with torch.no_grad():
            score = (prior(at, sigma) - at) / sigma**2
        moved = (sigma * score).reshape(-1, 2)
        shown = moved / (moved.norm(dim=1, keepdim=True) + 0.4)        # long ones drawn shorter, or far away they hide the rest
        axes.quiver(x, y, *shown.T.numpy(), color=INK, angles="xy", scale_units="xy", scale=1.1 * arrows, width=0.005,
                    headwidth=3.2, headlength=3.6, headaxislength=3.4, minlength=0.6, pivot="mid")
        axes.set_title(rf"$\sigma = {sigma:g}$")
    return figure
