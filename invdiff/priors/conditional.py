"""Priors told what to show: guidance by a class wraps a denoiser, and every integrator and sampler runs on the result."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from deepinv.models import Denoiser
from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat
from torch import Tensor

from invdiff.errors import InputError
from invdiff.priors.denoiser import AsItsPrior
from invdiff.priors.facts import known_spectrum, own_sampling
from invdiff.priors.spectrum import ErrorSpectrum


def _rising(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError(f"expected the lowest noise level and then the highest, got {interval}")
    return interval


Interval = Annotated[tuple[NonNegativeFloat, PositiveFloat], AfterValidator(_rising)]      # of noise levels


class _OfClasses(AsItsPrior):
    """A prior whose classes are chosen; `classes` are those to choose from: none."""

    chosen: Tensor
    classes = 0

    def _classes_of(self, count: int) -> Tensor:
        """The class (count,) of each of so many images. Raises InputError for another number of classes, but one."""
        if len(self.chosen) not in (1, count):
            raise InputError(f"classes: {len(self.chosen)} were chosen, and {count} images are denoised together; choose one "
                             f"for all, leave it to sample's classes=, or let batch_size be {len(self.chosen)}")
        return self.chosen.expand(count)

    def error_spectrum(self, channels: int) -> ErrorSpectrum | None:
        """That of the prior without a class: no smaller than it would be with one."""
        return known_spectrum(self.prior, channels)


class Guided(_OfClasses):
    """Classifier-free guidance, D(x) + scale (D(x | class) - D(x)) (Ho & Salimans 2022, Eq. 6, with scale = 1 + w).

    scale = 1 is the class-conditional prior itself, one call of the network; any other takes two where it acts. Above 1,
    samples are more typical of their class and vary less; they are then no samples of p(x | class).

    Args:
        prior: a denoiser that takes classes.
        classes: the class of every image (B,), or one number for all.
        scale: strength of the guidance.
        interval: noise levels between which it acts; outside, scale is 1 (Kynkäänniemi et al. 2024).

    Raises InputError for a scale but 1 and a prior of few steps, whose images are no means to be weighed.
    """

    def __init__(self, prior: Denoiser, classes: Tensor | int, scale: float = 1.0,
                 interval: tuple[float, float] = (0.0, float("inf"))):
        super().__init__()
        if scale != 1 and own_sampling(prior):
            raise InputError("guidance: a prior of few steps is no denoiser, and has the guidance that its teacher had; leave "
                             "it out, or give the teacher")
        self.prior, self.scale, self.interval = prior, scale, interval
        self.register_buffer("chosen", torch.as_tensor(classes).reshape(-1))

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """E[x0 | x, class], extrapolated; x (B, C, H, W), sigma a float or (B,)."""
        count = len(x)
        classes = self._classes_of(count)
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1).expand(count)
        acts = self._acts(levels)
        if not acts.any():
            return self.prior(x, sigma, classes)
        both = self.prior(torch.cat([x, x[acts]]), torch.cat([levels, levels[acts]]),
                          torch.cat([classes, torch.full_like(classes[acts], -1)]))
        conditional, free = both[:count], both[count:]
        return conditional.index_put((acts,), free + self.scale * (conditional[acts] - free))

    def network_calls(self, x: Tensor, sigma: float | Tensor) -> int:
        """How many images the prior is asked for where x (B, C, H, W) is denoised: those on which guidance acts twice."""
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1).expand(len(x))
        return len(x) + int(self._acts(levels).sum())

    def _acts(self, levels: Tensor) -> Tensor:
        return (levels >= self.interval[0]) & (levels <= self.interval[1]) & (self.scale != 1)

    def with_variance(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor | None]:
        """The estimate, and what the prior given the class says of the variance of a step, if it does."""
        if self.scale != 1:
            return self(x, sigma), None
        told = getattr(self.prior, "with_variance", None)
        return told(x, sigma, self._classes_of(len(x))) if told else (self(x, sigma), None)


class ClassifierGuided(_OfClasses):
    """Classifier guidance, D(x) + scale sigma^2 grad log p(class | x) (Dhariwal & Nichol 2021, Eq. 14 as a denoiser, by
    Tweedie's formula).

    Args:
        prior: any denoiser.
        log_probs: log p(class | x) of a classifier of noisy images, (x, sigma) -> (B, K).
        classes, scale: as in `Guided`; scale 1 is Bayes' rule.
    """

    def __init__(self, prior: Denoiser, log_probs: Callable[[Tensor, Tensor], Tensor], classes: Tensor | int,
                 scale: float = 1.0):
        super().__init__()
        self.prior, self.log_probs, self.scale = prior, log_probs, scale
        self.register_buffer("chosen", torch.as_tensor(classes).reshape(-1))

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """x (B, C, H, W), sigma a float or (B,) -> (B, C, H, W)."""
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1).expand(len(x))
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            chosen = self.log_probs(at, levels).gather(1, self._classes_of(len(x))[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), at)
        return self.prior(x, sigma) + self.scale * levels.square().reshape(-1, 1, 1, 1) * gradient

    def with_variance(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, None]:
        """The estimate; what the prior says of the variance of a step is not of the class."""
        return self(x, sigma), None


def with_class(prior: Denoiser, options: Mapping[str, str], name: str) -> Denoiser:
    """A prior for the class, a number or a name, and the guidance of the options "class" and "guidance"; as it is without.

    Raises InputError: no such class, a prior without classes, or a strength that is no finite number.
    """
    if "class" not in options:
        if "guidance" in options:
            raise InputError(f"{name}: guidance needs a class, such as ?class=0&guidance=2")
        return prior
    number = class_number(prior, options["class"], name)
    try:
        scale = float(options.get("guidance", "1"))
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise InputError(f"{name}: guidance: expected a number, such as 2, got {options['guidance']!r}")
    return Guided(prior, number, scale)


def class_number(prior: Any, wanted: str, name: str) -> int:
    """The number of a class given by number or name, in any case. Raises InputError where the prior knows no such class."""
    if isinstance(prior, Guided):
        raise InputError(f"{name}: class: this prior's name gives it one already; leave one of them out")
    names = getattr(prior, "card", {}).get("classes") or [str(i) for i in range(int(getattr(prior, "classes", 0)))]
    if not names:
        raise InputError(f"{name}: class: this prior knows no classes; leave it out")
    lower = [each.lower() for each in names]
    if wanted.lower() in lower:
        return lower.index(wanted.lower())
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    listed = ", ".join(each if each == str(i) else f"{i} {each}" for i, each in enumerate(names))
    raise InputError(f"{name}: class: expected one of {listed}, got {wanted!r}")
