"""sample(): images drawn from a prior alone, what `invdiff sample`, the app and the evaluation call."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.config import PARTS, build_part, name_of
from invdiff.diffusion.integrators import Consistency, DPMSolverPP, Integrator
from invdiff.diffusion.randomness import Streams, stream_seed
from invdiff.diffusion.schedules import Karras, Schedule
from invdiff.errors import InputError
from invdiff.figures import save_sheet, sheet
from invdiff.io.results import output_folder, write_json
from invdiff.machine import find_device, versions
from invdiff.priors import Guided
from invdiff.priors.counted import Counted
from invdiff.priors.facts import card_range, channels_of, own_sampling
from invdiff.priors.running import in_use
from invdiff.restoration import Progress, Stop, described

_PIXELS, _PIXELS_ON_CPU = 2**18, 2**16      # of images drawn together, if nothing else is said: more leave a CPU's cache
_SHEET = 100            # images on a sheet, at most
_FAR = (-1.0, 2.0)      # values beyond which an image is none, however much a solver or guidance overshoots white and black


@dataclass(frozen=True)
class Samples:
    """Images drawn from a prior.

    Attributes:
        images: (N, C, H, W), on the CPU, in image units, not clipped.
        classes: (N,), or None where the prior was told none.
        report: plain dict: solver, steps, noise levels, names of the prior's classes, guidance, seed, seconds, network calls an
            image, versions; `warning` where images lie far outside [0, 1].
    """

    images: Tensor
    classes: Tensor | None
    report: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write samples.npz (`images` float32 and, if there are some, `classes`), a sheet of the first hundred as samples.png,
        and report.json into the folder `path`, whole or not at all. Raises InputError."""
        arrays = {"images": self.images.numpy()}
        if self.classes is not None:
            arrays["classes"] = self.classes.numpy()
        with output_folder(path) as folder:
            np.savez(folder / "samples.npz", **arrays)    # type: ignore[arg-type]
            save_sheet(folder / "samples.png", sheet(self.images[:_SHEET]))
            write_json(folder / "report.json", self.report)


def sample(prior: Denoiser, count: int, integrator: Integrator, *, steps: int = 20, schedule: Schedule | None = None,
           sigma_min: float | None = None, sigma_max: float | None = None, size: tuple[int, int] | None = None,
           classes: Sequence[int] | None = None, guidance: float = 1.0, guidance_interval: tuple[float, float] | None = None,
           seed: int = 0, batch_size: int | None = None, device: str = "auto", precision: str = "fp32",
           channels: int | None = None, on_step: Callable[[Progress], object] | None = None) -> Samples:
    """Draw images from a prior.

    Args:
        prior: any deepinv Denoiser, or a latent prior of ours.
        count: how many images.
        integrator, steps, schedule: how the noise is taken away; Karras' levels without a schedule.
        sigma_min, sigma_max: the lowest level but 0, and the first, both > 0; the range of the prior's card without them.
        size: (H, W) in pixels; without it that of the images the prior was trained on, or 64 x 64.
        classes: the number of each image's class, -1 for any, or a single one for all.
        guidance: strength of classifier-free guidance; 1 is none.
        guidance_interval: noise levels, lowest and highest, at which it acts; without it, at all.
        seed: integer >= 0. Image i depends on (seed, i) and its class, and on nothing beside it.
        batch_size: images drawn together.
        channels: of the images, for a denoiser that does not say; 3 without it.
        on_step: called after each step. `Stop` raised by it ends the run with the images that are finished.

    Raises:
        InputError: an argument out of range, classes for a prior that knows none, a solver that is not for the prior, or images
            that are not finite.
        Stop: nothing was finished.
    """
    _check(count, steps, batch_size, seed, precision, guidance_interval)
    check_solver(prior, integrator)
    where, schedule = find_device(device), schedule or Karras()
    labels = _labels(prior, classes, count, guidance)
    low, high = card_range(prior)
    fewest = 2 if integrator.adaptive else 1            # which goes from the first level to the last in steps of its own
    low, high = low if sigma_min is None else sigma_min, high if sigma_max is None else sigma_max
    sigmas = _levels(schedule, max(steps, fewest), low, high)
    guided = partial(Guided, scale=guidance, interval=guidance_interval or (0.0, math.inf))
    draw = _Draw(prior.to(where), integrator, sigmas, _shape(prior, size, channels), guided, seed, where, precision, on_step)
    height, width = draw.shape[-2:]
    together = batch_size or max(1, (_PIXELS_ON_CPU if where.type == "cpu" else _PIXELS) // (height * width))
    began = time.perf_counter()
    with in_use(prior):
        drawn, calls = draw.all(count, labels, together)
    if bad := int((~drawn.isfinite().flatten(1).all(1)).sum()):
        nearer = "" if guidance == 1 else f", or a guidance nearer to 1 than {guidance:g}"
        raise InputError(f"sample: {bad} of {len(drawn)} images are not finite; take more steps or another solver{nearer}")
    report = {"solver": described(integrator),
              "steps": None if integrator.adaptive else len(sigmas) - 1,
              "schedule": described(schedule),
              "sigma_min": float(sigmas[-2]), "sigma_max": float(sigmas[0]), "guidance": guidance,
              "guidance_interval": guidance_interval and list(guidance_interval), "seed": seed,
              "classes": None if labels is None else getattr(prior, "card", {}).get("classes"),
              "count": len(drawn), "size": list(drawn.shape[-2:]), "seconds": round(time.perf_counter() - began, 3),
              "network_calls": calls / len(drawn), "device": str(where), "precision": precision,
              **_warning(drawn), "versions": versions()}
    return Samples(drawn, None if labels is None else labels[: len(drawn)], report)


def _check(count: int, steps: int, batch_size: int | None, seed: int, precision: str,
           interval: tuple[float, float] | None) -> None:
    if count < 1 or seed < 0 or steps < 1 or (batch_size is not None and batch_size < 1) or precision not in ("fp32", "bf16"):
        raise InputError(f"sample: expected count, steps and batch_size >= 1, seed >= 0 and precision fp32 or bf16, got "
                         f"{count}, {steps}, {batch_size}, {seed}, {precision!r}")
    if interval and interval[0] > interval[1]:
        raise InputError(f"guidance_interval: expected the lowest noise level and then the highest, got {interval}")


def _warning(images: Tensor) -> dict[str, str]:
    """For the report: of images, grey or in colour, that lie far outside [0, 1], a sentence; of others nothing."""
    low, high = float(images.min()), float(images.max())
    if images.shape[1] == 2 or (low >= _FAR[0] and high <= _FAR[1]):
        return {}
    return {"warning": f"The images reach from {low:.3g} to {high:.3g}, far outside [0, 1], as where a network sees more error "
                       "at the last noise level than it expects; take more steps, a higher sigma_min, such as 0.05, or less "
                       "guidance."}


def check_solver(prior: Denoiser, integrator: Integrator, name: str = "this prior") -> None:
    """Raises InputError for a solver that makes no images of a prior: another than that on the card of one of few steps, or
    `Consistency` where a card says of none that it is one."""
    own = own_sampling(prior).get("solver")
    usual = build_part("integrator", own, DPMSolverPP(), "sampling.solver") if own else DPMSolverPP()
    denoises = not own and bool(getattr(prior, "card", None))       # without a card it may be anything
    if type(integrator) is type(usual) or not (own or (denoises and isinstance(integrator, Consistency))):
        return
    raise InputError(f"solver: {name} is drawn from by {_solver_name(usual)}, and {_solver_name(integrator)} would make no "
                     f"images of it, for it is {'no' if own else 'a'} denoiser; give that one, or leave the solver out")


def _solver_name(integrator: Integrator) -> str:
    """What `--solver` calls it."""
    if isinstance(integrator, DPMSolverPP):
        return "dpmpp_2m_sde" if integrator.eta else "dpmpp_2m"
    return name_of(integrator, PARTS["integrator"])


def image_size(prior: Denoiser, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """(H, W) of the images that `sample` draws: `size`, that of the images the prior was trained on, or 64 x 64."""
    height, width = size or getattr(prior, "card", {}).get("image_size") or (64, 64)
    return height, width


class _Draw:
    """Draws images, batch by batch."""

    def __init__(self, prior: Denoiser, integrator: Integrator, sigmas: Tensor, shape: tuple[int, ...],
                 guided: Callable[[Denoiser, Tensor], Guided], seed: int, device: torch.device, precision: str,
                 on_step: Callable[[Progress], object] | None):
        self.prior, self.latent = Counted(prior, precision, device), getattr(prior, "latent", False)
        self.integrator, self.sigmas, self.shape, self.guided = integrator, sigmas, shape, guided
        self.seed, self.device, self.on_step = seed, device, on_step
        self.centre = float(getattr(prior, "centre", 0.0 if shape[0] == 2 or self.latent else 0.5))
        self.done, self.ahead = 0, 1

    def all(self, count: int, labels: Tensor | None, together: int) -> tuple[Tensor, int]:
        """Images (N, C, H, W) with labels (count,), so many `together`, and the network calls they took; less than `count`, of
        the batches that were finished, where a `Stop` ends it. Raises Stop where none was."""
        images: list[Tensor] = []
        calls = 0
        try:
            for first in range(0, count, together):
                numbers = range(first, min(first + together, count))
                self.ahead = -(-(count - first) // together)
                images.append(self.batch(numbers, None if labels is None else labels[first : first + together]))
                calls = self.prior.calls
        except Stop:
            if not images:
                raise
        return torch.cat(images), calls

    @torch.no_grad()
    def batch(self, numbers: Sequence[int], classes: Tensor | None) -> Tensor:
        """The images of these numbers (N, C, H, W), on the CPU."""
        streams = Streams([stream_seed(self.seed, 0, i) for i in numbers], self.device)
        denoise = self.prior if classes is None else self.guided(self.prior, classes.to(self.device))
        x = self.centre + float(self.sigmas[0]) * streams.normal(self.shape)
        total = self.done + self.ahead * (len(self.sigmas) - 1)
        for step in self.integrator(denoise, self.sigmas, x, lambda: streams.normal(self.shape)):
            self.done += 1
            x = step.x
            if self.on_step:
                self.on_step(Progress(self.done, max(total, self.done), step))
        return (self.prior.prior.decode(x) if self.latent else x).float().cpu()


def _levels(schedule: Schedule, steps: int, low: float, high: float) -> Tensor:
    try:
        return schedule(1 if low == high else steps, low, high)         # a solver's steps between equal levels are of no length
    except ValueError as error:
        raise InputError(str(error)) from error


def _labels(prior: Denoiser, classes: Sequence[int] | None, count: int, guidance: float) -> Tensor | None:
    known = int(getattr(prior, "classes", 0))
    if classes is None:
        if guidance != 1:
            raise InputError(f"guidance: {guidance:g} needs classes to guide towards; give them, or leave it at 1")
        return None
    if not known:
        raise InputError("classes: this prior knows none; leave them out")
    try:
        numbers = [index(number) for number in classes]
    except TypeError as error:
        raise InputError(f"classes: expected {count} whole numbers, or a single one for all ({error})") from error
    if len(numbers) not in (1, count) or max(numbers) >= known or min(numbers) < -1:
        span = f" from {min(numbers)} to {max(numbers)}" if numbers else ""
        raise InputError(f"classes: expected {count} numbers from -1, for any, to {known - 1}, got {len(numbers)}{span}")
    return torch.tensor(numbers).expand(count)


def _shape(prior: Any, size: tuple[int, int] | None, channels: int | None) -> tuple[int, ...]:
    card = getattr(prior, "card", {})
    height, width = image_size(prior, size)
    if min(height, width) < 1:
        raise InputError(f"size: expected positive numbers of pixels, got {height} x {width}")
    if getattr(prior, "latent", False):
        return tuple(prior.latent_shape((height, width)))
    return (channels or channels_of(prior) or card.get("architecture", {}).get("channels") or 3, height, width)
