"""How noise comes: an image and a density of the plane under two forward processes."""

from collections.abc import Sequence

import torch
from deepinv.models import Denoiser
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from invdiff.diffusion.sdes import VE, VP, Process
from invdiff.illustrations.pictures import an_image, picture, row_label, shown_state, stretched
from invdiff.illustrations.plane import Extent, around, density
from invdiff.illustrations.style import MUTED, STYLE, new_figure
from invdiff.illustrations.targets import moons
from invdiff.priors.analytic import MixturePrior


@rc_context(STYLE)
def forward(prior: Denoiser | None = None, target: MixturePrior | None = None,
            sigmas: Sequence[float] = (0.0, 0.1, 0.25, 0.6, 1.5, 5.0), seed: int = 0) -> Figure:
    """Variance preserving and variance exploding, at equal signal-to-noise ratio in a column (Song et al. 2021b, Eq. 29).

    Args:
        prior: whose image is shown; a photo without one.
        target: a mixture of images (1, 1, 2), whose density is shown.
        sigmas: a column for each noise level, in image units.
        seed: of the noise, and of the prior's image.
    """
    image, mixture = an_image(prior, seed), target or moons()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    figure = new_figure(5.05, "Noise drowns images and densities: variance preserving (VP) and variance exploding (VE)")
    panels = figure.subplots(4, len(sigmas), squeeze=False)
    centre = 0.0 if image.shape[1] == 2 else 0.5
    for column, sigma in zip(panels.T, sigmas, strict=True):
        vp, ve = VP(centre=centre), VE()
        _vp_image(column[0], image, vp, sigma, noise)
        _ve_image(column[1], image, ve, sigma, noise)
        _of_plane(column[2], mixture, VP(), sigma, around(0.0, 3.0))
        extent = around(0.5, 0.5 + 2.6 * sigma)
        _of_plane(column[3], mixture, ve, sigma, extent)
        _below(column[3], rf"${extent[0]:.2g}$ to ${extent[1]:.2g}$")
        column[0].set_title(rf"$\sigma = {sigma:g}$")
    formulas = (r"$z = a u + s n$", r"$x = x_0 + \sigma n$", r"$p(z)$, $|z_i| < 3$", r"$p(x)$")
    for axes, name, formula in zip(panels[:, 0], ("VP", "VE", "VP", "VE"), formulas, strict=True):
        row_label(axes, name, formula)
    return figure


def _below(axes: Axes, text: str) -> None:
    axes.set_xlabel(text, color=MUTED, fontsize=6.5)


def _vp_image(axes: Axes, image: Tensor, process: Process, sigma: float, noise: Tensor) -> None:
    t = process.time(sigma)
    z = process.jump((image - process.centre) / process.unit, t, noise)
    picture(axes, shown_state(z[0], process, t))
    _below(axes, rf"$a = {float(process.a(t)):.2f}$, $s = {float(process.s(t)):.2f}$")


def _ve_image(axes: Axes, image: Tensor, process: Process, sigma: float, noise: Tensor) -> None:
    shown, low, high = stretched(process.jump(image, process.time(sigma), noise)[0])
    picture(axes, shown)
    _below(axes, rf"${low:.2g}$ to ${high:.2g}$")


def _of_plane(axes: Axes, mixture: MixturePrior, process: Process, sigma: float, extent: Extent) -> None:
    t = process.time(sigma)
    density(axes, lambda z: mixture.log_prob(*process.to_frame(z, t)), extent)
