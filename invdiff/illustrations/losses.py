"""Training: how much each loss makes of an error at a noise level, and which levels are shown how often."""

import math

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from invdiff.illustrations.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, STYLE, VERMILION, new_figure
from invdiff.illustrations.targets import exact_draws, moons
from invdiff.priors.analytic import MixturePrior
from invdiff.training.losses import (
    EDMLoss,
    FlowLoss,
    ImageLoss,
    MinSNRLoss,
    NoiseLoss,
    Uncertainty,
    UncertaintyLoss,
    VelocityLoss,
)
from invdiff.training.noise_levels import Adaptive, Chain, Curriculum, LogNormal, LogUniform, Noise, RunningLoss
from invdiff.training.objectives import Loss

SPREAD = 0.25           # sigma_data: of images in [0, 1]
LOSSES: dict[str, tuple[Loss, str]] = {
    "EDM": (EDMLoss(), ORANGE), "eps (DDPM, NCSN)": (NoiseLoss(kind="eps"), BLUE), "x0": (ImageLoss(kind="x0"), GREEN),
    "v": (VelocityLoss(kind="v"), PURPLE), "min-SNR": (MinSNRLoss(kind="min_snr"), SKY),
    "flow matching": (FlowLoss(kind="flow"), VERMILION)}
LEVELS: dict[str, tuple[Noise, str]] = {
    "log-normal (EDM)": (LogNormal(), ORANGE), "log-uniform": (LogUniform(kind="log_uniform"), INK),
    "linear chain": (Chain(kind="linear"), BLUE), "cosine chain": (Chain(kind="cosine"), VERMILION),
    "curriculum, begun": (Curriculum(kind="curriculum"), SKY), "by loss": (Adaptive(kind="adaptive"), GREEN)}


def error_left(prior: MixturePrior, sigmas: Tensor, count: int, seed: int) -> Tensor:
    """E |D - x0|^2 a dimension of the exact denoiser D, at sigmas (S,): what no training removes. By `count` draws."""
    x0 = exact_draws(prior, count, seed)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed), dtype=x0.dtype)
    return torch.stack([(prior(x0 + s * noise, float(s)) - x0).square().mean() for s in sigmas])


def learned_weight(sigmas: Tensor, loss: Tensor, steps: int) -> Tensor:
    """1 / exp(u(sigma)) of an `Uncertainty` trained to minimise l / exp(u) + u at sigmas (S,), whose loss l (S,) is known."""
    loss, head = loss.float(), Uncertainty(UncertaintyLoss(kind="uncertainty").features)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        u = head(sigmas.float())
        (loss * (-u).exp() + u).mean().backward()
        optimiser.step()
    return (-head(sigmas.float())).exp().detach()


@rc_context(STYLE)
def losses(count: int = 2000, points: int = 120, learn_steps: int = 600, seed: int = 0) -> Figure:
    """Weights on |D - x0|^2; what the exact denoiser of two crescents leaves of each loss; densities of the levels.

    Args:
        count: draws to average over.
        points: of a curve.
        learn_steps: of training the learned uncertainty.
        seed: of the draws.
    """
    noise = LogNormal()
    sigmas = torch.logspace(math.log10(noise.low), math.log10(noise.high), points, dtype=torch.float64)
    left = error_left(moons(), sigmas, count, seed)
    edm = EDMLoss().weight(sigmas, SPREAD)
    weights = {name: (loss.weight(sigmas, SPREAD), colour) for name, (loss, colour) in LOSSES.items()}
    weights["learned uncertainty"] = edm * learned_weight(sigmas, edm * left, learn_steps), INK
    figure = new_figure(3.35, "Losses: what an error counts at a noise level, and how often that is trained")
    counts, remains, shown = figure.subplots(1, 3)
    at = int((sigmas.log() - math.log(SPREAD)).abs().argmin())
    for name, (weight, colour) in weights.items():
        counts.plot(sigmas, weight / weight[at], color=colour, label=name)
        total = weight * left
        remains.plot(sigmas, total / total.max(), color=colour)
    counts.set(title=r"Weight of $|D - x_0|^2$", ylabel=rf"weight, 1 at $\sigma = {SPREAD:g}$", yscale="log", ylim=(1e-4, 1e5))
    remains.set(title="What the best denoiser leaves", ylabel="loss over its maximum", ylim=(0, 1.05))
    _densities(shown, sigmas, (edm * left).numpy(), seed)
    for axes in (counts, remains, shown):
        axes.set(xscale="log", xlabel=r"$\sigma$ (image units)", xlim=(noise.low, noise.high))
    figure.legend(*counts.get_legend_handles_labels(), loc="outside lower left", ncols=3,
                  title="left and middle: losses")
    figure.legend(*shown.get_legend_handles_labels(), loc="outside lower right", ncols=2,
                  title="right: levels")
    return figure


def _densities(axes: Axes, sigmas: Tensor, loss: np.ndarray, seed: int, draws: int = 20_000, bins: int = 48) -> None:
    """Over log10 sigma, by drawing; the one that follows the loss has seen all of it."""
    edges = np.geomspace(float(sigmas[0]), float(sigmas[-1]), bins + 1)
    middles, widths = np.sqrt(edges[1:] * edges[:-1]), np.diff(np.log10(edges))
    for name, (noise, colour) in LEVELS.items():
        running = RunningLoss(noise.low, noise.high)
        running.update(loss, sigmas.numpy())
        drawn, _ = noise.draw(draws, np.random.default_rng(seed), 0, running)
        axes.plot(middles, np.histogram(drawn, edges)[0] / draws / widths, color=colour, label=name)
    axes.set(title="Levels that are trained", ylabel=r"density over $\log_{10} \sigma$", ylim=(0, None))
