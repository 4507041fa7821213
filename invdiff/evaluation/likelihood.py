"""How many bits a denoiser's model needs for 8-bit images: by the variational bound, and by the probability flow.

Both are bounds on -log P(x0) of the same model of 8-bit images, and share all but one thing. An image becomes a draw
z = x0 + sigma_min n, at the lowest noise level the network was trained for and not off it as with uniform noise, and is read
off it by the same decoder:

    -log P(x0) <= E[-log p(z) + log q(z | x0) - log P(x0 | z)],   q(z | x0) = N(x0, sigma_min^2).

The flow gives log p(z), exact up to its steps (measured by doubling them) and without bias from its random trace. The
bound (Kingma et al. 2021, Eq. 11) replaces log p(z) - log q(z | x0) by KL terms of the reverse SDE. For an exact denoiser the
two are equal; what is between them is the network's own error, as the flow and the SDE have it (Song et al. 2021, "Maximum
likelihood training of score-based diffusion models", Theorems 1 and 3).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invdiff.diffusion.bounds import continuous_bound
from invdiff.diffusion.decoders import bits_per_dim, check_grid
from invdiff.diffusion.likelihood import HeunSteps, log_likelihood
from invdiff.diffusion.randomness import Streams, stream_seed
from invdiff.diffusion.stepping import Denoise
from invdiff.priors.facts import card_range

CHECKED = 8         # images whose flow is followed once more, in twice the steps


def evaluate_likelihood(denoiser: Denoise, images: Tensor, *, sigma_min: float | None = None, sigma_max: float | None = None,
                        centre: float | None = None, spread: float | None = None, steps: int = 24, draws: int = 32,
                        histogram: Tensor | None = None, seed: int = 0, batch_size: int = 50,
                        on_batch: Callable[[int, int], object] | None = None) -> dict[str, Any]:
    """Bits a dimension of 8-bit images, by both ways. Image i has noise of its own, whatever is beside it.

    An image costs `draws` calls for the bound, and 2 `steps` calls with a backward pass each for the flow.

    Args:
        denoiser: D(x, sigma) for sigma (B,), differentiable in x.
        images: (N, C, H, W) in [0, 1], k / 255, on the denoiser's device.
        sigma_min, sigma_max: first and last level; by default those of the denoiser's card, or 0.002 and 40.
        centre, spread: mean and standard deviation of images; by default the denoiser's, or 0.5 and 0.25.
        steps: of Heun's method along the flow.
        draws: noise levels a bound visits.
        histogram: (256,) how often each level is met in training images, for the decoder; see `grid_decoder`.
        seed: of all noise.
        batch_size: images at once; it changes nothing.
        on_batch: called with the images done and their number, after each batch.

    Returns: a plain dict:
        elbo_bits_per_dim: the bound, and elbo_terms: its parts prior, diffusion and decoder.
        ode_bits_per_dim: by the flow, and ode_terms: density, -log p(z) + log q(z | x0), and decoder, the same as the bound's.
        standard_error: of elbo, ode and their difference, over the images; None for a single one.
        ode_step_error: by how much twice the steps raise ode_bits_per_dim, mean over the first few images; 3/4 of the error.
        diffusion_by_level: sigma, and bits_per_dim that each part of log sigma adds to the bound.
        images, network_calls (of one image each), settings.

    Raises InputError for images that are not 8-bit, or levels that do not fit.
    """
    check_grid(images)
    known = card_range(denoiser)
    low, high = known[0] if sigma_min is None else sigma_min, known[1] if sigma_max is None else sigma_max
    model = _Model(denoiser, low, high, getattr(denoiser, "centre", 0.5) if centre is None else centre,
                   getattr(denoiser, "sigma_data", 0.25) if spread is None else spread, histogram)
    rows: list[dict[str, Tensor]] = []
    doubled: list[Tensor] = []
    for start in range(0, len(images), batch_size):
        x0 = images[start:start + batch_size]
        seeds = [stream_seed(seed, i, 0) for i in range(start, start + len(x0))]
        row, z = model.bits(x0, seeds, steps, draws)
        rows.append(row)
        if start < CHECKED:
            few, z = x0[:CHECKED - start], z[:CHECKED - start]
            doubled.append(row["flow"][:len(few)] - bits_per_dim(model.flow(z, seeds[:len(few)], 2 * steps), few).cpu())
        if on_batch:
            on_batch(start + len(x0), len(images))
    settings = {"sigma_min": low, "sigma_max": high, "centre": model.centre, "spread": model.spread, "steps": steps,
                "draws": draws, "seed": seed, "decoder": "flat" if histogram is None else "histogram"}
    return _summary({name: torch.cat([row[name] for row in rows]) for name in rows[0]}) | {
        "ode_step_error": float(torch.cat(doubled).mean()), "images": len(images), "network_calls": model.calls,
        "settings": settings}


@dataclass
class _Model:
    """A denoiser with its place and its decoder, as a model of 8-bit images that counts its calls."""

    denoiser: Denoise
    low: float
    high: float
    centre: float
    spread: float
    histogram: Tensor | None
    calls: int = 0

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        self.calls += len(x)
        return self.denoiser(x, sigma)

    def flow(self, z: Tensor, seeds: Sequence[int], steps: int) -> Tensor:
        return log_likelihood(self, z, seeds, self.low, self.high, self.centre, self.spread, solver=HeunSteps(steps=steps))

    def bits(self, x0: Tensor, seeds: Sequence[int], steps: int, draws: int) -> tuple[dict[str, Tensor], Tensor]:
        """Terms (B,) in bits a dimension, those of the bound by level (B, draws), and z."""
        noise = Streams(seeds, x0.device).normal(x0.shape[1:]).to(x0)
        z = x0 + self.low * noise
        bound = continuous_bound(self, x0, seeds, self.low, self.high, self.centre, self.spread, draws, z, self.histogram)
        flow = self.flow(z, seeds, steps)
        drawn = (noise.double().square() + math.log(2 * math.pi * self.low**2)).flatten(1).sum(1) / 2    # -log q(z | x0)
        nats = {"prior": bound.prior, "diffusion": bound.diffusion, "decoder": bound.decoder, "density": -flow - drawn,
                "flow": flow, "by_level": bound.by_level}
        return {name: bits_per_dim(value, x0).cpu() for name, value in nats.items()} | {"levels": bound.levels.cpu()}, z


def _summary(bits: dict[str, Tensor]) -> dict[str, Any]:
    """Means and standard errors of (N,) parts in bits a dimension."""
    elbo, ode = bits["prior"] + bits["diffusion"] + bits["decoder"], bits["density"] + bits["decoder"]

    def error(values: Tensor) -> float | None:
        return float(values.std() / len(values) ** 0.5) if len(values) > 1 else None

    return {
        "elbo_bits_per_dim": float(elbo.mean()),
        "elbo_terms": {name: float(bits[name].mean()) for name in ("prior", "diffusion", "decoder")},
        "ode_bits_per_dim": float(ode.mean()),
        "ode_terms": {name: float(bits[name].mean()) for name in ("density", "decoder")},
        "standard_error": {"elbo": error(elbo), "ode": error(ode), "difference": error(elbo - ode)},
        "diffusion_by_level": {"sigma": bits["levels"].log().mean(0).exp().tolist(),
                               "bits_per_dim": bits["by_level"].mean(0).tolist()},
    }
