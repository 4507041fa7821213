"""Pictures of images in a panel, and the images that a prior draws."""

import numpy as np
import torch
from deepinv.models import Denoiser
from matplotlib.axes import Axes
from torch import Tensor

from invdiff.diffusion.integrators import DPMSolverPP, Step
from invdiff.diffusion.sdes import Process, Time
from invdiff.errors import InputError
from invdiff.illustrations.style import MUTED, bare
from invdiff.io.images import sample_image, to_uint8
from invdiff.priors.facts import own_sampling
from invdiff.sampling import Samples, sample


def picture(axes: Axes, image: Tensor) -> None:
    """An image (C, H, W), white is 1 and black 0; of a complex one the magnitude."""
    if image.shape[0] == 2:
        image = torch.linalg.vector_norm(image, dim=0, keepdim=True)
    pixels = to_uint8(image)
    axes.imshow(pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2))
    bare(axes)


def stretched(image: Tensor) -> tuple[Tensor, float, float]:
    """An image with its own range, but for a thousandth at each end, as black to white; and that range."""
    flat = image.flatten()
    low, high = (float(flat.quantile(share)) for share in (0.001, 0.999))
    low, high = min(low, 0.0), max(high, 1.0)
    return (image - low) / (high - low), low, high


def shown_state(z: Tensor, process: Process, t: Time) -> Tensor:
    """A state (C, H, W) of a variance-preserving process as an image, with the range -1 to 1 of images widened by the noise."""
    scaled = z / (1 + float(process.s(t)))
    return scaled if z.shape[0] == 2 else 0.5 + scaled / 2


def row_label(axes: Axes, name: str, formula: str) -> None:
    """Left of the first panel of a row."""
    axes.annotate(name, (-0.08, 0.5), xycoords="axes fraction", ha="right", va="bottom", fontweight="bold")
    axes.annotate(formula, (-0.08, 0.46), xycoords="axes fraction", ha="right", va="top", color=MUTED, fontsize=7)


def draw_from(prior: Denoiser, count: int, steps: int, seed: int, size: int = 64) -> tuple[Samples, list[Step]]:
    """Images of a prior by DPM-Solver++(2M), and the steps that led to them; classes take turns.

    size: of the sides in pixels, where the prior takes any. Raises InputError for a prior in a latent space, or one of few
    steps.
    """
    if getattr(prior, "latent", False):
        raise InputError("figures: this prior works in a latent space; give one of images")
    if own_sampling(prior):
        raise InputError("figures: this prior draws in few steps and is no denoiser; give its teacher")
    known = int(getattr(prior, "classes", 0))
    whole = getattr(prior, "card", {}).get("image_size")
    steps_made: list[Step] = []
    drawn = sample(prior, count, DPMSolverPP(), steps=steps, size=None if whole else (size, size), seed=seed, device="cpu",
                   classes=[(seed + i) % known for i in range(count)] if known else None, batch_size=count,
                   on_step=lambda progress: steps_made.append(progress.step))
    return drawn, steps_made


def an_image(prior: Denoiser | None, seed: int, size: int = 96) -> Tensor:
    """(1, C, H, W): a prior's sample, or a photo without one."""
    return sample_image("chelsea", size) if prior is None else draw_from(prior, 1, 24, seed)[0].images
