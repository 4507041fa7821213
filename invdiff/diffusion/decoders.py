"""From densities to 8-bit images: decoders P(x0 | z), and noise that makes counted values continuous.

An image is on the grid k / 255, k = 0 .. 255. A density p of z = x0 + sigma n makes a model of such images, whose
log-probability is at least E[log P(x0 | z) + log p(z) - log q(z | x0)], q(z | x0) = N(x0, sigma^2): a bound for any decoder.
"""

import math

import torch
from torch import Tensor

from invdiff.diffusion.randomness import Streams
from invdiff.errors import InputError

LEVELS = 256


def check_grid(images: Tensor) -> None:
    """Raises InputError unless images (B, C, H, W) are on the grid k / 255 within [0, 1]."""
    k = images.double() * (LEVELS - 1)
    whole = k.round()
    inside = ((k - whole).abs() < 0.01) & (whole >= 0) & (whole < LEVELS)
    if images.ndim != 4 or not k.numel() or not bool(inside.all()):
        raise InputError(f"images: bits per dimension are of 8-bit values over 255, (B, C, H, W), got {tuple(k.shape)} with "
                         "values between those or beyond")


def gaussian_decoder(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log of the mass that N(mean, variance) has within half a level of x0, without end below 0 and above 255, summed (B,) in
    nats (Ho et al. 2020, Eq. 13). log_variance broadcasts with x0."""
    scale = (-log_variance / 2).exp()
    half = 0.5 / (LEVELS - 1)
    below, above = (x0 - half - mean) * scale, (x0 + half - mean) * scale
    # log(Phi(above) - Phi(below)), in the tail where it is small and not close to one
    upper = below > 0
    below, above = torch.where(upper, -above, below), torch.where(upper, -below, above)
    big, small = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    inside = big + torch.log1p(-(small - big).clamp_max(-1e-6).exp())
    first = torch.special.log_ndtr((x0 + half - mean) * scale)
    last = torch.special.log_ndtr((mean - x0 + half) * scale)
    value = torch.where(x0 < half, first, torch.where(x0 > 1 - half, last, inside))
    return value.flatten(1).sum(1)


def grid_decoder(x0: Tensor, z: Tensor, sigma: float, histogram: Tensor | None = None) -> Tensor:
    """log P(x0 | z), P in proportion to N(z; x0, sigma^2) times how frequent the level is, for each value apart, summed (B,) in
    nats, float64 (Kingma et al. 2021, Section 3.3, with all levels alike).

    histogram: (256,) frequencies of the levels in training images; a half is added to each. Bayes' rule, and so the best of
        decoders that see a value alone; with many black values it saves up to half a bit on each.
    """
    prior = torch.zeros(LEVELS, dtype=torch.float64) if histogram is None else (histogram.double() + 0.5).log()
    prior = prior.to(z.device)
    k = (x0 * (LEVELS - 1)).round().long()
    width = 4 + math.ceil(8 * sigma * (LEVELS - 1))         # what is further than 8 sigma from z counts for nothing
    if width < LEVELS:
        offsets = torch.arange(-width, width + 1, device=z.device)
        near = (z * (LEVELS - 1)).round().long()[..., None] + offsets
        outside = (near < 0) | (near >= LEVELS)
        near = near.clamp(0, LEVELS - 1)
    else:
        near, outside = torch.arange(LEVELS, device=z.device), torch.zeros(LEVELS, dtype=torch.bool, device=z.device)

    def log_joint(level: Tensor, z: Tensor) -> Tensor:
        return prior[level] - (z.double() - level.double() / (LEVELS - 1)).square() / (2 * sigma**2)

    total = log_joint(near, z[..., None]).masked_fill(outside, -math.inf).logsumexp(-1)
    own = log_joint(k, z)
    # z far off the grid has none of its levels near
    return (own - torch.maximum(total, own)).flatten(1).sum(1)


def histogram_of(images: Tensor) -> Tensor:
    """How often each level is met in 8-bit images over 255, (256,)."""
    return torch.bincount((images * (LEVELS - 1)).round().long().flatten(), minlength=LEVELS)


def dequantise(images: Tensor, streams: Streams) -> tuple[Tensor, float]:
    """8-bit images with uniform noise of a level's width, (k + u) / 256, and by how many nats their log-density exceeds a
    bound on the log-probability of the 8-bit image, d log 256 (Theis et al. 2016, Section 3.1; Song et al. 2021, Table 2)."""
    noise = torch.special.ndtr(streams.normal(images.shape[1:])).to(images)
    return (images * (LEVELS - 1) + noise) / LEVELS, images[0].numel() * math.log(LEVELS)


def bits_per_dim(nats: Tensor, images: Tensor) -> Tensor:
    """Nats an image, in bits a value of it."""
    return nats / (images[0].numel() * math.log(2))
