"""Estimates of the variational bound for a denoiser: over a chain's steps, and in continuous time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.diffusion.decoders import grid_decoder
from invdiff.diffusion.elbo import MarkovChain, prior_kl, vlb_terms
from invdiff.diffusion.randomness import Streams, stream_seed
from invdiff.diffusion.stepping import Denoise
from invdiff.errors import InputError


@dataclass(frozen=True)
class Bound:
    """Terms of an upper bound on -log P(x0), (B,) each, in nats, float64.

    Attributes:
        prior: KL at the highest level.
        diffusion: the sum or integral over levels.
        decoder: -log P(x0 | x_1) or what stands for it.
        levels: (B, draws) noise levels in rising order.
        by_level: (B, draws) what each of them adds to `diffusion`.
    """

    prior: Tensor
    diffusion: Tensor
    decoder: Tensor
    levels: Tensor
    by_level: Tensor

    @property
    def total(self) -> Tensor:
        return self.prior + self.diffusion + self.decoder


@torch.no_grad()
def discrete_bound(denoiser: Denoise, x0: Tensor, seeds: Sequence[int], chain: MarkovChain, centre: float | Tensor = 0.5,
                   spread: float = 0.5, upper: bool = False, draws: int | None = None) -> Bound:
    """DDPM's bound, with fixed variances and its Gaussian decoder (Ho et al. 2020, Eqs. 5 and 13), one noise for each step.

    Args:
        denoiser: D(x, sigma) for sigma (B,).
        x0: 8-bit images over 255, (B, C, H, W).
        seeds: one for each item, of all its noise.
        chain: the steps.
        centre, spread: mean and standard deviation of clean images for the Gaussian at sigma_T.
        upper: the upper one of the fixed variances, exact for Gaussian images of standard deviation chain.unit.
        draws: how many of the steps 2 .. T to visit, stratified and without bias; all by default.
    """
    streams, batch = _streams(x0, seeds), len(x0)

    def term(t: Tensor) -> Tensor:
        sigma = chain.sigma(t).to(x0)
        x_t = x0 + sigma.reshape(-1, *[1] * (x0.ndim - 1)) * streams.normal(x0.shape[1:]).to(x0)
        bits = vlb_terms(x0, x_t, t, denoiser(x_t, sigma), chain=chain, upper=upper)
        return bits.double() * x0[0].numel() * math.log(2)

    decoder = term(torch.ones(batch, dtype=torch.long, device=x0.device))
    inner = chain.steps - 1
    if draws is None or draws >= inner:
        steps = torch.arange(2, chain.steps + 1, device=x0.device).expand(batch, -1)
    else:
        steps = 2 + (_stratified(streams, draws) * inner).long().clamp_max(inner - 1).to(x0.device)
    terms = [term(t) * (inner / steps.shape[1]) for t in steps.T]
    by_level = torch.stack(terms, 1) if terms else torch.zeros(batch, 0, dtype=torch.float64, device=x0.device)
    prior = prior_kl(x0, float(chain.sigmas[-1]), centre, spread)
    return Bound(prior, by_level.sum(1), decoder, chain.sigma(steps), by_level)


@torch.no_grad()
def continuous_bound(denoiser: Denoise, x0: Tensor, seeds: Sequence[int], sigma_min: float, sigma_max: float,
                     centre: float | Tensor = 0.5, spread: float = 0.25, draws: int = 32, z: Tensor | None = None,
                     histogram: Tensor | None = None) -> Bound:
    """The bound for infinitely many steps (Kingma et al. 2021, Eqs. 11 and 18): its diffusion term is the integral of
    |x0 - D|^2 over SNR = 1 / sigma^2, halved, which is that of E|x0 - D|^2 / sigma^2 over log sigma, here by one stratified
    draw in each of `draws` parts.

    Args:
        denoiser: D(x, sigma) for sigma (B,).
        x0: images (B, C, H, W).
        seeds: one for each item, of its noise levels and noise.
        sigma_min, sigma_max: first and last level, in image units.
        centre, spread: mean and standard deviation of clean images for the Gaussian at sigma_max.
        z: x0 + sigma_min n, to decode 8-bit images from by `grid_decoder`. Without it the images may be any, and in place of
            the decoder is d log(2 pi e sigma_min^2) / 2: the total bounds -E log p(x0 + sigma_min n), the density itself.
        histogram: of levels, for the decoder.
    """
    if not 0 < sigma_min < sigma_max < math.inf or draws < 1:
        raise InputError(f"bound: expected 0 < sigma_min < sigma_max and draws >= 1, got {sigma_min}, {sigma_max} and {draws}")
    streams, length = _streams(x0, seeds), math.log(sigma_max / sigma_min)
    levels = sigma_min * (length * _stratified(streams, draws)).exp().to(x0.device)
    terms = []
    for level in levels.T:
        sigma = level.to(x0)
        x = x0 + sigma.reshape(-1, *[1] * (x0.ndim - 1)) * streams.normal(x0.shape[1:]).to(x0)
        error = (denoiser(x, sigma) - x0).double().square().flatten(1).sum(1)
        terms.append(error / level.square() * (length / draws))
    by_level = torch.stack(terms, 1)
    if z is None:
        decoder = torch.full_like(by_level[:, 0], x0[0].numel() / 2 * math.log(2 * math.pi * math.e * sigma_min**2))
    else:
        decoder = -grid_decoder(x0, z, sigma_min, histogram)
    return Bound(prior_kl(x0, sigma_max, centre, spread), by_level.sum(1), decoder, levels, by_level)


def _stratified(streams: Streams, draws: int) -> Tensor:
    """(B, draws) in [0, 1], one in each of `draws` equal parts, float64."""
    within = torch.special.ndtr(streams.normal((draws,)).double().cpu())
    return (torch.arange(draws) + within) / draws


def _streams(x0: Tensor, seeds: Sequence[int]) -> Streams:
    if len(seeds) != len(x0):
        raise InputError(f"seeds: expected {len(x0)}, one for each image, got {len(seeds)}")
    return Streams([stream_seed(seed, 2, 0) for seed in seeds], x0.device)       # apart from z, that the seeds may have drawn
