"""What a prior imagines: sheets of unconditional samples, drawn by the library's own integrator."""

import torch
from torch import Tensor

from invdiff.diffusion.integrators import DPMSolverPP, Integrator
from invdiff.diffusion.randomness import Streams, stream_seed
from invdiff.diffusion.schedules import Karras, Schedule
from invdiff.priors.denoiser import EDMDenoiser


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
