"""Forward processes z_t = a(t) u + s(t) n, the solutions of linear SDEs dz = f(t) z dt + g(t) dW, and their way to our frame.

u = (x0 - centre) / unit is the image as the process knows it: [-1, 1] with unit = centre = 0.5, [0, 1] itself with 1 and 0.
Our frame is x = x0 + sigma n = centre + unit z / a, with sigma = unit s / a in image units. Times are floats or (B,) tensors;
coefficients come back as float64 tensors of the same shape, and images keep their type. Times run from 0 (clean) to 1 (noise),
but for EDM, whose time is the noise level. Song et al. 2021 is "Score-based generative modeling through SDEs".
"""

import math

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, model_validator
from torch import Tensor

from invdiff.diffusion.rates import LinearRate, Rate

Time = float | Tensor
UNIT = 0.5      # of images in [-1, 1], for which most processes were made, when ours are in [0, 1]


class Process(BaseModel):
    """Base of the processes: a frozen set of parameters. One defines log_a, s, f, g2 and time; the rest follows."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    unit: PositiveFloat = UNIT
    centre: float = 0.5

    def log_a(self, t: Time) -> Tensor:
        """log of a(t)."""
        raise NotImplementedError

    def s(self, t: Time) -> Tensor:
        """Standard deviation of z_t given u."""
        raise NotImplementedError

    def f(self, t: Time) -> Tensor:
        """Drift coefficient, a' / a."""
        raise NotImplementedError

    def g2(self, t: Time) -> Tensor:
        """g(t)^2 = (s^2)' - 2 f s^2."""
        raise NotImplementedError

    def time(self, sigma: Time) -> Tensor:
        """The t at a noise level sigma of our frame."""
        raise NotImplementedError

    def a(self, t: Time) -> Tensor:
        """What is left of the image in z_t."""
        return self.log_a(t).exp()

    def log_snr(self, t: Time) -> Tensor:
        """log of a^2 / s^2."""
        return 2 * (self.log_a(t) - self.s(t).log())

    def sigma(self, t: Time) -> Tensor:
        """The noise level of our frame at t, in image units."""
        return self.unit * (-self.log_snr(t) / 2).exp()

    def to_frame(self, z: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """(x, sigma) of a state z (B, ...), where a(t) > 0."""
        return self.centre + z * over(self.unit / self.a(t), z), self.sigma(t)

    def from_frame(self, x: Tensor, sigma: Time) -> tuple[Tensor, Tensor]:
        """(z, t) of our frame's x (B, ...)."""
        t = self.time(sigma)
        return (x - self.centre) * over(self.a(t) / self.unit, x), t

    def jump(self, u: Tensor, t: Time, noise: Tensor) -> Tensor:
        """z_t ~ q(z_t | u) at once, from standard normal noise of u's shape."""
        return over(self.a(t), u) * u + over(self.s(t), u) * noise

    def transition(self, earlier: Time, t: Time) -> tuple[Tensor, Tensor]:
        """(factor, std) of q(z_t | z_earlier) = N(factor z_earlier, std^2), earlier < t: for any linear SDE, factor = a_t / a_e
        and std^2 = s_t^2 - factor^2 s_e^2 (Kingma et al. 2021, Appendix A)."""
        factor = (self.log_a(t) - self.log_a(earlier)).exp()
        return factor, self.s(t) * self._left(earlier, t).sqrt()

    def step(self, z: Tensor, earlier: Time, t: Time, noise: Tensor) -> Tensor:
        """z_t ~ q(z_t | z_earlier)."""
        factor, std = self.transition(earlier, t)
        return over(factor, z) * z + over(std, z) * noise

    def posterior(self, z: Tensor, u: Tensor, earlier: Time, t: Time) -> tuple[Tensor, Tensor]:
        """(mean, std) of q(z_earlier | z_t = z, u) (Ho et al. 2020, Eqs. 6 and 7; Kingma et al. 2021, Appendix A)."""
        factor, std = self.transition(earlier, t)
        narrow = self.s(earlier) / self.s(t)
        mean = over(factor * narrow.square(), z) * z + over(self.a(earlier) * self._left(earlier, t), z) * u
        return mean, std * narrow

    def _left(self, earlier: Time, t: Time) -> Tensor:
        """1 - SNR_t / SNR_earlier, without cancellation where the two are close."""
        return -(self.log_snr(t) - self.log_snr(earlier)).expm1()

    def score(self, z: Tensor, u: Tensor, t: Time) -> Tensor:
        """grad log p(z_t) = (a u - z) / s^2 with u = E[u | z]."""
        return (over(self.a(t), z) * u - z) / over(self.s(t).square(), z)

    def flow(self, z: Tensor, u: Tensor, t: Time) -> Tensor:
        """dz/dt of the probability-flow ODE, f z - g^2 score / 2 (Song et al. 2021, Eq. 13); of Flow, E[n - u | z]."""
        return over(self.f(t), z) * z - over(self.g2(t) / 2, z) * self.score(z, u, t)

    def reverse_drift(self, z: Tensor, u: Tensor, t: Time) -> Tensor:
        """Drift of the reverse SDE, f z - g^2 score (Song et al. 2021, Eq. 6)."""
        return over(self.f(t), z) * z - over(self.g2(t), z) * self.score(z, u, t)


class VP(Process):
    """Variance preserving: a^2 = exp(-B), s^2 = 1 - a^2, f = -beta / 2, g^2 = beta (Song et al. 2021, Eqs. 11 and 29)."""

    rate: Rate = LinearRate()

    def log_a(self, t: Time) -> Tensor:
        return -self.rate.integral(as_time(t)) / 2

    def s(self, t: Time) -> Tensor:
        return (-(-self.rate.integral(as_time(t))).expm1()).sqrt()

    def f(self, t: Time) -> Tensor:
        return -self.rate.beta(as_time(t)) / 2

    def g2(self, t: Time) -> Tensor:
        return self.rate.beta(as_time(t))

    def time(self, sigma: Time) -> Tensor:
        return self.rate.time((as_time(sigma) / self.unit).square().log1p())


class SubVP(Process):
    """The same mean with less noise: s = 1 - exp(-B), g^2 = beta (1 - exp(-2 B)) (Song et al. 2021, Eqs. 12 and 29)."""

    rate: Rate = LinearRate()

    def log_a(self, t: Time) -> Tensor:
        return -self.rate.integral(as_time(t)) / 2

    def s(self, t: Time) -> Tensor:
        return -(-self.rate.integral(as_time(t))).expm1()

    def f(self, t: Time) -> Tensor:
        return -self.rate.beta(as_time(t)) / 2

    def g2(self, t: Time) -> Tensor:
        t = as_time(t)
        return -self.rate.beta(t) * (-2 * self.rate.integral(t)).expm1()

    def time(self, sigma: Time) -> Tensor:
        # s / a = 2 sinh(B / 2)
        return self.rate.time(2 * (as_time(sigma) / (2 * self.unit)).asinh())


class VE(Process):
    """Variance exploding: a = 1, s^2 = v(t) - v(0), sqrt(v) = low (high / low)^t (Song et al. 2021, Eqs. 9, 29 and 30)."""

    unit: PositiveFloat = 1.0
    centre: float = 0.0
    low: PositiveFloat = 0.01
    high: PositiveFloat = 50.0

    @model_validator(mode="after")
    def _rises(self) -> "VE":
        if not self.low < self.high:
            raise ValueError(f"expected low < high, got {self.low:g} and {self.high:g}")
        return self

    def _growth(self) -> float:
        return 2 * math.log(self.high / self.low)

    def log_a(self, t: Time) -> Tensor:
        return torch.zeros_like(as_time(t))

    def s(self, t: Time) -> Tensor:
        return self.low * (self._growth() * as_time(t)).expm1().sqrt()

    def f(self, t: Time) -> Tensor:
        return torch.zeros_like(as_time(t))

    def g2(self, t: Time) -> Tensor:
        return self.low**2 * self._growth() * (self._growth() * as_time(t)).exp()

    def time(self, sigma: Time) -> Tensor:
        return (as_time(sigma) / (self.unit * self.low)).square().log1p() / self._growth()


class EDM(Process):
    """Time is the noise level: a = 1, s = t, g^2 = 2 t (Karras et al. 2022, Eq. 1 and Section 4)."""

    unit: PositiveFloat = 1.0
    centre: float = 0.0

    def log_a(self, t: Time) -> Tensor:
        return torch.zeros_like(as_time(t))

    def s(self, t: Time) -> Tensor:
        return as_time(t)

    def f(self, t: Time) -> Tensor:
        return torch.zeros_like(as_time(t))

    def g2(self, t: Time) -> Tensor:
        return 2 * as_time(t)

    def time(self, sigma: Time) -> Tensor:
        return as_time(sigma) / self.unit


class Flow(Process):
    """Flow matching on straight lines: a = 1 - t, s = t, so f = -1 / (1 - t), g^2 = 2 t / (1 - t) (Lipman et al. 2023,
    Section 4.1 with time reversed; Liu et al. 2023, Eq. 1). a(1) = 0."""

    def log_a(self, t: Time) -> Tensor:
        return (-as_time(t)).log1p()

    def s(self, t: Time) -> Tensor:
        return as_time(t)

    def f(self, t: Time) -> Tensor:
        return -1 / (1 - as_time(t))

    def g2(self, t: Time) -> Tensor:
        t = as_time(t)
        return 2 * t / (1 - t)

    def time(self, sigma: Time) -> Tensor:
        ratio = as_time(sigma) / self.unit
        return ratio / (1 + ratio)


def even_in_time(process: Process, ramp: Tensor, low: float, high: float) -> Tensor:
    """Noise levels at `ramp` in [0, 1], from high at 0 to low at 1, evenly along the process's time."""
    first, last = process.time(high), process.time(low)
    return process.sigma(first + ramp * (last - first))


def as_time(t: Time) -> Tensor:
    """Float64, where every coefficient is worked out."""
    return torch.as_tensor(t, dtype=torch.float64)


def over(coefficient: Tensor, image: Tensor) -> Tensor:
    """A coefficient () or (B,), of the image's type, to multiply images (B, ...)."""
    return coefficient.to(image).reshape(-1, *[1] * (image.ndim - 1)) if coefficient.ndim else coefficient.to(image)
