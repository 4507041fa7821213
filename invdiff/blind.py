"""How wide a blur is, as its measurement tells: the width under which the measurement is the most likely."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from deepinv.models import Denoiser
from torch import Tensor
from torch.nn import functional

import operators
from invdiff.config import RunConfig, unknown_width
from invdiff.errors import InputError
from invdiff.io.jpeg import jpeg_steps
from invdiff.noise_level import noise_level
from invdiff.posing import photo
from invdiff.posterior import MomentMatching
from invdiff.priors import load_prior
from invdiff.problem import Problem
from invdiff.restoration import Progress, Stop, restore

SIDE = 128          # pixels of the part of a measurement that is looked at
STEPS, SAMPLES = 15, 2
MORE = 4            # widths that are tried between the two that the sought one is found to be between
NEAR = 1.02         # ratio of widths over which a difference stands for a derivative
LEAST_NOISE = 0.002     # about what rounding to 8 bits adds
STRIDE = 8
Place = tuple[float, float]     # the logarithm of a width, and the slope there
WHITE = 0.98        # above which a pixel may be clipped
LEAST_SIDE = 48
USUALLY = "On photographs tried it was off by a tenth at most, once by more; rings in the result say that it is too wide."
UNTRIED = "How far off it may be is not known, of {}; rings in the result say that it is too wide."


class Range(NamedTuple):
    """Kernels by their width, and which are tried at first: from `low` to `high`, each wider by at most `ratio`. A disc's
    spectrum has zeros, so that only one of nearly its radius is likelier than a little smaller or larger ones. measured: widths
    between which errors are known."""

    kernel: Callable[[float], Tensor]
    low: float
    high: float
    ratio: float
    measured: tuple[float, float] = (0.0, 0.0)
    name: str = "such blur"


RANGES = {"gaussian_blur": Range(operators.gaussian_kernel, 0.4, 6.0, 1.7, (0.9, 3.0), "Gaussian blur"),
          "defocus_blur": Range(operators.disc_kernel, 1.0, 8.0, 1.1, (2.5, 4.0), "disc")}


@dataclass(frozen=True)
class Trial:
    """How far an estimate is: `share` of its `number`th width is done, of about `count`; an end of the range takes fewer."""

    number: int
    count: int
    share: float


OnWidth = Callable[[Trial], object]


def with_width(config: RunConfig, load: Callable[[str], Denoiser] = load_prior,
               on_width: OnWidth | None = None) -> tuple[RunConfig, dict[str, Any]]:
    """The config of a run with its blur's width, if that is `auto`, as the measurement tells it; and an entry of the report on
    it. load: gives a prior by its name. on_width: see `find_width`. Raises InputError."""
    key = unknown_width(config.operator)
    if key is None:
        return config, {}
    y, among = photo(config.input or ""), RANGES[config.operator["name"]]
    if min(y.shape[-2:]) < LEAST_SIDE:
        raise InputError(f"operator.{key}: auto needs an image of {LEAST_SIDE} x {LEAST_SIDE} pixels and more; give a number")
    sigma_y = noise_level(y, path=config.input).sigma if config.sigma_y == "auto" else float(config.sigma_y or 0)
    width = find_width(among, y, sigma_y, load(config.prior), seed=config.seed, device=config.device, on_width=on_width)
    caveat = _caveat(among, width, jpeg_steps(config.input) is not None)
    words = f"The blur is estimated from the image: {key} = {width:.3g} pixels. {caveat}"
    found = config.model_copy(update={"operator": config.operator | {key: width}})
    return found, {"blur": {"found": {key: width}, "words": words}}


def _caveat(among: Range, width: float, compressed: bool) -> str:
    if width == among.low:
        return f"It shows no {among.name} wider than that: if it looks soft or shaken, its blur is of another kind."
    if width == among.high:
        return "It may be wider: that is as far as is looked."
    if compressed:
        return UNTRIED.format("a JPEG")
    return USUALLY if among.measured[0] <= width <= among.measured[1] else UNTRIED.format("such a width")


def find_width(among: Range, y: Tensor, sigma_y: float, prior: Denoiser, *, seed: int = 0, device: str = "auto",
               on_width: OnWidth | None = None) -> float:
    """The width w, of those `among`, under which a blurred image y (1, C, H, W) has the largest likelihood

        p(y | w) = ∫ p(y | x, w) p(x) dx,   with   d log p(y | w) / dw = E[ d log p(y | x, w) / dw | y, w ]

    (Fisher's identity, as in Dempster, Laird & Rubin 1977), whose right side posterior samples tell. What maximises p(y | x, w)
    together with x, or expectation maximisation, stays near the width it begins from, as x explains y under any. An end of the
    range is taken only where there is no maximum within: a soft picture that is hardly blurred explains y almost as well.

    among: of kernels (kh, kw) of odd sides. sigma_y: standard deviation of y's noise, in its units. seed: of the samples.
    on_width: called after each step of the samples for a width; what it raises, be it `Stop`, ends the estimate.
    Looks at 128 x 128 pixels of y, those with the most detail, as if nothing were known beyond them.
    """
    shown, noise = _detailed(y), max(sigma_y, LEAST_NOISE)
    sampler = MomentMatching(num_steps=STEPS, sigma_min=max(noise / 5, 0.001), covariance="spectral")   # to below the noise
    count = 1 + math.ceil(math.log(among.high / among.low) / math.log(among.ratio))
    watch = _Watch(on_width, count + MORE)

    def slope(t: float, samples: int = SAMPLES) -> float:
        watch.number += 1
        found = _slope(among.kernel, math.exp(t), shown, noise, prior, sampler, samples, seed, device, watch)
        if watch.stopped:
            raise Stop
        return found

    tried = [(t, slope(t, 1)) for t in torch.linspace(math.log(among.low), math.log(among.high), count).tolist()]
    if tried[-1][1] > 0:
        return among.high
    between = _most_likely(tried)
    return among.low if between is None else math.exp(_root(slope, *between))


@dataclass
class _Watch:
    """Hands steps on as those of the `number`th of about `count` widths, and notes a `Stop`, after which `restore` ends well
    where it has a sample by then."""

    on_width: OnWidth | None
    count: int
    number: int = 0
    stopped: bool = False

    def __call__(self, progress: Progress) -> None:
        try:
            if self.on_width:
                self.on_width(Trial(self.number, self.count, progress.done / progress.total))
        except Stop:
            self.stopped = True
            raise


def _most_likely(tried: list[Place]) -> tuple[Place, Place] | None:
    """Of neighbours, between which the slope falls through zero, those where the likelihood, its sum, is the largest; None
    where it falls through nowhere."""
    log_p, found = 0.0, {}
    for below, above in pairwise(tried):
        step = above[0] - below[0]
        if below[1] > 0 >= above[1]:
            found[log_p + step * below[1] ** 2 / (below[1] - above[1]) / 2] = below, above      # its height, by a line
        log_p += step * (below[1] + above[1]) / 2
    return found[max(found)] if found else None


def _root(slope: Callable[[float], float], below: Place, above: Place) -> float:
    """Where a slope is zero, between places where it is positive and negative: by lines through both (regula falsi), but not
    too near to either, as one may be far the steeper."""
    for _ in range(MORE):
        share = below[1] / (below[1] - above[1])
        t = below[0] + min(max(share, 0.2), 0.8) * (above[0] - below[0])
        found = (t, slope(t))
        below, above = (found, above) if found[1] > 0 else (below, found)
    return below[0] + below[1] / (below[1] - above[1]) * (above[0] - below[0])


def _slope(kernel: Callable[[float], Tensor], width: float, y: Tensor, noise: float, prior: Denoiser, sampler: MomentMatching,
           count: int, seed: int, device: str, on_step: Callable[[Progress], object] | None = None) -> float:
    """d log p(y | w) / d log w at a width, from `count` samples whose noise is the same for every width."""
    kernels = [kernel(width * factor) for factor in (1 / NEAR, 1.0, NEAR)]
    side = max(max(k.shape) for k in kernels)
    size = (y.shape[1], *(n + side - 1 for n in y.shape[-2:]))
    narrower, blur, wider = (operators.blur(size, _grown(k, side), "valid") for k in kernels)
    posed = Problem(blur, y, noise)
    samples = restore(posed, prior, sampler, samples=count, seed=seed, device=device, on_step=on_step).samples[0]
    change = (wider.A(samples) - narrower.A(samples)) / (2 * math.log(NEAR))
    return float(((y - blur.A(samples)) * change).sum() / len(samples) / noise**2)


def _grown(kernel: Tensor, side: int) -> Tensor:
    """With zeros around it, (side, side)."""
    down, across = ((side - n) // 2 for n in kernel.shape)
    return functional.pad(kernel, (across, across, down, down))


def _detailed(y: Tensor) -> Tensor:
    """The part (1, C, 128, 128) of an image with the most energy of differences between pixels, none of them near white."""
    down, across = (functional.pad(y.diff(dim=d), pad) for d, pad in ((-2, (0, 0, 1, 0)), (-1, (1, 0, 0, 0))))
    energy = (down.square() + across.square()) * (y < WHITE)
    side = [min(SIDE, n) for n in y.shape[-2:]]
    found = functional.avg_pool2d(energy.mean(1, keepdim=True), side, STRIDE)
    top, left = (int(i) * STRIDE for i in torch.unravel_index(found.argmax(), found.shape)[-2:])
    return y[..., top : top + side[0], left : left + side[1]]
