"""What samplers make of a budget of denoiser calls."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from invdiff.diffusion.integrators import DDIM, DDPM, DPMSolverPP, EulerMaruyama, Heun, Integrator
from invdiff.diffusion.schedules import Karras, Schedule
from invdiff.evaluation.mixtures import sliced_wasserstein
from invdiff.illustrations.chains import CountingCalls, noise_at, run
from invdiff.illustrations.plane import around, density, points
from invdiff.illustrations.style import MUTED, STYLE, VERMILION, new_figure
from invdiff.illustrations.targets import exact_draws, moons
from invdiff.priors.analytic import MixturePrior

HIGH, LOW = 3.0, 0.005
DIRECTIONS = 50         # of the sliced distance
COMPARED: dict[str, Integrator] = {
    "DDIM": DDIM(), "Heun": Heun(), "DPM-Solver++(2M)": DPMSolverPP(), "DDPM": DDPM(), "Euler–Maruyama": EulerMaruyama(),
    "DPM-Solver++(SDE)": DPMSolverPP(eta=1)}


def steps_within(integrator: Integrator, calls: int) -> int:
    """How many steps a budget allows: the last, to zero, takes one call. Raises ValueError for one that is adaptive."""
    if integrator.calls_per_step is None:
        raise ValueError(f"samplers: {type(integrator).__name__} chooses its own steps; expected one that does not")
    return max(1, 1 + (calls - 1) // integrator.calls_per_step)


def samples_of(integrator: Integrator, prior: MixturePrior, calls: int, count: int, seed: int, schedule: Schedule) -> Tensor:
    """(count, 2) within a budget of calls, which is counted."""
    counted = CountingCalls(prior)
    sigmas = schedule(steps_within(integrator, calls), LOW, HIGH)
    last = run(integrator, counted, sigmas, noise_at(HIGH, count, 2, seed), seed + 1)[-1]
    if counted.calls > calls:
        raise RuntimeError(f"{type(integrator).__name__} made {counted.calls} calls of {calls}")
    return last.x.reshape(count, 2).float()


@rc_context(STYLE)
def samplers(target: MixturePrior | None = None, integrators: Mapping[str, Integrator] | None = None,
             budgets: Sequence[int] = (5, 9, 17, 65), count: int = 1000, schedule: Schedule | None = None,
             seed: int = 0) -> Figure:
    """Samples over the target's density, with their sliced Wasserstein distance to exact draws.

    Args:
        target: of images (1, 1, 2).
        integrators: a column for each, by the name above it.
        budgets: a row for each number of denoiser calls.
        count: samples in a panel.
        schedule: Karras' levels without one.
        seed: of the noise, alike in all panels.
    """
    prior, integrators, schedule = target or moons(), integrators or COMPARED, schedule or Karras()
    exact = exact_draws(prior, count, seed + 2).reshape(count, 2).float()
    size = 1.13
    figure = new_figure(0.65 + size * 0.98 * len(budgets), "The same noise, turned into samples by different samplers")
    panels = figure.subplots(len(budgets), len(integrators), squeeze=False)
    for row, calls in zip(panels, budgets, strict=True):
        for axes, (name, integrator) in zip(row, integrators.items(), strict=True):
            drawn = samples_of(integrator, prior, calls, count, seed, schedule)
            density(axes, lambda z: prior.log_prob(z, 0.0), around(0.5, 0.5), count=100, strength=0.5)
            points(axes, drawn, VERMILION, size=1.6, alpha=0.6)
            axes.text(0.04, 0.04, f"{sliced_wasserstein(drawn, exact, DIRECTIONS):.3f}", transform=axes.transAxes, fontsize=6.5,
                      color=MUTED)
            if calls == budgets[0]:
                axes.set_title(name, fontsize=7.5)
        row[0].set_ylabel(f"{calls} calls")
    figure.supxlabel(f"in the corner: sliced Wasserstein distance to exact draws, {floor(prior, count):.3f} between two sets "
                     "of those", fontsize=7, color=MUTED)
    return figure


def floor(prior: MixturePrior, count: int, repeats: int = 6) -> float:
    """The distance between two sets of exact draws, which no sampler can beat but by chance."""
    pairs = [[exact_draws(prior, count, 1000 + 2 * i + k).reshape(count, 2).float() for k in (0, 1)] for i in range(repeats)]
    return float(torch.tensor([sliced_wasserstein(a, b, DIRECTIONS) for a, b in pairs]).mean())
