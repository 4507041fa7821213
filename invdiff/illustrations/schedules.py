"""Noise schedules: how much of the image and how much noise over time."""

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from invdiff.diffusion.learned import LearnedRate, fit
from invdiff.diffusion.rates import CosineRate, LinearRate, SigmoidRate
from invdiff.diffusion.schedules import Cosine, DDPMLinear, FlowMatching, Karras, Schedule, Sigmoid
from invdiff.diffusion.sdes import EDM, VP, Flow, Process, SubVP
from invdiff.illustrations.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, STYLE, VERMILION, new_figure
from invdiff.illustrations.targets import exact_draws, moons
from invdiff.priors.analytic import MixturePrior

LOW, HIGH = 0.002, 80.0         # Karras et al. 2022, in their units; here in image units
COLOURS = {"linear": BLUE, "cosine": VERMILION, "sigmoid": GREEN, "flow matching": PURPLE, "learned": INK, "EDM": ORANGE,
           "sub-VP": SKY}
LEVELS: dict[str, Schedule] = {"linear": DDPMLinear(), "cosine": Cosine(), "sigmoid": Sigmoid(),
                               "flow matching": FlowMatching(), "EDM": Karras()}


def learned_rate(prior: MixturePrior | None = None, steps: int = 150, seed: int = 0) -> LearnedRate:
    """A schedule trained on the exact denoiser of a mixture, to make its bound's estimate less noisy (Kingma et al. 2021)."""
    prior = prior or moons()
    x0 = exact_draws(prior, 4096, seed)
    rate = LearnedRate(LOW, 20.0, seed=seed)

    def error(sigma: Tensor, generator: torch.Generator) -> Tensor:
        """|n - n_hat|^2 of the denoiser, by gradient a function of the noise level."""
        which = torch.randint(len(x0), (len(sigma),), generator=generator)
        noise = torch.randn(len(sigma), *x0.shape[1:], generator=generator, dtype=torch.float64)
        level = sigma.reshape(-1, 1, 1, 1)
        x = x0[which] + level * noise
        return ((x - prior(x, sigma)) / level - noise).square().flatten(1).sum(1)

    fit(rate, error, steps=steps, seed=seed)
    return rate.requires_grad_(False)


@rc_context(STYLE)
def schedules(learn_steps: int = 150, points: int = 300, seed: int = 0) -> Figure:
    """a(t) and s(t); log-SNR over time; noise levels over a sampler's steps.

    Args:
        learn_steps: of training the learned schedule.
        points: of a curve.
        seed: of the learned schedule.
    """
    processes: dict[str, Process] = {
        "linear": VP(rate=LinearRate()), "cosine": VP(rate=CosineRate()), "sigmoid": VP(rate=SigmoidRate()),
        "flow matching": Flow(), "learned": VP(rate=learned_rate(steps=learn_steps, seed=seed)),
        "sub-VP": SubVP(rate=LinearRate())}
    figure = new_figure(2.75, "Schedules: how fast the image goes, and where a sampler spends its steps")
    kept, snr, levels = figure.subplots(1, 3)
    t = torch.linspace(0, 1, points + 2, dtype=torch.float64)[1:-1]
    for name, process in processes.items():
        kept.plot(t, process.a(t), color=COLOURS[name])
        kept.plot(t, process.s(t), color=COLOURS[name], linestyle=(0, (3, 1.5)))
        snr.plot(t, process.log_snr(t), color=COLOURS[name], label=name)
    _edm(snr, points)
    kept.set(title=r"Image $a$ (solid) and noise $s$ (dashed)", xlabel=r"time $t$", ylabel=r"$z_t = a(t)\, u + s(t)\, n$",
             xlim=(0, 1))
    snr.set(title="Signal-to-noise ratio", xlabel=r"time $t$", ylabel=r"$\log\, a^2 / s^2$", xlim=(0, 1), ylim=(-12, 12))
    share = np.linspace(0, 1, points)
    for name, schedule in LEVELS.items():
        levels.plot(share, schedule(points, LOW, HIGH)[:-1], color=COLOURS[name])
    levels.set(title="Levels that a sampler visits", xlabel="share of the steps done", ylabel=r"$\sigma$ (image units)",
               yscale="log", xlim=(0, 1))
    figure.legend(*snr.get_legend_handles_labels(), loc="outside lower center", ncols=len(COLOURS))
    return figure


def _edm(axes: Axes, points: int) -> None:
    """Of EDM, whose time is the noise level, over the steps of its own schedule in the place of a time."""
    process = EDM(unit=0.5, centre=0.5)
    sigmas = Karras()(points, LOW, HIGH)[:-1].flip(0)
    axes.plot(np.linspace(0, 1, points), process.log_snr(process.time(sigmas)), color=COLOURS["EDM"], label="EDM")
