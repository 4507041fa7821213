"""The samplers of deepinv.sampling that ours share a name with, run as they come, on a batch of copies of one measurement."""

import copy
from typing import Any

import deepinv
import torch
from deepinv.models import Denoiser
from deepinv.physics import GaussianNoise
from torch import Tensor

from invdiff.priors.for_deepinv import ForDeepinv
from invdiff.problem import Problem

STEPS = {"ddrm": 100, "diffpir": 100, "dps": 1000}


def namesake(name: str, denoiser: Denoiser, sigma_y: float, steps: int | None = None) -> Any:
    """deepinv's "ddrm", "diffpir" or "dps", a Reconstructor with parameters of its own, but for the steps."""
    steps = steps or STEPS[name]
    if name == "ddrm":
        return deepinv.sampling.DDRM(denoiser, sigmas=torch.linspace(1, 0, steps).numpy())
    if name == "diffpir":
        return deepinv.sampling.DiffPIR(denoiser, deepinv.optim.data_fidelity.L2(), sigma=sigma_y, max_iter=steps)
    where = next((p.device for p in denoiser.parameters()), torch.device("cpu"))       # it keeps its noise levels there
    return deepinv.sampling.DPS(denoiser, num_steps=steps, device=where)


def sample_with_deepinv(name: str, prior: Denoiser, problem: Problem, count: int, seed: int,
                        steps: int | None = None) -> Tensor:
    """Draws (count, C, H, W) by deepinv's "ddrm", "diffpir" or "dps" with its own parameters, but for the steps.

    problem: one measurement, of an operator with an SVD for "ddrm". They draw from torch's global generator, which is put
    back. Their `seed` argument takes 0 for none, hence the detour.
    """
    physics = copy.deepcopy(problem.physics)
    physics.noise_model = GaussianNoise(problem.sigma_y)
    physics.mask = physics.mask.expand(1, *problem.image_shape).clone()     # theirs index it with the coefficients
    y = problem.y.repeat(count, *[1] * (problem.y.ndim - 1))                # repeated: DDRM writes into it
    model = namesake(name, ForDeepinv(prior), problem.sigma_y, steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model(y, physics).detach().float()
