"""Networks that were trained on a discrete variance-preserving diffusion, as denoisers."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from deepinv.models import Denoiser
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample"]


class VPDenoiser(Denoiser):
    """D(x, sigma) from a network on x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n with x0 in [-1, 1] (Ho et al. 2020, Eq. 4).

    The network is asked at the time t where (1 - abar_t) / abar_t is its noise, (2 sigma)^2. Between whole steps log sigma
    is interpolated and t is fractional: neighbouring steps differ by up to two thirds in sigma at the clean end, so that
    rounding would misstate the noise by a quarter, while sinusoidal embeddings are smooth in t.

    Args:
        network: maps x_t (B, C, H, W) and t (B,) to (B, C or more, H, W); channels after the first C, a learned
            variance, are dropped.
        alphas_cumprod: abar (T,), decreasing. Steps with abar = 0, pure noise, are left out.
        predicts: what comes out of the network: n ("epsilon"), sqrt(abar) n - sqrt(1 - abar) x0 ("v_prediction", Salimans and
            Ho 2022), or x0 ("sample").
        whole_steps: round t, for networks that look it up in a table.

    Raises:
        ValueError: an abar that does not decrease within (0, 1), or an unknown prediction.
    """

    def __init__(self, network: Callable[[Tensor, Tensor], Tensor], alphas_cumprod: Tensor, predicts: Prediction = "epsilon",
                 whole_steps: bool = False):
        super().__init__()
        abar = alphas_cumprod.double().cpu()
        abar = abar[abar > 0]
        if len(abar) < 2 or not bool((abar.diff() < 0).all()) or not bool(abar[0] < 1):
            raise ValueError("alphas_cumprod: expected at least two numbers that decrease between 1 and 0")
        if predicts not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"predicts: expected epsilon, v_prediction or sample, got {predicts!r}")
        self.network, self.predicts, self.whole_steps = network, predicts, whole_steps
        self.register_buffer("levels", (((1 - abar) / abar).log() / 2).float())        # log sigma_t for x0 in [-1, 1]

    @property
    def sigma_range(self) -> list[float]:
        """Lowest and highest noise level of the schedule, in image units."""
        return [math.exp(float(self.levels[i])) / 2 for i in (0, -1)]

    def time(self, sigma: Tensor) -> Tensor:
        """Step t (B,), fractional, for sigma (B,) in image units; outside of the schedule its first or last."""
        wanted = (2 * sigma).log()
        i = torch.searchsorted(self.levels, wanted).clamp(1, len(self.levels) - 1)
        t = i - 1 + ((wanted - self.levels[i - 1]) / (self.levels[i] - self.levels[i - 1])).clamp(0, 1)
        return t.round() if self.whole_steps else t

    def forward(self, x: Tensor, sigma: Tensor, **kwargs: object) -> Tensor:
        """x (B, C, H, W) in image units, sigma (B,)."""
        s = 2 * sigma.reshape(-1, 1, 1, 1)
        keep = (1 + s.square()).rsqrt()                                     # sqrt(abar)
        z = 2 * x - 1
        out = self.network(keep * z, self.time(sigma))[:, : x.shape[1]].float()
        if self.predicts == "epsilon":
            x0 = z - s * out
        elif self.predicts == "v_prediction":
            x0 = keep * (keep * z - s * out)
        else:
            x0 = out
        return (x0 + 1) / 2
