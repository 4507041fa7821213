"""What a network may be asked to predict of a noisy image, noise level by noise level."""

from collections.abc import Sequence

import torch
from deepinv.models import Denoiser
from matplotlib import rc_context
from matplotlib.figure import Figure

from invdiff.diffusion.parametrisations import X0, Eps, Parametrisation, Score, V, Velocity, convert
from invdiff.diffusion.sdes import VP
from invdiff.illustrations.pictures import an_image, picture, row_label, shown_state
from invdiff.illustrations.style import MUTED, STYLE, new_figure

ASKED: dict[str, tuple[Parametrisation, str]] = {
    "noise": (Eps(), r"$\varepsilon = n$"), "image": (X0(), r"$u$"), "v": (V(), r"$a n - s u$"),
    "score": (Score(), r"$-n\, /\, s$"), "velocity": (Velocity(), r"$n - u$")}


@rc_context(STYLE)
def parametrisations(prior: Denoiser | None = None, sigmas: Sequence[float] = (0.05, 0.15, 0.4, 1.0, 2.5, 6.0),
                     seed: int = 0) -> Figure:
    """The state z = a u + s n, and below it each target, by `convert` from the image.

    Args:
        prior: whose image is shown; a photo without one.
        sigmas: a column for each noise level above 0, in image units.
        seed: of the noise, and of the prior's image.
    """
    image = an_image(prior, seed)
    process = VP(centre=0.0 if image.shape[1] == 2 else 0.5)
    u = (image - process.centre) / process.unit
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    figure = new_figure(6.6, "Parametrisations: what a network is asked of the same noisy image")
    panels = figure.subplots(1 + len(ASKED), len(sigmas), squeeze=False)
    for column, sigma in zip(panels.T, sigmas, strict=True):
        t = process.time(sigma)
        a, s = float(process.a(t)), float(process.s(t))
        z = process.jump(u, t, noise)
        picture(column[0], shown_state(z[0], process, t))
        column[0].set_title(rf"$\sigma = {sigma:g}$")
        for axes, (kind, _) in zip(column[1:], ASKED.values(), strict=True):
            target = convert(u, X0(), kind, z, a, s)[0]
            reach = float(target.abs().flatten().quantile(0.999))
            picture(axes, target / reach if len(target) == 2 else 0.5 + target / (2 * reach))
            axes.set_xlabel(rf"$\pm {reach:.2g}$", color=MUTED, fontsize=6.5)
    row_label(panels[0, 0], "state", r"$z = a u + s n$")
    for axes, (name, (_, formula)) in zip(panels[1:, 0], ASKED.items(), strict=True):
        row_label(axes, name, formula)
    return figure
