"""Consistency models: f(x, sigma), where the probability flow from x ends, learned in place of the mean E[x0 | x].

f is equal at two points of one path, and f(x, 0) = x. A step asks that of neighbours, x at t and its predecessor at r < t
(Song et al. 2023, Eqs. 7 and 10): the distance of f(x_t, t) from f(x_r, r), through which no gradient goes, and which is no
average of f (Song & Dhariwal 2024, Sec. 3.2). f is preconditioned as a denoiser is. That leaves f(x, sigma_min) within
sigma_min of x, and f(x, 0) = x (Geng et al. 2024, Sec. 3), so a denoiser's weights may be where it begins.
"""

import math
from typing import Any, Literal

import torch
from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from invdiff.diffusion.consistency import Consistency
from invdiff.diffusion.schedules import Karras
from invdiff.errors import InputError
from invdiff.priors.conditional import Interval
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.training.noise_levels import Noise
from invdiff.training.objectives import Loss, Objective, Sampling, Teacher, per_image

_RHO = 7.0


class ConsistencyLoss(Loss):
    """Training: x_t and x_r are x0 with the same noise, and there is no teacher (Song & Dhariwal 2024). Distillation: x_r is
    where a step of the teacher's probability flow leads to from x_t (Song et al. 2023, Algorithm 2).

    The levels t of a step are those of `noise`, and r is an interval below on a grid of N, even in sigma^(1/7), that slides so
    as to hold t; r in the grid's first interval becomes its end, noise.low, where f(x, r) is x. N doubles from `first` to
    `last` over the run, each for as many steps (Song & Dhariwal 2024, Sec. 3.4). The distance is pseudo-Huber,
    sqrt(|.|^2 + c^2) - c of the root mean square, c = `huber`, theirs for images in [0, 1] (ibid., Sec. 3.3), and weighted by
    1 / (t - r).

    teacher: a prior by name or file. It is no part of the run's state.
    order: of the teacher's step, 1 is Euler's, of one call, 2 is Heun's, of two.
    guidance: of the teacher by the class of each image (`invdiff.priors.Guided`), for twice the calls; 1 is none.
    guidance_interval: noise levels, lowest and highest, at which that acts; without it, at all.
    steps, second: how f is to be sampled: the number of calls, and the level of the second; the first is at the highest
        of `noise`.
    """

    kind: Literal["consistency_training", "consistency_distillation"]
    first: int = Field(10, ge=2)
    last: int = Field(160, ge=2)
    huber: PositiveFloat = 0.00027
    teacher: str | None = None
    order: Literal[1, 2] = 2
    guidance: FiniteFloat = 1.0
    guidance_interval: Interval | None = None
    steps: PositiveInt = 2
    second: PositiveFloat = 0.4

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "ConsistencyLoss":
        if self.last < self.first:
            raise ValueError(f"last: expected at least first = {self.first}, got {self.last}")
        if (self.kind == "consistency_distillation") != (self.teacher is not None):
            raise ValueError("teacher: expected a prior for consistency_distillation, and none for consistency_training")
        return self

    def objective(self, denoiser: EDMDenoiser, noise: Noise) -> Objective:
        high = noise.trained_range()[1]
        if self.steps > 1 and self.second > high:
            raise InputError(f"loss.second: expected at most {high:g}, the highest noise level, where sampling begins, got "
                             f"{self.second:g}")
        return ConsistencyObjective(denoiser, self, noise)

    def intervals(self, step: int, steps: int) -> int:
        """N at a step."""
        stages = 1 + math.ceil(math.log2(self.last / self.first))
        return min(self.last, self.first * 2 ** (step * stages // steps))

    def sampling(self, noise: Noise, step: int, steps: int) -> Sampling:
        high = noise.trained_range()[1]
        low = self.second if self.steps > 1 else high
        return Sampling("consistency", Consistency(), self.steps, "karras", Karras(), low, high)


class ConsistencyObjective(Objective):
    """f is `denoiser`."""

    def __init__(self, denoiser: EDMDenoiser, loss: ConsistencyLoss, noise: Noise):
        super().__init__()
        self.denoiser, self.loss = denoiser, loss
        self.teacher = Teacher(loss.teacher, denoiser, loss.guidance, loss.guidance_interval) if loss.teacher else None
        self.ends = noise.low ** (1 / _RHO), noise.high ** (1 / _RHO)
        self.interval: Tensor           # of the grid, as a share of it
        self.register_buffer("interval", torch.tensor(1 / loss.first), persistent=False)

    def at(self, step: int, steps: int) -> None:
        self.interval.fill_(1 / self.loss.intervals(step, steps))

    def about(self) -> dict[str, Any]:
        return self.teacher.about() if self.teacher else {}

    def forward(self, x0: Tensor, noise: Tensor, sigma: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        t, r, ends = self.neighbours(sigma)
        x = x0 + t * noise
        with torch.no_grad():
            before = self.predecessor(x, t, r, classes) if self.teacher else x0 + r * noise
            target = torch.where(ends, before, self.denoiser.precondition(before, r.flatten(), classes))
        error = self.denoiser.precondition(x, t.flatten(), classes) - target
        distance = (error.square().mean(dim=(1, 2, 3)) + self.loss.huber**2).sqrt() - self.loss.huber
        losses = distance / (t - r).flatten()
        return losses, losses

    def neighbours(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """t, r and whether r is the least level, (B, 1, 1, 1): t is sigma, but no lower than an interval above the least level.

        No t is within the first interval, so f is not trained there, and is never a target: what it says there would come back
        in what it learns above, and grow.
        """
        low, high = self.ends
        place = ((per_image(sigma) ** (1 / _RHO) - low) / (high - low)).clamp_min(self.interval)
        ends = place < 2 * self.interval
        t, r = ((low + (high - low) * at) ** _RHO for at in (place, torch.where(ends, 0.0, place - self.interval)))
        return t, r, ends

    def predecessor(self, x: Tensor, t: Tensor, r: Tensor, classes: Tensor | None) -> Tensor:
        """From x at t down to r on the teacher's probability flow."""
        assert self.teacher is not None
        slope = (x - self.teacher(x, t, classes)) / t
        ahead = x + (r - t) * slope
        if self.loss.order == 1:
            return ahead
        return x + (r - t) / 2 * (slope + (ahead - self.teacher(ahead, r, classes)) / r)
