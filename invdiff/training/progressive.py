"""Progressive distillation: a student that does in one step of DDIM what its teacher does in two, and then teaches."""

import copy
import math
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import FiniteFloat, PositiveInt, model_validator
from torch import Tensor, nn

from invdiff.diffusion.integrators import DDIM
from invdiff.diffusion.schedules import Cosine
from invdiff.diffusion.sdes import UNIT
from invdiff.priors.conditional import Interval
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.training.noise_levels import Noise, RunningLoss, quantiles
from invdiff.training.objectives import Loss, Objective, Sampling, Teacher, per_image


class ProgressiveLoss(Loss):
    """Salimans & Ho (2022), Algorithm 2. The run has phases: the first student takes half of `first` steps, and each of the
    others half as many as the one before, down to `last`. A phase begins with the average of the weights that the one before
    ended with, student and teacher both, and with a new optimiser; those of one and two steps are twice as long (Sec. 5).

    The levels are those of the cosine schedule with the last at 0, unit tan(a i / N), tan a = noise.high / unit; each of a
    student's is one of its teacher's. `noise` gives the highest. The error is weighted by SNR + 1 (Sec. 4) with sigma_data as
    unit, EDM's weight.

    teacher: of the first phase, a prior by name or file.
    guidance: of that one by the class of each image, which its student then has learned (Meng et al. 2023); 1 is none.
    guidance_interval: noise levels, lowest and highest, at which that acts; without it, at all.
    """

    of_one_length: ClassVar[bool] = True
    kind: Literal["progressive"]
    teacher: str
    first: PositiveInt = 32
    last: PositiveInt = 2
    guidance: FiniteFloat = 1.0
    guidance_interval: Interval | None = None

    @model_validator(mode="after")
    def _halves(self) -> "ProgressiveLoss":
        times = math.log2(self.first / self.last)
        if times < 1 or times % 1:
            raise ValueError(f"first: expected last = {self.last} times 2, 4, 8 or a higher power of two, got {self.first}")
        return self

    def objective(self, denoiser: EDMDenoiser, noise: Noise) -> Objective:
        return ProgressiveObjective(denoiser, self, noise)

    def students(self) -> list[int]:
        """How many steps the student of each phase takes."""
        return [self.first >> k for k in range(1, 1 + round(math.log2(self.first / self.last)))]

    def phases(self, steps: int) -> list[range]:
        """The steps of each phase."""
        ends = np.cumsum([0, *(2 if student <= 2 else 1 for student in self.students())])
        return [range(a, b) for a, b in pairwise((steps * ends / ends[-1]).round().astype(int).tolist())]

    def number(self, step: int, steps: int) -> int:
        """Which phase it is, from 0."""
        return next(i for i, phase in enumerate(self.phases(steps)) if step < phase.stop)

    def phase(self, step: int, steps: int) -> range:
        return self.phases(steps)[self.number(step, steps)]

    def draw(self, noise: Noise, count: int, rng: np.random.Generator, step: int, steps: int,
             losses: RunningLoss) -> tuple[np.ndarray, np.ndarray]:
        """Each of the student's levels as often as the others."""
        student = self.students()[self.number(step, steps)]
        i = 1 + (quantiles(count, rng) * student).astype(int).clip(max=student - 1)
        return level(torch.from_numpy(i / student), noise.high).numpy(), np.ones(count)

    def trained_range(self, noise: Noise) -> tuple[float, float]:
        return noise.low, noise.high        # its levels are its own, whatever the noise's kind

    def sampling(self, noise: Noise, step: int, steps: int) -> Sampling:
        student = self.students()[self.number(max(0, step - 1), steps)]
        low = float(level(torch.tensor(1 / student, dtype=torch.float64), noise.high))
        low = min(low, noise.high)          # of one step it is that, but for rounding
        return Sampling("ddim", DDIM(), student, "cosine", Cosine(), low, noise.high)


class ProgressiveObjective(Objective):
    """The student is `denoiser`; the teacher is first a prior, then the student of the phase before."""

    def __init__(self, denoiser: EDMDenoiser, loss: ProgressiveLoss, noise: Noise):
        super().__init__()
        self.denoiser, self.loss, self.high = denoiser, loss, noise.high
        self.first = Teacher(loss.teacher, denoiser, loss.guidance, loss.guidance_interval)
        self.teacher = copy.deepcopy(denoiser).requires_grad_(False).eval()
        self.interval: Tensor           # the student's step, in shares of the angle
        self.register_buffer("interval", torch.tensor(2 / loss.first), persistent=False)
        self.turned = False             # is the teacher a former student?

    def kept(self) -> dict[str, nn.Module]:
        return {"teacher": self.teacher}

    def at(self, step: int, steps: int) -> None:
        number = self.loss.number(step, steps)
        self.turned = number > 0
        self.interval.fill_(1 / self.loss.students()[number])

    def turn(self, average: EDMDenoiser) -> None:
        self.teacher.load_state_dict(average.state_dict())

    def about(self) -> dict[str, Any]:
        return self.first.about()

    def ask(self, x: Tensor, sigma: Tensor, classes: Tensor | None) -> Tensor:
        """D(x, sigma) of the phase's teacher, sigma (B, 1, 1, 1)."""
        if self.turned:
            return self.teacher(x, sigma.flatten(), classes)
        return self.first(x, sigma, classes)

    def forward(self, x0: Tensor, noise: Tensor, sigma: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = per_image(sigma)
        x = x0 + s * noise
        with torch.no_grad():
            target = self.target(x, s, classes)
        error = self.denoiser.precondition(x, sigma, classes) - target
        weight = sigma.square().reciprocal() + self.denoiser.sigma_data**-2
        losses = weight * error.square().mean(dim=(1, 2, 3))
        return losses, losses

    def target(self, x: Tensor, sigma: Tensor, classes: Tensor | None) -> Tensor:
        """The x0 with which a step from x at sigma (B, 1, 1, 1) ends where two steps of the teacher do (Algorithm 2)."""
        place = share(sigma, self.high)
        middle, after = (level((place - part * self.interval).clamp_min(0), self.high) for part in (0.5, 1.0))
        half = step(x, self.ask(x, sigma, classes), sigma, middle)
        end = step(half, self.ask(half, middle, classes), middle, after)
        ratio = after / sigma
        return (end - ratio * x) / (1 - ratio)


def step(x: Tensor, x0: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
    """A step of DDIM (Song et al. 2021, Eq. 12)."""
    return x0 + after / sigma * (x - x0)


def level(place: Tensor, high: float) -> Tensor:
    """The noise level at a share of the angle of the cosine schedule, 0 at 0 and `high` at 1."""
    return UNIT * torch.tan(place * math.atan(high / UNIT))


def share(sigma: Tensor, high: float) -> Tensor:
    """The inverse of `level`."""
    return torch.atan(sigma / UNIT) / math.atan(high / UNIT)
