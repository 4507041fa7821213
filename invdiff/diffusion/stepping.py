"""What an integrator is: called with (denoise, sigmas, x, noise), it yields a `Step` for each interval of the levels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

# (x, sigma) to E[x0 | x]; sigma is a float, or (B,) where adaptive steps have brought each chain to a level of its own
Denoise = Callable[[Tensor, Any], Tensor]
DrawNoise = Callable[[], Tensor]


@dataclass(frozen=True)
class Step:
    """The state after a step: x at noise level sigma, and the clean estimate x0 that led there.

    info: what a sampler has to say besides, plain values by name; those of the last step go into the report.
    """

    sigma: float
    x: Tensor
    x0: Tensor
    info: dict[str, Any] = field(default_factory=dict)


class Integrator(BaseModel):
    """Base of the integrators: a frozen set of parameters, callable.

    usual_steps: as many draw good images from a network, where nothing else is known.
    adaptive: does it choose its own steps, for each chain apart, between the first and the last level? It then yields a step
    for a level once no chain is above it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    usual_steps: ClassVar[int] = 20
    adaptive: ClassVar[bool] = False

    def __call__(self, denoise: Denoise, sigmas: Tensor, x: Tensor, noise: DrawNoise) -> Iterator[Step]:
        raise NotImplementedError

    @property
    def calls_per_step(self) -> int | None:
        """Denoiser calls of a step, of any but the one to zero, which takes one; None where it is adaptive."""
        return None if self.adaptive else 1


def towards(x0: Tensor, x: Tensor, sigma: float, after: float, eta: float, noise: DrawNoise) -> Tensor:
    """From sigma to after along the line to x0, with a share of the noise drawn anew (Song et al. 2021, Eq. 16).

    Above eta = 1, the reverse SDE, noise comes eta^2 times as fast, and x0 pulls as much harder: Langevin dynamics on the way
    (Karras et al. 2022, Eq. 6), solved exactly for a constant x0.
    """
    fresh = after**2 * (eta**2 * (1 - (after / sigma) ** 2) if eta <= 1 else 1 - (after / sigma) ** (2 * eta**2))
    x = torch.lerp(x0, x, (after**2 - fresh) ** 0.5 / sigma)
    return x.add(noise(), alpha=fresh**0.5) if fresh > 0 else x
