"""What a network may predict of z = a u + s n: the noise, the image, v, the score or a flow's velocity. They are equivalent.

u is the image in the process's units, and a, s are numbers or tensors that broadcast with images.
"""

from typing import Any, Protocol

import torch
from deepinv.models import Denoiser
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from invdiff.diffusion.sdes import Process, over

Coefficient = float | Tensor


class Parametrisation(BaseModel):
    """Base of the parametrisations: the target of (u, n), and (u, n) of what was predicted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def target(self, u: Tensor, n: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        """What the network should say."""
        raise NotImplementedError

    def image(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        """u."""
        raise NotImplementedError

    def noise(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        """n = (z - a u) / s, where s > 0."""
        return (z - a * self.image(said, z, a, s)) / s


class Eps(Parametrisation):
    """n (Ho et al. 2020, Eq. 12). The image follows where a > 0."""

    def target(self, u: Tensor, n: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return n

    def image(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return (z - s * said) / a

    def noise(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return said


class X0(Parametrisation):
    """u (Ho et al. 2020, Section 3.2). The noise follows where s > 0."""

    def target(self, u: Tensor, n: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return u

    def image(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return said


class V(Parametrisation):
    """a n - s u (Salimans & Ho 2022, Appendix D), for any a and s: u = (a z - s v) / (a^2 + s^2)."""

    def target(self, u: Tensor, n: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return a * n - s * u

    def image(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return (a * z - s * said) / (a**2 + s**2)

    def noise(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return (s * z + a * said) / (a**2 + s**2)


class Score(Parametrisation):
    """grad log q(z | u) = -n / s, whose mean given z is the score (Vincent 2011; Song et al. 2021, Eq. 7), where a, s > 0."""

    def target(self, u: Tensor, n: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return -n / s

    def image(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return (z + s**2 * said) / a

    def noise(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return -s * said


class Velocity(Parametrisation):
    """n - u, dz/dt of a straight path (Lipman et al. 2023, Eq. 23; Liu et al. 2023, Eq. 1), for any a and s:
    u = (z - s said) / (a + s)."""

    def target(self, u: Tensor, n: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return n - u

    def image(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return (z - s * said) / (a + s)

    def noise(self, said: Tensor, z: Tensor, a: Coefficient, s: Coefficient) -> Tensor:
        return (z + a * said) / (a + s)


def convert(said: Tensor, source: Parametrisation, target: Parametrisation, z: Tensor, a: Coefficient,
            s: Coefficient) -> Tensor:
    """A prediction in one parametrisation, said in another."""
    return target.target(source.image(said, z, a, s), source.noise(said, z, a, s), a, s)


class Network(Protocol):
    """Maps z (B, ...), times (B,) and what else it was given by name to a prediction of z's shape."""

    def __call__(self, z: Tensor, t: Tensor, **kwargs: Any) -> Tensor: ...


class ProcessDenoiser(Denoiser):
    """D(x, sigma) in our frame from a network of any parametrisation in any process.

    x (B, C, H, W) = x0 + sigma n in image units, sigma a float or (B,) within what the process reaches. Other arguments by
    name go to the network.

    classes: how many classes of images the network knows. Where the denoiser is told classes (B,), with -1 for any, the network
        is given them as `classes`; guidance asks for both.
    """

    def __init__(self, network: Network, parametrisation: Parametrisation, process: Process, classes: int = 0):
        super().__init__()
        self.network, self.parametrisation, self.process, self.classes = network, parametrisation, process, classes
        self.card: dict[str, Any] = {}

    def forward(self, x: Tensor, sigma: float | Tensor, classes: Tensor | None = None, **kwargs: object) -> Tensor:
        """E[x0 | x], of x's shape; of classes (B,), or of any image at all: None, and the network is given none."""
        if classes is not None:
            kwargs["classes"] = classes
        levels = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1).expand(len(x))
        z, t = self.process.from_frame(x, levels)
        a, s = over(self.process.a(t), z), over(self.process.s(t), z)
        u = self.parametrisation.image(self.network(z, t.to(z.dtype), **kwargs), z, a, s)
        return self.process.centre + self.process.unit * u
