"""What a consistency model learns: where the probability flow ends, from any noise level."""

from collections.abc import Sequence

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from invdiff.diffusion.consistency import Consistency
from invdiff.diffusion.integrators import RK45
from invdiff.illustrations.chains import noise_at, run
from invdiff.illustrations.plane import around, density, points
from invdiff.illustrations.style import BLUE, MUTED, ON_DENSITY, ORANGE, PURPLE, SKY, STYLE, new_figure
from invdiff.illustrations.targets import line, mode_of, three_modes
from invdiff.priors.analytic import MixturePrior

HIGH, LOW = 3.0, 1e-3
COLOURS = (SKY, BLUE, PURPLE, ORANGE)


def flow_end(prior: MixturePrior, x: Tensor, sigma: float, tolerance: float = 1e-5) -> Tensor:
    """f(x, sigma): where the flow from x (B, ...) ends, by RK45 (Song et al. 2023, Definition 1)."""
    levels = torch.tensor([sigma, min(LOW, sigma / 2), 0.0], dtype=torch.float64)
    return run(RK45(rtol=tolerance, atol=tolerance), prior, levels, x)[-1].x


@rc_context(STYLE)
def flow_map(sigmas: Sequence[float] = (0.05, 0.2, 0.8), count: int = 500, points_each: int = 240, seed: int = 0) -> Figure:
    """The map f and the denoiser D on a line; noise of the plane in the colour of where it ends; f and D of that noise.

    Args:
        sigmas: noise levels of the first panel, at most four.
        count: of points in the plane.
        points_each: of a curve.
        seed: of the noise.
    """
    figure = new_figure(2.45, "A consistency model jumps to the flow's end; a denoiser answers with the mean of all ends")
    on_line, noise, ends, means = figure.subplots(1, 4)
    _on_line(on_line, line(), sigmas, points_each)
    prior = three_modes()
    start = noise_at(HIGH, count, 2, seed)
    f = Consistency()(lambda x, sigma: flow_end(prior, x, sigma), torch.tensor([HIGH, 0.0]), start, lambda: start)
    drawn = next(iter(f)).x
    colours = [ON_DENSITY[mode % 3] for mode in mode_of(prior, drawn).tolist()]
    with torch.no_grad():
        mean = prior(start, HIGH)
    density(noise, lambda z: prior.log_prob(z, HIGH), around(0.5, 2.8 * HIGH), strength=0.5)
    points(noise, start, colours, size=3)
    noise.set_title(rf"noise, $\sigma = {HIGH:g}$")
    for axes, x, title in ((ends, drawn, r"$f(x, \sigma)$: one call"), (means, mean, r"$D(x, \sigma)$: one call")):
        density(axes, lambda z: prior.log_prob(z, 0.0), around(0.52, 0.53), strength=0.5)
        points(axes, x, colours, size=3)
        axes.set_title(title)
    figure.supxlabel("colour: the mode that the flow takes a point to", fontsize=7, color=MUTED)
    return figure


def _on_line(axes: Axes, prior: MixturePrior, sigmas: Sequence[float], count: int) -> None:
    x = torch.linspace(-0.6, 1.6, count, dtype=torch.float64).reshape(-1, 1, 1, 1)
    for sigma, colour in zip(sigmas, COLOURS, strict=False):
        with torch.no_grad():
            axes.plot(x.flatten(), prior(x, sigma).flatten(), color=colour, linewidth=0.9, linestyle=(0, (3, 1.5)))
        axes.plot(x.flatten(), flow_end(prior, x, sigma).flatten(), color=colour, label=rf"$\sigma = {sigma:g}$")
    axes.set(title=r"$f$ (solid), $D$ (dashed)", xlabel=r"$x$", ylabel="clean estimate")
    axes.set_box_aspect(1)
    axes.legend(loc="upper left")
