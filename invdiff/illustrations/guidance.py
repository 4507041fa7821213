"""Classifier-free guidance in the plane."""

from collections.abc import Sequence

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from invdiff.diffusion.integrators import Heun
from invdiff.diffusion.schedules import Karras
from invdiff.illustrations.chains import noise_at, run
from invdiff.illustrations.plane import around, density, points
from invdiff.illustrations.style import MUTED, ON_DENSITY, STYLE, new_figure
from invdiff.illustrations.targets import Classes, overlapping_classes
from invdiff.priors.conditional import Guided

HIGH, LOW = 3.0, 0.005


@rc_context(STYLE)
def guidance(target: Classes | None = None, scales: Sequence[float] = (0.0, 1.0, 2.0, 4.0), count: int = 400, steps: int = 24,
             seed: int = 0) -> Figure:
    """Samples of each class by Heun's method, for scales of D + scale (D(. | class) - D) (Ho & Salimans 2022, Eq. 6).

    Args:
        target: up to three classes of images (1, 1, 2).
        scales: a panel for each; 0 is unconditional, 1 conditional.
        count: samples of each class.
        steps: of Heun's method.
        seed: of the noise, alike in all panels.
    """
    prior = target or overlapping_classes()
    figure = new_figure(2.25, "Guidance draws samples to where the class is certain, at the price of variety")
    extent = around(0.53, 0.5)
    start = noise_at(HIGH, count, 2, seed)
    for axes, scale in zip(figure.subplots(1, len(scales), squeeze=False)[0], scales, strict=True):
        density(axes, lambda z: prior.all.log_prob(z, 0.0), extent, strength=0.6)
        for number in range(prior.classes if scale else 1):
            guided = Guided(prior, torch.full((count,), number), scale)
            drawn = run(Heun(), guided, Karras()(steps, LOW, HIGH), start)[-1].x
            points(axes, drawn, MUTED if scale == 0 else ON_DENSITY[number % 3], size=2.2, alpha=0.6)
        axes.set_title({0.0: "scale 0: any class", 1.0: "scale 1: the class"}.get(scale, f"scale {scale:g}"))
    figure.supxlabel("colour: the class that samples are guided to; blue: the density of all", fontsize=7, color=MUTED)
    return figure
