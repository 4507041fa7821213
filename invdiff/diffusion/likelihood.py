"""The exact log-likelihood of a denoiser's model, along the probability-flow ODE.

With tau = log sigma the flow is dx/dtau = x - D(x, sigma), and the log-density along it falls by the divergence
d - tr(dD/dx) (Song et al. 2021, "Score-based generative modeling through SDEs", Eqs. 39 and 40; Chen et al. 2018, Eq. 8):

    log p(x; sigma_min) = log N(x_max; centre, w_max^2) + int (d - tr dD/dx) dtau,   w^2 = sigma^2 + spread^2.

So the model is what the flow makes of that Gaussian at sigma_max, a density that sums to one whatever the denoiser is. The
trace is estimated by random probes (Hutchinson 1990), without bias in log p for given steps.

What is integrated is x over sigma, a straight line where D stands still (Karras et al. 2022, Section 3), and over log sigma the
divergence beyond that of the Gaussian, d sigma^2 / w^2, which is next to nothing at both ends.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, SerializeAsAny
from torch import Tensor

from invdiff.diffusion.randomness import Streams, stream_seed
from invdiff.diffusion.schedules import LogLinear, Schedule
from invdiff.diffusion.stepping import Denoise
from invdiff.errors import InputError

# (x, sigma) to (dx / dsigma, the log-density lost a unit of sigma (B,))
Rates = Callable[[Tensor, float], tuple[Tensor, Tensor]]


class Trace(BaseModel):
    """Base of the traces: probes v with E[v v^T] = I, of which tr J is the mean of v^T J v. They are held along the flow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def probes(self, x: Tensor, streams: Streams) -> Tensor:
        """(K, *x.shape), whose v^T J v are summed."""
        raise NotImplementedError


class Rademacher(Trace):
    """Signs: a variance of 2 |J|^2 off the diagonal, of J's symmetric part (Hutchinson 1990, Proposition 1)."""

    count: PositiveInt = 1

    def probes(self, x: Tensor, streams: Streams) -> Tensor:
        draws = torch.stack([streams.normal(x.shape[1:]) for _ in range(self.count)])
        return torch.where(draws < 0, -1.0, 1.0).to(x) / math.sqrt(self.count)


class Exact(Trace):
    """A probe for each of the d axes, d backward passes a step: for small images."""

    def probes(self, x: Tensor, streams: Streams) -> Tensor:
        axes = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])
        return axes.expand(-1, *x.shape)


class HeunSteps(BaseModel):
    """Heun's method, two calls a step, second order (Karras et al. 2022, Algorithm 1): of x in sigma, and of the log-density in
    log sigma. What the steps cost is measured by doubling them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: PositiveInt = 32
    schedule: SerializeAsAny[Schedule] = LogLinear()

    def __call__(self, rates: Rates, x: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """From x at sigma `low`, the x at `high` and the log-density lost between (B,), float64."""
        lost = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for sigma, after in pairwise(self.schedule(self.steps + 1, low, high)[:-1].flip(0).tolist()):
            slope, loss = rates(x, sigma)
            ahead, loss_ahead = rates(x + (after - sigma) * slope, after)
            x = x + (after - sigma) / 2 * (slope + ahead)
            lost = lost + math.log(after / sigma) / 2 * (sigma * loss + after * loss_ahead)
        return x, lost


def log_likelihood(denoiser: Denoise, x: Tensor, seeds: Sequence[int], sigma_min: float, sigma_max: float,
                   centre: float | Tensor = 0.5, spread: float = 0.25, trace: Trace = Rademacher(),
                   solver: HeunSteps = HeunSteps()) -> Tensor:
    """log p(x; sigma_min), the model's density of images with noise of sigma_min, (B,) in nats, float64.

    Args:
        denoiser: D(x, sigma) for sigma (B,), differentiable in x.
        x: (B, C, H, W), at sigma_min: clean images need noise of that level, or dequantisation of about it.
        seeds: one for each item, of its probes: an item's result does not depend on the batch.
        sigma_min, sigma_max: between which the flow runs, in image units.
        centre, spread: mean and standard deviation of clean images, for the Gaussian at sigma_max.
        trace: how the divergence is found.
        solver: how the flow is followed.

    Raises InputError for seeds or levels that do not fit.
    """
    if len(seeds) != len(x):
        raise InputError(f"seeds: expected {len(x)}, one for each image, got {len(seeds)}")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise InputError(f"likelihood: expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    # seeds of their own: x's noise may come from the same ones, and a probe must not know it
    probes = trace.probes(x, Streams([stream_seed(seed, 1, 0) for seed in seeds], x.device))

    d = x[0].numel()

    def rates(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        x0, trace = _denoise_with_trace(denoiser, x, x.new_full((len(x),), sigma), probes)
        beyond = d * spread**2 / (sigma**2 + spread**2) - trace                 # d - trace, less the Gaussian's
        return (x - x0) / sigma, beyond / sigma

    end, lost = solver(rates, x, sigma_min, sigma_max)
    distance = (end - centre).double().square().flatten(1).sum(1) / (sigma_max**2 + spread**2)
    return lost - (distance + d * math.log(2 * math.pi * (sigma_min**2 + spread**2))) / 2


def _denoise_with_trace(denoiser: Denoise, x: Tensor, sigma: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """D (B, ...) and the sum over probes (K, B, ...) of v^T J v, (B,) in float64."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0 = denoiser(x, sigma)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for k, probe in enumerate(probes):
            (product,) = torch.autograd.grad(x0, x, probe, retain_graph=k + 1 < len(probes))
            total = total + (product * probe).double().flatten(1).sum(1)
    return x0.detach(), total
