"""What a loss is to a run: a frozen set of parameters, and the module that they make, which the run trains."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from deepinv.models import Denoiser
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from invdiff.diffusion.integrators import Integrator
from invdiff.diffusion.schedules import Schedule
from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.priors.conditional import Guided
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.facts import channels_of, fingerprint, own_sampling
from invdiff.priors.latent import latent_of
from invdiff.training.noise_levels import Noise, RunningLoss


@dataclass(frozen=True)
class Sampling:
    """How a prior of few steps is sampled: what its card says under "sampling".

    solver, schedule_name: of integrator and schedule, the names that a user knows them by.
    """

    solver: str
    integrator: Integrator
    steps: int
    schedule_name: str
    schedule: Schedule
    sigma_min: float
    sigma_max: float

    def to_dict(self) -> dict[str, Any]:
        schedule = {"name": self.schedule_name, **self.schedule.model_dump()}
        return {"solver": self.solver, "steps": self.steps, "schedule": schedule, "sigma_min": self.sigma_min,
                "sigma_max": self.sigma_max}


class Objective(nn.Module):
    """A loss as one module, for it is modules that are compiled and spread over processes.

    Called with clean x0 and unit noise (B, C, H, W), levels sigma (B,) and classes (B,) or None, it returns what is minimised,
    and the weighted error, (B,) each. `head`, if there is one, is trained beside the denoiser.
    """

    def __init__(self) -> None:
        super().__init__()
        self.head: nn.Module | None = None

    def kept(self) -> dict[str, nn.Module]:
        """What belongs to the state of a run besides the denoiser, by name."""
        return {}

    def at(self, step: int, steps: int) -> None:
        """Called before each step, from 0, of `steps`: set what depends on it."""

    def turn(self, average: EDMDenoiser) -> None:
        """Called before the first step of each phase but the first; `average` is what the last one ended with."""

    def about(self) -> dict[str, Any]:
        """What a card says of the training besides the settings."""
        return {}


class Loss(BaseModel):
    """Base of the losses. One that weighs the denoiser's squared error defines `weight`, any other overrides `objective`.

    of_one_length: is a run of more steps another run from the start?
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    of_one_length: ClassVar[bool] = False

    def objective(self, denoiser: EDMDenoiser, noise: Noise) -> Objective:
        """The module for a denoiser and the range of its noise levels. Raises InputError."""
        return Denoising(denoiser, self)

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """w(sigma) (B,) of sigma (B,), in image units to the power -2 (or 0)."""
        raise NotImplementedError

    def head(self) -> nn.Module | None:
        """A trainable module that maps sigma (B,) to the log of the expected loss (B,), if there is one."""
        return None

    def phase(self, step: int, steps: int) -> range:
        """The steps of the phase that `step` belongs to. Rate, averages and optimiser begin anew with each."""
        return range(steps)

    def draw(self, noise: Noise, count: int, rng: np.random.Generator, step: int, steps: int,
             losses: RunningLoss) -> tuple[np.ndarray, np.ndarray]:
        """Noise levels of a step, of `steps`, and their weights, (count,) each: as `noise` says, if nothing else is said."""
        return noise.draw(count, rng, step, losses)

    def trained_range(self, noise: Noise) -> tuple[float, float]:
        """The lowest and the highest noise level that a prior of this loss knows."""
        return noise.trained_range()

    def sampling(self, noise: Noise, step: int, steps: int) -> Sampling | None:
        """How the prior is to be sampled after `step` steps of `steps`, where that is part of what it has learned."""
        return None


class Denoising(Objective):
    """A weight on the squared error of the denoiser."""

    def __init__(self, denoiser: EDMDenoiser, loss: Loss):
        super().__init__()
        self.denoiser, self.loss, self.head = denoiser, loss, loss.head()

    def kept(self) -> dict[str, nn.Module]:
        return {"head": self.head} if self.head else {}

    def forward(self, x0: Tensor, noise: Tensor, sigma: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        error = self.denoiser.precondition(x0 + sigma.reshape(-1, 1, 1, 1) * noise, sigma, classes) - x0
        losses = self.loss.weight(sigma, self.denoiser.sigma_data) * error.square().mean(dim=(1, 2, 3))
        if self.head is None:
            return losses, losses
        u = self.head(sigma)
        return losses * (-u).exp() + u, losses


class Teacher(nn.Module):
    """A prior that is asked, guided by the class of each image, if it knows any, and not trained.

    Raises InputError: there is none, one of few steps, of images or latents of other channels than `denoiser`, or of other
    classes; or guidance is asked of one that knows none.
    """

    def __init__(self, name: str, denoiser: EDMDenoiser, guidance: float = 1.0,
                 interval: tuple[float, float] | None = None):
        super().__init__()
        self.name, self.guidance, self.interval = name, guidance, interval or (0.0, math.inf)
        self.prior: Denoiser = load_prior(name).requires_grad_(False).eval()
        if own_sampling(self.prior):
            raise InputError(f"loss.teacher: {name} draws in few steps and is no denoiser; give its own teacher")
        latent = latent_of(self.prior)
        channels = latent.autoencoder.latent_channels if latent else channels_of(self.prior)
        if channels not in (None, denoiser.channels) and (channels, denoiser.channels) != (3, 1):      # colour ones take grey
            raise InputError(f"loss.teacher: {name} is of {channels} channels; expected network.channels, {denoiser.channels}")
        self.classes = int(getattr(self.prior, "classes", 0))
        if self.classes not in (0, denoiser.classes) or (guidance != 1 and not self.classes):
            raise InputError(f"loss.teacher: {name} knows {self.classes} classes; expected as many as network.classes, "
                             f"{denoiser.classes}, or none and no guidance")

    def forward(self, x: Tensor, sigma: Tensor, classes: Tensor | None) -> Tensor:
        """D(x, sigma | classes), sigma (B, 1, 1, 1)."""
        if not self.classes or classes is None:
            return self.prior(x, sigma.flatten())
        return Guided(self.prior, classes, self.guidance, self.interval)(x, sigma.flatten())

    def about(self) -> dict[str, Any]:
        """Its name, or its file's, and a fingerprint of its weights."""
        return {"teacher": {"name": Path(self.name).name, "weights": fingerprint(self.prior)}}


def per_image(levels: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return levels.reshape(-1, 1, 1, 1)
