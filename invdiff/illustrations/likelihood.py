"""Log-likelihoods by the probability flow and by the variational bound, beside the exact ones."""

import math

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from invdiff.diffusion.bounds import continuous_bound
from invdiff.diffusion.likelihood import Exact, HeunSteps, Rademacher, log_likelihood
from invdiff.illustrations.plane import UNIT_SQUARE, grid
from invdiff.illustrations.style import BLUE, DENSITY, GREEN, INK, MUTED, STYLE, VERMILION, bare, new_figure
from invdiff.illustrations.targets import exact_draws, three_modes
from invdiff.priors.analytic import MixturePrior

LOW, HIGH, SPREAD = 0.02, 20.0, 0.25


@rc_context(STYLE)
def likelihood(target: MixturePrior | None = None, cells: int = 40, count: int = 150, steps: int = 80, draws: int = 60,
               seed: int = 0) -> Figure:
    """The density that the flow gives back from the denoiser alone; it against the exact one; the bound's terms by noise level.

    Args:
        target: of images (1, 1, 2).
        cells: of the map, to a side.
        count: points of the second panel, drawn from the density; six times as many of the third.
        steps: of the flow.
        draws: noise levels of the bound.
        seed: of points, probes and noise.
    """
    prior = target or three_modes()
    figure = new_figure(2.55, "Likelihood from a denoiser: exact along the flow, from below by the bound")
    shown, against, terms = figure.subplots(1, 3, width_ratios=(0.95, 1, 1.1))
    _map(shown, prior, cells, steps)
    x0 = exact_draws(prior, 6 * count, seed)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x0 + LOW * noise
    exact = prior.log_prob(x, LOW)
    _against(against, prior, x[:count], exact[:count], steps)
    _terms(terms, prior, x0, float(exact.mean()), draws)
    return figure


def flow_log_prob(prior: MixturePrior, x: Tensor, steps: int, probes: int | None = None) -> Tensor:
    """log p(x; LOW) in nats, with the trace exact, or by a number of random probes."""
    trace = Exact() if probes is None else Rademacher(count=probes)
    return log_likelihood(prior, x, range(len(x)), LOW, HIGH, spread=SPREAD, trace=trace, solver=HeunSteps(steps=steps))


def _map(axes: Axes, prior: MixturePrior, cells: int, steps: int) -> None:
    at = grid(UNIT_SQUARE, cells)
    p = flow_log_prob(prior, at, steps).reshape(cells, cells).exp().numpy()
    axes.imshow(p, cmap=DENSITY, vmin=0, extent=UNIT_SQUARE, origin="lower", interpolation="bilinear")
    x, y = at.reshape(cells, cells, 2).permute(2, 0, 1).numpy()
    exact = prior.log_prob(at, LOW).reshape(cells, cells).exp().numpy()
    axes.contour(x, y, exact, levels=exact.max() * np.array([0.05, 0.2, 0.5, 0.8]), colors=VERMILION, linewidths=0.7)
    axes.set(title="Flow (blue), exact (lines)", aspect="equal")
    bare(axes)


def _against(axes: Axes, prior: MixturePrior, x: Tensor, exact: Tensor, steps: int) -> None:
    low, high = float(exact.min()), float(exact.max())
    axes.axline((low, low), slope=1, color=MUTED, linewidth=0.7)
    for probes, colour, label in ((1, VERMILION, "one random probe"), (None, BLUE, "exact trace")):
        values = flow_log_prob(prior, x, steps, probes)
        off = float((values - exact).square().mean().sqrt())
        axes.plot(exact, values, "o", markersize=2.6, markeredgewidth=0, alpha=0.7, color=colour,
                  label=f"{label}: rms {off:.2g}")
    axes.set(title="Flow against exact", ylim=(low - 3, high + 1), xlabel=r"exact $\log p(x)$ (nats)",
             ylabel=r"$\log p(x)$ along the flow (nats)")
    axes.legend(loc="lower right", handletextpad=0.1)


def _terms(axes: Axes, prior: MixturePrior, x0: Tensor, exact: float, draws: int) -> None:
    """What each noise level adds to the bound, in nats for each factor e of sigma, and what the sum is."""
    bound = continuous_bound(prior, x0, range(len(x0)), LOW, HIGH, spread=SPREAD, draws=draws)
    width = math.log(HIGH / LOW) / draws
    levels, terms = bound.levels.log().mean(0).exp(), bound.by_level.mean(0) / width
    axes.plot(levels, terms, color=GREEN)
    axes.fill_between(levels, terms, color=GREEN, alpha=0.18, linewidth=0)
    rows = {"prior": bound.prior, "noise levels": bound.diffusion, "decoder": bound.decoder, "sum, the bound": bound.total}
    lines = [f"{name}  {float(value.mean()):+.2f}" for name, value in rows.items()] + [f"exact  {-exact:+.2f}"]
    axes.text(0.98, 0.97, "\n".join(lines).replace("-", "−"), transform=axes.transAxes, ha="right", va="top", fontsize=7,
              color=INK, linespacing=1.35)
    axes.set(title=r"Bound on $-\log p$, by noise level", xscale="log", xlabel=r"$\sigma$", ylim=(0, None),
             ylabel=r"nats for each factor $e$ of $\sigma$")
