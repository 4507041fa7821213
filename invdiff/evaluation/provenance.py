"""What of a restoration the data say, and what the prior filled in.

A splits an image x into what it measures and what it is blind to. With lambda = (sigma_y / spread)^2 and
R = (A^T A + lambda)^-1 A^T A, which is close to the projection on what is measured well enough, x is the sum of

    data      c + A^T (A A^T + lambda)^-1 (y - A c)     what the measurement alone says; the same for every prior and sampler,
    denoised  c + R (x - c) - data                      what the prior changed of what was measured: noise it took away, mostly,
    prior     (1 - R) (x - c)                           what no measurement speaks of: filled in by the prior.

c is the flat image that explains y best, one value for each channel, alike where nothing tells them apart: what is not measured
counts as it differs from that, and not from black. Where singular values s of A are kept or lost is where s meets
sigma_y / spread, and the noise equals what details of an image are worth. Without noise R is the projection on the row space,
and A cannot see the prior's part at all (Schwab, Antholzer & Haltmeier 2019, "Deep null space learning").
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from torch import Tensor
from torch.nn.functional import conv2d

from invdiff.diffusion.randomness import stream_seed, variance_of_mean
from invdiff.errors import InputError
from invdiff.evaluation.damped import damped_least_squares
from invdiff.posterior.low_rank import gram, inner
from invdiff.problem import Problem

SPREAD = 0.25           # typical standard deviation of images in [0, 1]
TOLERANCE = 1e-5        # of conjugate gradients, where an operator has no closed form
FOR_PROBES = 0.01       # the same, where the answer is noisy anyhow; it is off by about the square
FEWEST = 4              # probes, whatever they cost
ALIKE = 1e-4            # probes that differ less do so by rounding
RADIUS = 2.0            # pixels, of the window over noisy probes
NOTHING = 1e-3          # a part of smaller root mean square cannot be seen: a quarter of a grey level of 255


@dataclass(frozen=True)
class Provenance:
    """The three parts of a restoration, which add up to it, and how much of each pixel is measured.

    Attributes:
        data, denoised, prior: (B, C, H, W), in image units.
        measured: (B, 1, H, W) in [0, 1], the diagonal of R, mean over channels: 1 where a pixel is known from the data
            whatever the prior is, 0 where it is all the prior's; 1/4 for each of four pixels of which the mean is known.
    """

    data: Tensor
    denoised: Tensor
    prior: Tensor
    measured: Tensor

    @property
    def shares(self) -> dict[str, float]:
        """For a report. measured: the mean of the map, the part of the image's degrees of freedom that is measured. data,
        denoised, prior: root mean squares in image units, that of data around its mean in each channel, as brightness would
        hide all else, and as the others have none."""
        centred = self.data - self.data.mean((-2, -1), keepdim=True)
        return {"measured": float(self.measured.mean()), "data": _rms(centred), "denoised": _rms(self.denoised),
                "prior": _rms(self.prior)}

    def of_part(self, inner: Callable[[Tensor], Tensor]) -> "Provenance":
        """That of a part of the image, which `inner` takes of each map."""
        return Provenance(*(inner(x) for x in (self.data, self.denoised, self.prior, self.measured)))

    def within(self, support: Tensor) -> tuple["Provenance", "Provenance"]:
        """That of the pixels which count, support (1, C, H, W), 0 or 1: maps that are zero elsewhere, with `measured` the mean
        over the channels that count; and those of all pixels that do in a row, (B, C, 1, P), for shares and words."""
        support = support.to(self.data)
        measured = self.measured * support.shape[1] / support.sum(1, keepdim=True).clamp_min(1) * support.amax(1, keepdim=True)
        maps = Provenance(self.data * support, self.denoised * support, self.prior * support, measured.clamp(0, 1))
        inside = support[0].amax(0) > 0
        return maps, maps.of_part(lambda x: x[..., inside][..., None, :])

    def words(self) -> str:
        """One sentence."""
        shares = self.shares
        found = "filled in nothing" if shares["prior"] < NOTHING else f"filled in details of {_number(shares['prior'])} rms"
        changed = ("left what was measured as it was" if shares["denoised"] < NOTHING else
                   f"changed what was measured by {_number(shares['denoised'])} rms")
        return (f"The measurement fixes {_percent(shares['measured'])} of the pixels' freedom, with details of "
                f"{_number(shares['data'])} rms; the prior {found} and {changed}.")


@torch.no_grad()
def provenance(problem: Problem, x: Tensor, spread: float | None = None, probes: int = 16, seed: int = 0,
               effort: int | None = None) -> Provenance:
    """Split a restoration by where it comes from.

    Args:
        problem: of a linear operator, with measurements y (B, ...).
        x: restorations (B, C, H, W): a mean or a sample.
        spread: typical standard deviation of image details, in image units; 0.25 by default.
        probes: random images behind `measured`. Two do where the operator acts on each pixel alone; elsewhere more of them
            mean less noise. The cost is one solve with A each.
        seed: of the probes.
        effort: iterations of the solves behind `measured`, after which there are no more probes than four.

    Raises:
        InputError: an operator that is not linear, x of another shape, or a number out of range.
    """
    if not isinstance(problem.physics, LinearPhysics):
        raise InputError(f"provenance: {type(problem.physics).__name__} is not linear, so an image has no part that it "
                         "measures and part that it does not; expected a linear operator")
    expected = (len(problem.y), *problem.image_shape)
    if tuple(x.shape) != expected:
        raise InputError(f"x: expected restorations {expected}, got {tuple(x.shape)}")
    if probes < 1 or not 0 < (SPREAD if spread is None else spread) < float("inf"):
        raise InputError(f"provenance: expected probes >= 1 and spread > 0, got probes={probes} and spread={spread}")
    noise = (problem.sigma_y / (SPREAD if spread is None else spread)) ** 2
    x = x.to(problem.y)
    flat = _flat(problem, noise)
    data = flat + damped_least_squares(problem, problem.y - problem.A(flat), noise, TOLERANCE).x
    seen = flat + damped_least_squares(problem, problem.A(x - flat), noise, TOLERANCE).x
    return Provenance(data, seen - data, x - seen, _measured(problem, noise, x, probes, seed, effort))


def _flat(problem: Problem, noise: float) -> Tensor:
    """c, the flat images that explain y best, (B, C, H, W): by least squares, damped by `noise`. First the level of all
    channels alike, then what they differ by, so that no colour is made up where none is seen; but of complex images."""
    count, channels = len(problem.y), problem.image_shape[0]
    shape = (count, *problem.image_shape)

    def seen(image: Tensor) -> Tensor:
        return problem.A(image.reshape(1, channels, 1, 1).expand(shape))

    units = torch.eye(channels).to(problem.y)
    level = _fitted([seen(units.sum(0))], problem.y, noise) if channels != 2 else torch.zeros(count, 1)
    rest = problem.y - problem.A(level[:, :, None, None].to(problem.y).expand(shape))
    colour = level + (_fitted([seen(unit) for unit in units], rest, noise) if channels > 1 else 0)
    return colour[:, :, None, None].to(problem.y).expand(shape)


def _fitted(columns: Sequence[Tensor], y: Tensor, noise: float) -> Tensor:
    """Weights (B, J) of columns (B, ...) that make y best, in float32 on the CPU."""
    inverse = torch.linalg.pinv(gram(columns, columns) + noise * torch.eye(len(columns)), rtol=1e-6, hermitian=True)
    return (inverse @ inner(columns, y)[..., None])[..., 0].float()


def _measured(problem: Problem, noise: float, like: Tensor, probes: int, seed: int, effort: int | None) -> Tensor:
    """The diagonal of R, mean over channels, (B, 1, H, W): E[z * R z] for random signs z (Bekas, Kokiopoulou & Saad 2007).

    Every measurement sees the same signs, so what is beside it does not matter.
    """
    draws, spent = list[Tensor](), 0
    for k in range(probes):
        generator = torch.Generator().manual_seed(stream_seed(seed, 0, k))
        z = torch.randint(2, like.shape[1:], generator=generator).to(like).mul(2).sub(1).expand_as(like)
        seen, iterations = damped_least_squares(problem, problem.A(z), noise, FOR_PROBES)
        draws.append((z * seen).mean(1, keepdim=True))
        spent += iterations
        alike = k == 1 and (draws[0] - draws[1]).abs().max() < ALIKE
        if alike or (effort is not None and spent >= effort and len(draws) >= FEWEST):
            break
    return _steadied(torch.stack(draws)).clamp(0, 1)


def _steadied(draws: Tensor) -> Tensor:
    """The mean of draws (K, B, 1, H, W), smoothed as far as they disagree.

    Lee's filter (1980, "Digital image enhancement and noise filtering by use of local statistics"): between the mean around a
    pixel and its own value, by how much of the variation around it is more than noise. A pixel without noise stays as it is.
    """
    if len(draws) == 1:
        return draws[0]
    own, variance = draws.mean(0), draws.var(0) / len(draws)
    around = _window(own)
    real = (_window(own.square()) - around.square() - _window(variance)).clamp_min(0)
    gain = torch.where(variance > ALIKE**2, real / (real + variance), 1)
    return around + gain * (own - around)


def _window(x: Tensor) -> Tensor:
    """Gaussian means around each pixel of x (B, 1, H, W), over what lies within the image."""
    for dim in (-2, -1):
        reach = round(3 * RADIUS)
        weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).to(x) / RADIUS) ** 2)
        weight = weight.reshape((1, 1, -1, 1) if dim == -2 else (1, 1, 1, -1))
        margin = (reach, 0) if dim == -2 else (0, reach)
        x = conv2d(x, weight, padding=margin) / conv2d(torch.ones_like(x[:1]), weight, padding=margin)
    return x


@dataclass(frozen=True)
class Shift:
    """How another prior moves the posterior mean.

    Attributes:
        map: |difference of the means|, root mean square over channels, (B, 1, H, W).
        rms: of the difference, in image units.
        expected: of it, from the finite number of samples alone; None where either side has a single sample.
    """

    map: Tensor
    rms: float
    expected: float | None


def prior_shift(reference: Tensor, priors: Mapping[str, Denoiser],
                restore_with: Callable[[Denoiser], Tensor]) -> dict[str, Shift]:
    """What would have come out under other priors: where the means agree, the image is the data's; where not, the prior's.

    Args:
        reference: posterior samples (B, S, C, H, W) under the prior that was used.
        priors: the other ones, by name.
        restore_with: prior -> samples (B, S', C, H, W) of the same problem, for example
            `lambda prior: restore(problem, prior, sampler, samples=8, seed=1).samples`.

    Raises InputError where samples have another shape than the reference's.
    """
    shifts = {}
    for name, prior in priors.items():
        samples = restore_with(prior)
        if samples.ndim != 5 or reference.ndim != 5 or samples[:, 0].shape != reference[:, 0].shape:
            raise InputError(f"{name}: expected samples (B, S, C, H, W) of the reference's shape {tuple(reference.shape)}, got "
                             f"{tuple(samples.shape)}")
        difference = samples.mean(1) - reference.mean(1).to(samples)
        sides = (samples, reference)
        expected = None if any(side.shape[1] == 1 for side in sides) else float(
            sum(float(variance_of_mean(side, 1).mean()) for side in sides)) ** 0.5
        shifts[name] = Shift(difference.square().mean(1, keepdim=True).sqrt(), _rms(difference), expected)
    return shifts


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


def _number(value: float) -> str:
    """Two digits, never in powers of ten."""
    return f"{value:.1g}" if 1e-4 <= value < 0.01 else f"{value:.2f}"


def _percent(share: float) -> str:
    """Whole percents; 0 % and 100 % are kept for what is."""
    if share < 5e-7:
        return "0 %"
    if share < 0.01:
        return "less than 1 %"
    return "100 %" if share > 0.9999 else f"{min(round(100 * share), 99)} %"
