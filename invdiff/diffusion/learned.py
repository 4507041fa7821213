"""A noise schedule that is learned: monotone gamma(t) = -log SNR, trained to make the bound's estimate less noisy.

In continuous time the bound depends on gamma's ends alone, so what lies between them is free to lower the variance of its
estimate from a random t (Kingma et al. 2021, Section 5.1 and Appendix on the noise schedule).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invdiff.diffusion.sdes import UNIT
from invdiff.errors import InputError

# |n - n_hat|^2 (B,) of a network at noise levels (B,), by gradient a function of them; the generator draws images and noise
NoiseError = Callable[[Tensor, torch.Generator], Tensor]


class LearnedRate(nn.Module):
    """A `Rate` for VP, with a^2 = sigmoid(-gamma(t)): gamma rises from sigma_min at t = 0 to sigma_max at 1.

    gamma is a scaled l(t) + v . sigmoid(w l(t) + b), l linear, with positive weights (Kingma et al. 2021, Section 3.2).
    The process is noisy at t = 0 already, by sigma_min.

    Args:
        sigma_min, sigma_max: the ends, in image units; they stay.
        hidden: width of the network.
        unit: of the process, in image units.
        seed: of the first weights.

    Raises InputError unless 0 < sigma_min < sigma_max.
    """

    def __init__(self, sigma_min: float, sigma_max: float, hidden: int = 32, unit: float = UNIT, seed: int = 0):
        super().__init__()
        if not 0 < sigma_min < sigma_max < math.inf:
            raise InputError(f"learned schedule: expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.unit = unit
        self.low, self.high = (2 * math.log(sigma / unit) for sigma in (sigma_min, sigma_max))
        generator = torch.Generator().manual_seed(seed)
        slope = 4 + 8 * torch.rand(hidden, generator=generator, dtype=torch.float64)
        self.line = nn.Parameter(torch.tensor(_inverse_softplus(1.0), dtype=torch.float64))
        self.slope = nn.Parameter(slope.expm1().log())
        # steps at places spread over [0, 1]
        self.place = nn.Parameter(-slope * torch.linspace(0, 1, hidden, dtype=torch.float64))
        self.height = nn.Parameter(torch.full((hidden,), _inverse_softplus(1 / hidden), dtype=torch.float64))

    def _raw(self, t: Tensor) -> Tensor:
        inner = t[..., None] * F.softplus(self.slope) + self.place
        return F.softplus(self.line) * t + (inner.sigmoid() * F.softplus(self.height)).sum(-1)

    def _scale(self) -> tuple[Tensor, Tensor]:
        first, last = self._raw(torch.tensor([0.0, 1.0], dtype=torch.float64, device=self.line.device))
        return first, (self.high - self.low) / (last - first)

    def gamma(self, t: Tensor) -> Tensor:
        """-log SNR at t, a float64 tensor."""
        first, scale = self._scale()
        return self.low + (self._raw(t) - first) * scale

    def slope_of_gamma(self, t: Tensor) -> Tensor:
        """gamma'(t) > 0."""
        weight, height = F.softplus(self.slope), F.softplus(self.height)
        value = (t[..., None] * weight + self.place).sigmoid()
        return (F.softplus(self.line) + (value * (1 - value) * weight * height).sum(-1)) * self._scale()[1]

    def sigma(self, t: Tensor) -> Tensor:
        """The noise level at t, in image units."""
        return self.unit * (self.gamma(t) / 2).exp()

    def integral(self, t: Tensor) -> Tensor:
        return F.softplus(self.gamma(t))

    def beta(self, t: Tensor) -> Tensor:
        return self.gamma(t).sigmoid() * self.slope_of_gamma(t)

    @torch.no_grad()
    def time(self, integral: Tensor) -> Tensor:
        """By bisection, to 1e-15; what is beyond the ends is at the ends."""
        wanted = integral.expm1().log()
        below, above = torch.zeros_like(wanted), torch.ones_like(wanted)
        for _ in range(50):
            middle = (below + above) / 2
            under = self.gamma(middle) < wanted
            below, above = torch.where(under, middle, below), torch.where(under, above, middle)
        return (below + above) / 2


def vlb_integrand(rate: LearnedRate, t: Tensor, error: NoiseError, generator: torch.Generator) -> Tensor:
    """gamma'(t) |n - n_hat|^2 / 2 (B,) in nats: its mean over t in [0, 1] is the diffusion loss in continuous time (Kingma
    et al. 2021, Section 5), whatever gamma does between its ends."""
    return rate.slope_of_gamma(t) * error(rate.sigma(t), generator) / 2


def fit(rate: LearnedRate, error: NoiseError, steps: int = 300, batch: int = 64, lr: float = 0.05,
        seed: int = 0) -> list[float]:
    """Train the schedule in place to make the integrand's mean square least, which is its variance as the mean stays put.

    Args:
        rate: what is trained.
        error: the network's; the network is held.
        steps, batch, lr: of Adam, whose rate falls to zero; t is stratified over the batch.
        seed: of t, and of all that `error` draws.

    Returns: the mean square of each step.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(rate.parameters(), lr)
    history = []
    for step in range(steps):
        t = (torch.arange(batch) + torch.rand(batch, generator=generator, dtype=torch.float64)) / batch
        loss = vlb_integrand(rate, t.to(rate.line.device), error, generator).square().mean()
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.zero_grad()
        loss.log().backward()       # of the log, so that a step does not depend on the loss's size
        optimiser.step()
        history.append(float(loss.detach()))
    return history


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
