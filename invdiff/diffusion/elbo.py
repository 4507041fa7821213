"""The terms of the variational bound on log P(x0), for a chain of noise levels in our frame (Ho et al. 2020, Eq. 5):

    -log P(x0) <= KL(q(x_T | x0) | p(x_T)) + sum_{t = 2 .. T} KL(q(x_{t-1} | x_t, x0) | p(x_{t-1} | x_t)) - log P(x0 | x_1)

with x_t = x0 + sigma_t n. KL terms do not depend on a state's scale, so they are those of DDPM's z_t = a_t x_t.

To train in our frame at any sigma: t = chain.index(sigma), the step closest to it; then sigma = chain.sigma(t), and
vlb_terms(x0, x0 + sigma n, t, D, v, chain) is that step's term. Its mean over t uniform in 1 .. T, times T, plus prior_kl in
bits is the bound (Nichol & Dhariwal 2021, Eqs. 4 to 7); with another law of t, weigh by its inverse.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.diffusion.decoders import bits_per_dim, gaussian_decoder
from invdiff.diffusion.sdes import UNIT
from invdiff.errors import InputError


@dataclass(frozen=True)
class MarkovChain:
    """Noise levels sigma_1 < ... < sigma_T in image units, float64; `chain_sigmas(linear_chain(1000))` are DDPM's.

    unit: standard deviation of clean images for which the upper variance is right; DDPM's is 1 on [-1, 1], 0.5 on [0, 1].

    Raises InputError for levels that do not rise from above 0.
    """

    sigmas: Tensor
    unit: float = UNIT

    def __post_init__(self) -> None:
        sigmas = self.sigmas.double()
        if sigmas.ndim != 1 or not len(sigmas) or not bool((sigmas[:1] > 0).all() and (sigmas.diff() > 0).all()):
            raise InputError("chain: expected noise levels that rise from above 0")
        object.__setattr__(self, "sigmas", sigmas)

    @property
    def steps(self) -> int:
        return len(self.sigmas)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_t for steps t from 1 to T, and 0 for 0; float64, of t's shape."""
        sigmas = self.sigmas.to(t.device)
        return torch.where(t > 0, sigmas[(t - 1).clamp_min(0)], 0.0)

    def index(self, sigma: Tensor) -> Tensor:
        """The step t in 1 .. T whose level is closest to sigma, in log sigma."""
        middles = (self.sigmas[1:] * self.sigmas[:-1]).sqrt().to(sigma.device)
        return torch.searchsorted(middles, sigma.double().contiguous()) + 1

    def keep(self, t: Tensor) -> Tensor:
        """r = (sigma_{t-1} / sigma_t)^2: q(x_{t-1} | x_t, x0) = N(r x_t + (1 - r) x0, sigma_{t-1}^2 (1 - r))."""
        return (self.sigma(t - 1) / self.sigma(t)).square()

    def log_variances(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Logs of the lower and the upper choice of the reverse step's variance, right for images that are one point, and for
        N(., unit^2 I): DDPM's beta-tilde and beta over a_{t-1}^2 (Ho et al. 2020, Section 3.2). The lower one at t = 1, which
        would be 0, is that of t = 2 (Nichol & Dhariwal 2021, Section 3.1)."""
        before, now = self.sigma(t - 1).square(), self.sigma(t).square()
        upper = (now - before) * (before + self.unit**2) / (now + self.unit**2)
        lower = before * (1 - before / now)
        if self.steps > 1:
            first, second = self.sigmas[:2].square().tolist()
            lowest = first * (1 - first / second) * self.unit**2 / (first + self.unit**2)
        else:
            lowest = math.inf
        lower = torch.where(t > 1, lower, upper.clamp_max(lowest))
        return lower.log(), upper.log()


def vlb_terms(x0: Tensor, x_t: Tensor, t: Tensor, x0_hat: Tensor, v: Tensor | None = None, *, chain: MarkovChain,
              upper: bool = False, freeze_mean: bool = True) -> Tensor:
    """One term of the bound for each item, (B,) in bits a dimension: a KL for t > 1, the decoder's for t = 1. Pure.

    Args:
        x0: clean images (B, C, H, W); on the grid k / 255 where t = 1.
        x_t: x0 + sigma_t n.
        t: steps (B,), from 1 to T.
        x0_hat: D(x_t, sigma_t).
        v: what the network says of the variance, like x0: in log-domain, from the lower choice at -1 to the upper one at 1, not
            clipped (Nichol & Dhariwal 2021, Eq. 15, whose v is (v + 1) / 2). None: a fixed variance.
        chain: the steps.
        upper: which of the two a fixed variance is.
        freeze_mean: where there is a v, no gradient reaches x0_hat, so that the term trains v alone (ibid., Section 3.1, the
            bound's part in L_hybrid).
    """
    if freeze_mean and v is not None:
        x0_hat = x0_hat.detach()
    shape = (-1, *[1] * (x0.ndim - 1))
    keep, low, high = (value.to(x0).reshape(shape) for value in (chain.keep(t), *chain.log_variances(t)))
    share = float(upper) if v is None else (v + 1) / 2
    log_variance = low + share * (high - low)
    apart = (1 - keep) * (x0 - x0_hat)
    wider = log_variance - low
    kl = (wider + torch.expm1(-wider) + apart.square() * (-log_variance).exp()) / 2
    mean = keep * x_t + (1 - keep) * x0_hat
    nats = torch.where(t > 1, kl.flatten(1).sum(1), -gaussian_decoder(x0, mean, log_variance.expand_as(x0)))
    return bits_per_dim(nats, x0)


def prior_kl(x0: Tensor, sigma_max: float, centre: float | Tensor = 0.5, spread: float = UNIT) -> Tensor:
    """KL(N(x0, sigma_max^2) | N(centre, sigma_max^2 + spread^2)), (B,) in nats, float64: the bound's first term. DDPM's
    N(0, I) at the end of a VP chain is centre = spread = 0.5 here."""
    wider = (sigma_max**2 + spread**2) / sigma_max**2
    distance = (x0 - centre).double().square().flatten(1).sum(1) / sigma_max**2
    return (distance / wider + x0[0].numel() * (math.log(wider) + 1 / wider - 1)) / 2
