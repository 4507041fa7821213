"""A prior as deepinv's samplers call it."""

from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor


class ForDeepinv(Denoiser):
    """Takes sigma as a scalar of NumPy or torch, or (B,), and x (B, C, H, W) in double precision; the prior sees float32."""

    def __init__(self, prior: Denoiser):
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: Any, **kwargs: object) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).flatten()
        return self.prior(x.float(), level.expand(len(x)) if len(level) == 1 else level).to(x.dtype)
