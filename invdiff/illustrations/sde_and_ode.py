"""Paths of the reverse SDE and of the probability-flow ODE on a line."""

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from invdiff.diffusion.integrators import EulerMaruyama, Heun, Step
from invdiff.diffusion.rates import CosineRate
from invdiff.diffusion.sdes import VP, Process
from invdiff.illustrations.chains import run
from invdiff.illustrations.style import BLUE, DENSITY, MUTED, ON_DENSITY, STYLE, new_figure
from invdiff.illustrations.targets import line, mode_of
from invdiff.priors.analytic import MixturePrior

REACH = 3.1             # of z in the panels
CELLS = 240
HIGH = 20.0             # noise level that chains start from


@rc_context(STYLE)
def sde_and_ode(target: MixturePrior | None = None, process: Process | None = None, paths: int = 10, steps: int = 400,
                seed: int = 8) -> Figure:
    """Both from the same noise, over the density p_t(z) (after Song et al. 2021b, Figure 2).

    Args:
        target: of images (1, 1, 1).
        process: the forward process whose state z is shown; the cosine VP one without it.
        paths, steps: how many of each.
        seed: of the SDE's noise.
    """
    prior, process = target or line(), process or VP(rate=CosineRate())
    first = float(process.time(HIGH))
    figure = new_figure(4.0, "From noise to data: the same density at every time, by rough paths or by smooth ones", across=0)
    panels = figure.subplots(2, 3, sharey=True, width_ratios=(1, 8, 1), gridspec_kw={"wspace": 0})
    # starts at even quantiles, so that few paths show all of the noise
    start = torch.special.ndtri((torch.arange(paths, dtype=torch.float64) + 0.5) / paths).reshape(-1, 1, 1, 1)
    methods = ((EulerMaruyama(), "Reverse SDE: every path draws noise of its own"),
               (Heun(), "Probability-flow ODE: smooth paths that never cross"))
    for row, (integrator, title) in zip(panels, methods, strict=True):
        times = torch.linspace(first, 0, steps + 1, dtype=torch.float64)
        x, _ = process.to_frame(start, first)
        chain = run(integrator, prior, process.sigma(times), x, seed)
        _background(row[1], prior, process, first)
        _paths(row[1], (first, start), chain, process, mode_of(prior, chain[-1].x))
        for axes, t in ((row[0], first), (row[2], 0.0)):
            _marginal(axes, prior, process, t)
        row[1].set_title(title, loc="left")
        row[0].set_ylabel(r"state $z_t$")
    panels[1, 1].set_xlabel(r"time $t$")
    for axes, label in ((panels[1, 0], "noise"), (panels[1, 2], "data")):
        axes.set_xlabel(label)
    for axes in panels[0]:
        axes.tick_params(labelbottom=False)
    return figure


def _log_density(prior: MixturePrior, process: Process, z: Tensor, t: float) -> Tensor:
    """Of the state z (N,) at t, up to a constant."""
    return prior.log_prob(*process.to_frame(z.reshape(-1, 1, 1, 1), t))


def _background(axes: Axes, prior: MixturePrior, process: Process, first: float) -> None:
    """p_t(z) over time, every column scaled to its maximum."""
    z = torch.linspace(-REACH, REACH, CELLS, dtype=torch.float64)
    times = torch.linspace(first, 0, CELLS, dtype=torch.float64)
    columns = torch.stack([_log_density(prior, process, z, float(t)) for t in times], 1)
    shown = (columns - columns.amax(0)).exp().numpy()
    axes.imshow(shown, cmap=DENSITY, vmin=0, vmax=1.7, extent=(first, 0, -REACH, REACH), origin="lower", aspect="auto",
                interpolation="bilinear")
    axes.set(xlim=(first, 0), ylim=(-REACH, REACH), yticks=(-2, 0, 2))


def _paths(axes: Axes, start: tuple[float, Tensor], chain: list[Step], process: Process, modes: Tensor) -> None:
    """Every path, in the colour of the mode it ends in."""
    times, states = [start[0]], [start[1].flatten()]
    for step in chain:
        z, t = process.from_frame(step.x, step.sigma)
        times.append(float(t))
        states.append(z.flatten())
    for path, mode in zip(torch.stack(states, 1).numpy(), modes.tolist(), strict=True):
        axes.plot(times, path, color=ON_DENSITY[mode % 3], linewidth=0.8)
        axes.plot(times[-1], path[-1], "o", color=ON_DENSITY[mode % 3], markersize=2.5, clip_on=False)


def _marginal(axes: Axes, prior: MixturePrior, process: Process, t: float) -> None:
    z = torch.linspace(-REACH, REACH, 600, dtype=torch.float64)
    p = _log_density(prior, process, z, t)
    p = np.exp((p - p.max()).numpy())
    outward = -p if t > 0 else p
    axes.fill_betweenx(z.numpy(), outward, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(outward, z.numpy(), color=BLUE, linewidth=0.9)
    axes.set(xticks=[])
    axes.tick_params(left=t > 0, color=MUTED)
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)
