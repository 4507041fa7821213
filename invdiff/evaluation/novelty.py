"""A warning when a prior is out of its depth: is an image like those that it restores well?

What a prior makes of an image shows in how it denoises it. With D = D(x + sigma n, sigma), of each noise level sigma:

    loss      log of |D - x|^2 / (sigma^2 n_pixels): the integrand of -log p(x), so the prior's likelihood by scale (I-MMSE;
              Guo, Shamai & Verdu 2005; Kong, Brekelmans & Ver Steeg 2023, "Information-theoretic diffusion");
    roughest  log of the loss in the tenth of the patches where it is largest: what is strange need not fill the image.

Patches of air are left out of both, for how much of it surrounds a head says nothing of the head.

Both sides are strange: photographs cost a prior of brains more than brains do, an empty phantom less; by its likelihood alone
it would be the likeliest brain of all (Nalisnick et al. 2019). Where the threshold lies is learned from restorations that are
in order. Their residual is not among the features: known to half a per cent where noise is simulated, and to a tenth where
it is estimated, it made every real scan a strange one. `consistency` judges it.

How the loss compares with sigma^2 div D, the error that the denoiser itself expects, tells more kinds apart, but also one
subject's scans from another's: on brains it warned for nothing in a third of the images, so it is not among the features.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor
from torch.nn.functional import avg_pool2d

from invdiff.diffusion.randomness import Streams, stream_seed
from invdiff.errors import InputError

LEVELS = (0.02, 0.05, 0.1, 0.2)     # noise levels, in image units
DRAWS = 2                           # noises at each; one where an image has
LARGE = 2**17                       # pixels or more, over which it averages: scores move by less than 0.1
PATCH = 16                          # pixels, the side of a patch; a quarter of the image's where that is less
AIR = 0.2                           # patches of less root mean square, in that of the brightest twentieth, are air
ROUGHEST = 0.9                      # quantile over patches
SMALLEST = 1e-4                     # losses below it, relative to sigma^2, are none
ALARMS = 0.05                       # share of images like the calibration ones that may be called unusual
SHRINKAGE = 0.3                     # of the features' correlations towards none: calibration images are few
KEYS = ("mean", "scale", "precision", "scores")
UNTOLD = ("Whether the image is like those the prior was tried on cannot be told, as the residual is not what noise alone "
          "would leave.")


@torch.no_grad()
def features(prior: Denoiser, x: Tensor, seed: int = 0) -> Tensor:
    """What a prior makes of images, (B, 8) float64 on the CPU.

    Costs LEVELS * DRAWS = 8 network calls an image, half as many if it is large, one at a time: in one batch they would take
    the most memory of a run.

    Args:
        prior: any Denoiser, of colour, grey or complex images.
        x: (B, C, H, W), clean images or restorations; complex ones have two channels.
        seed: of the noise, the same for every image, so that images are compared under the same noise.

    Raises InputError where x is none of images or not finite.
    """
    if x.ndim != 4 or len(x) == 0 or not x.isfinite().all():
        raise InputError(f"x: expected finite images (B, C, H, W), got {tuple(x.shape)}")
    draws = DRAWS if x.shape[-2:].numel() < LARGE else 1
    seeds = [stream_seed(seed, i, j) for i in range(len(LEVELS)) for j in range(draws)]
    noise = Streams(seeds).normal(x.shape[1:]).to(x).unflatten(0, (len(LEVELS), draws))
    return torch.stack([_of_one(prior, image, noise) for image in x])


def _of_one(prior: Denoiser, x: Tensor, noise: Tensor) -> Tensor:
    """The features (F,) of x (C, H, W), under noise (levels, draws, C, H, W)."""
    sigma = torch.tensor(LEVELS).to(x)
    wide = sigma.reshape(-1, 1, 1, 1, 1)
    denoised = torch.cat([prior((x + level * one)[None], level[None]) for level, draws in zip(sigma, noise, strict=True)
                          for one in draws])
    error = (denoised.reshape(noise.shape).float() - x) / wide
    side = max(1, min(PATCH, min(x.shape[-2:]) // 4))

    def patches(squares: Tensor) -> Tensor:
        return avg_pool2d(squares[:, None], side, ceil_mode=True).flatten(1).double()

    loss, power = patches(error.square().mean((1, 2))), patches(x.square().mean(0)[None])[0]      # (levels, P), (P,)
    loss = loss[:, power >= AIR**2 * power.quantile(0.95)]
    return torch.cat([loss.mean(1), loss.quantile(ROUGHEST, dim=1)]).clamp_min(SMALLEST).log().cpu()


@dataclass(frozen=True)
class Novelty:
    """The judgement of one image.

    Attributes:
        score: distance from the calibration images, root mean square over features in their standard deviations,
            correlations accounted for; about 1 for an image like them.
        threshold: the score from which an image is unusual.
        p_value: the share of images like the calibration ones that would score as high (conformal).
        unusual: whether score > threshold.
        harder: whether the prior denoises it worse than usual, rather than better.
    """

    score: float
    threshold: float
    p_value: float
    unusual: bool
    harder: bool

    def words(self, explained: bool = True) -> str:
        """One sentence. explained: of a restoration that explains its measurement; another may look like an image all the same,
        as what is left by a blur that was taken for twice as wide does."""
        if not explained and not self.unusual:
            return UNTOLD
        digits = next((n for n in (1, 2, 3) if f"{self.score:.{n}f}" != f"{self.threshold:.{n}f}"), 4)
        score = f"(score {self.score:.{digits}f}, unusual from {self.threshold:.{digits}f})"
        if not self.unusual:
            return f"The image is like those the prior was tried on {score}."
        how = "harder" if self.harder else "easier"
        return (f"The image is unlike those the prior was tried on {score}: the prior finds it {how} than usual, so do not "
                "trust what it filled in.")


@dataclass(frozen=True)
class Reference:
    """What images look like to a prior when all is in order, and from where on one is unusual.

    Attributes:
        mean, scale: of the features of the calibration images, (F,).
        precision: inverse of their correlations, which are shrunk towards none, (F, F).
        scores: of each calibration image against the others, (n,), in ascending order.
        channels: of the calibration images, if it is known: others are strange to it, as grey photographs are, whose noise the
            prior has to tell from one channel, and not from three.
    """

    mean: Tensor
    scale: Tensor
    precision: Tensor
    scores: Tensor
    channels: int | None = None

    @classmethod
    def fit(cls, rows: Tensor, channels: int | None = None) -> "Reference":
        """From features (n, F) of restorations of images that the prior is meant for; 19 at least, 40 are better.

        Each is scored against a reference of all others, so that the threshold, a conformal quantile of these scores, keeps its
        promise with few images too (Vovk et al. 2005; leave-one-out: Barber et al. 2021, "Predictive inference with the
        jackknife+"). Images that are near copies of each other count as fewer. Raises InputError: too few, or not finite.
        """
        least = math.ceil(1 / ALARMS) - 1
        if rows.ndim != 2 or len(rows) < least or not rows.isfinite().all():
            raise InputError(f"features: expected finite rows of at least {least} images, for {ALARMS:.0%} of false alarms, "
                             f"got {tuple(rows.shape)}")
        rows = rows.double().cpu()
        scores = [_score(row, *_moments(rows[torch.arange(len(rows)) != i])) for i, row in enumerate(rows)]
        return cls(*_moments(rows), torch.tensor(scores, dtype=torch.float64).sort().values, channels)

    def speaks_of(self, channels: int, usual: int | None = None) -> bool:
        """Can it tell whether an image of so many channels is unusual? Of complex ones there may be several, two each. usual:
        the prior's channels, where those of the calibration images were not noted, as they are the same."""
        known = self.channels or usual
        return known in (None, channels) or (known == 2 and channels % 2 == 0)

    @property
    def threshold(self) -> float:
        """The conformal quantile: at most ALARMS of images like the calibration ones score above it."""
        n = len(self.scores)
        return float(self.scores[min(math.ceil((n + 1) * (1 - ALARMS)), n) - 1])

    def judge(self, row: Tensor) -> Novelty:
        """Judge an image by its features (F,). Raises InputError where these are not those of the calibration images."""
        if row.shape != self.mean.shape:
            raise InputError(f"features: expected {tuple(self.mean.shape)} as of the calibration images, "
                             f"got {tuple(row.shape)}")
        row = row.double().cpu()
        score = _score(row, self.mean, self.scale, self.precision)
        p_value = (1 + int((self.scores >= score).sum())) / (len(self.scores) + 1)
        harder = bool(((row - self.mean) / self.scale)[: len(LEVELS)].sum() > 0)
        return Novelty(score, self.threshold, p_value, score > self.threshold, harder)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists of numbers, and the number of channels."""
        return {"channels": self.channels, **{key: getattr(self, key).tolist() for key in KEYS}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Reference":
        """What `to_dict` made. Raises InputError."""
        try:
            tensors = {key: torch.tensor(values[key], dtype=torch.float64) for key in KEYS}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"reference: expected lists of numbers {', '.join(KEYS)} ({error!r})") from error
        channels = values.get("channels")
        if channels is not None and (type(channels) is not int or channels < 1):
            raise InputError(f"reference.channels: expected a whole number >= 1, got {channels!r}")
        count = len(tensors["mean"]) if tensors["mean"].ndim == 1 else 0
        shapes = {"mean": (count,), "scale": (count,), "precision": (count, count), "scores": (tensors["scores"].numel(),)}
        for key, tensor in tensors.items():
            if tensor.numel() == 0 or tuple(tensor.shape) != shapes[key] or not tensor.isfinite().all():
                raise InputError(f"reference.{key}: expected finite numbers {shapes[key]}, got {tuple(tensor.shape)}")
        return cls(**tensors, channels=channels)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and the inverse of the shrunk correlations of rows (n, F)."""
    mean, scale = rows.mean(0), rows.std(0).clamp_min(1e-6)
    standard = (rows - mean) / scale
    correlation = (1 - SHRINKAGE) * standard.T @ standard / (len(rows) - 1)
    return mean, scale, torch.linalg.inv(correlation + SHRINKAGE * torch.eye(len(mean), dtype=torch.float64))


def _score(row: Tensor, mean: Tensor, scale: Tensor, precision: Tensor) -> float:
    standard = (row - mean) / scale
    return math.sqrt(float(standard @ precision @ standard) / len(mean))
