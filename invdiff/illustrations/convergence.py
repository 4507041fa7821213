"""Errors against denoiser calls: orders of convergence, and how soon samples are as good as exact ones."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from invdiff.diffusion.integrators import (
    DDIM,
    DDPM,
    RK45,
    DPMSolver,
    DPMSolverPP,
    DPMSolverPP3M,
    EDMStochastic,
    EulerMaruyama,
    Heun,
    Integrator,
)
from invdiff.diffusion.schedules import Karras, LogLinear
from invdiff.evaluation.mixtures import sliced_wasserstein
from invdiff.illustrations.chains import CountingCalls, noise_at, run
from invdiff.illustrations.samplers import DIRECTIONS, floor, samples_of
from invdiff.illustrations.style import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, STYLE, VERMILION, new_figure
from invdiff.illustrations.targets import exact_draws, moons, three_modes
from invdiff.priors.analytic import MixturePrior

HIGH, LOW = 3.0, 0.03
FLOW: dict[str, tuple[Integrator, int]] = {         # with the order that their theory says
    "DDIM = Euler": (DDIM(), 1), "Heun": (Heun(), 2), "DPM-Solver++(2M)": (DPMSolverPP(), 2), "DPM-Solver-3": (DPMSolver(), 3),
    "DPM-Solver++(3M)": (DPMSolverPP3M(), 3)}
ALL: dict[str, Integrator] = {
    "DDIM": DDIM(), "Heun": Heun(), "DPM-Solver++(2M)": DPMSolverPP(), "DDPM": DDPM(), "Euler–Maruyama": EulerMaruyama(),
    "EDM stochastic": EDMStochastic()}
LOOK = {"DDIM = Euler": (BLUE, "o"), "DDIM": (BLUE, "o"), "Heun": (VERMILION, "s"), "DPM-Solver++(2M)": (GREEN, "^"),
        "DPM-Solver-3": (PURPLE, "D"), "DPM-Solver++(3M)": (ORANGE, "v"), "DDPM": (SKY, "P"), "Euler–Maruyama": (PURPLE, "X"),
        "EDM stochastic": (ORANGE, "D")}


def flow_errors(integrator: Integrator, prior: MixturePrior, start: Tensor, exact: Tensor, steps: Sequence[int],
                high: float = HIGH, low: float = LOW) -> tuple[list[int], list[float]]:
    """Calls, and the root mean square error of where the flow ends at `low`, for numbers of steps even in log sigma."""
    calls, errors = [], []
    for count in steps:
        counted = CountingCalls(prior)
        sigmas = LogLinear()(count + 1, low, high)[:-1]          # a step to zero is of first order in any method
        last = run(integrator, counted, sigmas, start)[-1]
        calls.append(counted.calls)
        errors.append(float((last.x - exact).square().mean().sqrt()))
    return calls, errors


@rc_context(STYLE)
def convergence(steps: Sequence[int] = (4, 8, 16, 32, 64, 128), budgets: Sequence[int] = (5, 9, 17, 33, 65, 129),
                count: int = 1000, seed: int = 0) -> Figure:
    """Left, the flow's end in float64 against RK45 at a tolerance of 1e-10; right, samples of a mixture against exact draws.

    Args:
        steps: of the left panel's methods.
        budgets: of calls, of the right panel's.
        count: samples at each budget.
        seed: of the noise.
    """
    figure = new_figure(3.3, "A higher order pays off once steps are short enough")
    left, right = figure.subplots(1, 2)
    prior = three_modes()
    start = noise_at(HIGH, 16, 2, seed)
    ends = LogLinear()(2, LOW, HIGH)[:-1]
    exact = run(RK45(rtol=1e-10, atol=1e-10), prior, ends, start)[-1].x
    slopes = {}
    for name, (integrator, order) in FLOW.items():
        calls, errors = flow_errors(integrator, prior, start, exact, steps)
        _curve(left, name, calls, errors, f"{name}, order {order}")
        slopes[order] = (calls[-1], errors[-1])
    for order, (x, y) in slopes.items():
        at = np.array([x / 4, x * 1.0])
        left.plot(at, 0.45 * y * (at / x) ** -order, color=FAINT, linewidth=0.8, linestyle="--", zorder=0)
    left.set(xscale="log", yscale="log", xlabel="denoiser calls", ylabel="error of the flow's end (root mean square)",
             title="Order of convergence")
    _distances(right, moons(), ALL, budgets, count, seed)
    for axes in (left, right):
        axes.grid(True)
    left.legend(loc="lower left")
    right.legend(loc="upper right")
    return figure


def _curve(axes: Axes, name: str, x: Sequence[float], y: Sequence[float], label: str) -> None:
    colour, marker = LOOK.get(name, (INK, "o"))
    axes.plot(x, y, color=colour, marker=marker, markersize=3.5, markeredgewidth=0, label=label)


def _distances(axes: Axes, prior: MixturePrior, integrators: Mapping[str, Integrator], budgets: Sequence[int], count: int,
               seed: int) -> None:
    exact = exact_draws(prior, count, seed + 2).reshape(count, 2).float()
    for name, integrator in integrators.items():
        sets = (samples_of(integrator, prior, calls, count, seed, Karras()) for calls in budgets)
        distances = [sliced_wasserstein(drawn, exact, DIRECTIONS) for drawn in sets]
        _curve(axes, name, budgets, distances, name)
    least = floor(prior, count)
    axes.axhline(least, color=MUTED, linewidth=0.8, linestyle=":")
    axes.annotate("between two sets of exact draws", (budgets[0], least), (0, -3), textcoords="offset points", va="top",
                  fontsize=6.5, color=MUTED)
    axes.set(xscale="log", yscale="log", xlabel="denoiser calls", ylabel="sliced Wasserstein distance to exact draws",
             title="Quality of samples")
    axes.set_xticks(list(budgets), [str(n) for n in budgets])
    axes.minorticks_off()
