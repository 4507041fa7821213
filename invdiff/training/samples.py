"""What a prior imagines: sheets of unconditional samples, drawn by the library's own integrator."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.diffusion.integrators import DPMSolverPP, Integrator
from invdiff.diffusion.randomness import Streams, stream_seed
from invdiff.diffusion.schedules import Karras, Schedule
from invdiff.io.files import replacing, writing
from invdiff.priors.denoiser import EDMDenoiser

_GAP = 2        # pixels between samples


@torch.no_grad()
def draw_samples(denoiser: EDMDenoiser, count: int, size: int, steps: int, sigma_min: float, sigma_max: float,
                 seed: int = 0, integrator: Integrator | None = None, schedule: Schedule | None = None) -> Tensor:
    """Unconditional samples (count, C, size, size) on the CPU, if nothing else is said by DPM-Solver++(2M) over Karras' levels.

    Sample i is the same whatever is drawn beside it, so the sheets of a run show it take shape. Classes take turns.
    """
    device = next(denoiser.parameters()).device
    streams = Streams([stream_seed(seed, 0, i) for i in range(count)], device)
    shape = (denoiser.channels, size, size)
    x = denoiser.centre + sigma_max * streams.normal(shape)
    classes = torch.arange(count, device=device) % denoiser.classes if denoiser.classes else None
    sigmas = (schedule or Karras())(steps, sigma_min, sigma_max)
    solve = integrator or DPMSolverPP()
    for step in solve(lambda x, sigma: denoiser(x, sigma, classes), sigmas, x, lambda: streams.normal(shape)):
        x = step.x
    return x.cpu()


def sheet(samples: Tensor) -> Image.Image:
    """(N, C, H, W) as one picture, N images in about as many rows as columns; of complex ones the magnitude. White is 1."""
    if samples.shape[1] == 2:
        samples = torch.linalg.vector_norm(samples, dim=1, keepdim=True)
    values = (samples.float().nan_to_num(0).clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    count, height, width = values.shape[:3]
    columns = math.ceil(count**0.5)
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for i, image in enumerate(values):
        top, left = (_GAP + k * (n + _GAP) for k, n in zip(divmod(i, columns), (height, width), strict=True))
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)


def save_sheet(path: Path, picture: Image.Image) -> None:
    """A PNG, written whole or not at all. Raises InputError where it cannot be."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            picture.save(temporary, "PNG")
