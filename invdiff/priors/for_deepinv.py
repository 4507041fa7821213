"""A prior as deepinv's samplers call it."""

from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor


class ForDeepinv(Denoiser):
    """Takes sigma as a scalar of NumPy or torch, or (B,), and x (B, C, H, W) in double precision; the prior sees float32.

    Levels below those that the prior was trained on, by its card, are raised to the lowest of them: DDRM ends with 0, of which
    a network makes nonsense.
    """

    def __init__(self, prior: Denoiser):
        super().__init__()
        self.prior, self.lowest = prior, _lowest(prior)

    def forward(self, x: Tensor, sigma: Any, **kwargs: object) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).flatten().clamp_min(self.lowest)
        return self.prior(x.float(), level.expand(len(x)) if len(level) == 1 else level).to(x.dtype)


def _lowest(prior: Any) -> float:
    """The lowest level on the card of a prior, or of the one that it wraps; 0 without one."""
    while prior is not None:
        if "sigma_range" in (getattr(prior, "card", None) or {}):
            return float(prior.card["sigma_range"][0])
        prior = getattr(prior, "prior", None)
    return 0.0
