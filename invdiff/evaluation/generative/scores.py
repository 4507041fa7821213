"""Scores of generated images against real ones, from features (N, F) that a network made of both."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from invdiff.errors import InputError

_PAIRS = 20_000_000     # distances held at once
_FEWEST = 100           # images of a part whose Inception score tells something


@dataclass(frozen=True)
class Statistics:
    """Mean (F,), covariance (F, F) (divided by N - 1), both float64, and the number N of a set of features."""

    mean: Tensor
    covariance: Tensor
    count: int

    @classmethod
    def of(cls, features: Tensor) -> "Statistics":
        """Of features (N, F). Raises ValueError for fewer than two."""
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features: expected (N, F) with N at least 2, got {tuple(features.shape)}")
        x = features.double()
        centred = x - x.mean(0)
        return cls(x.mean(0), centred.T @ centred / (len(x) - 1), len(x))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|m_a - m_b|² + tr(A + B - 2 (A^½ B A^½)^½), the squared 2-Wasserstein distance of two Gaussians (Dowson & Landau 1982);
    on InceptionV3's features it is FID (Heusel et al. 2017, Eq. 6). Biased upwards by the finite counts."""
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp_min(0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross)


def kernel_distance(real: Tensor, fake: Tensor, subset: int = 1000, seed: int = 0) -> tuple[float, float | None]:
    """KID (Bińkowski et al. 2018, Sec. 3): the unbiased squared maximum mean discrepancy of the kernel (x·y / F + 1)³, its mean
    over 100 random subsets and their standard deviation, by torchmetrics. `subset` is cut to the smaller count; where it is
    more than half of that, subsets are so alike that their spread tells nothing, and it is None.

    Features larger than InceptionV3's, which are below one, are divided by the real ones' root mean square: the cube of large
    numbers would drown what tells the sets apart.
    """
    scale = real.square().mean().sqrt().clamp_min(1)
    real, fake = real / scale, fake / scale
    fewest = min(len(real), len(fake))
    size = min(subset, fewest)
    metric = _quiet(torchmetrics("kid").KernelInceptionDistance, feature=nn.Identity(), subset_size=size)
    metric.update(real.cpu(), real=True)
    metric.update(fake.cpu(), real=False)
    mean, spread = _seeded(metric, seed)
    return mean, spread if size <= fewest / 2 else None


def inception_score(log_probs: Tensor, splits: int = 10, seed: int = 0) -> tuple[float, float | None]:
    """exp E KL(p(c | x) ‖ p(c)) from log p(c | x) (N, K) (Salimans et al. 2016, Sec. 4): its mean over random tenths of the
    images and their standard deviation, by torchmetrics. From 1 to K.

    N images score at most N, so that small parts score low: there are fewer than `splits` where these would have less than 100
    images, and of a single one the spread is None.
    """
    parts = max(1, min(splits, len(log_probs) // _FEWEST))
    metric = _quiet(torchmetrics("inception").InceptionScore, feature=nn.Identity(), splits=parts)
    metric.update(log_probs.cpu())
    mean, spread = _seeded(metric, seed)
    return mean, spread if parts > 1 else None


def torchmetrics(part: str) -> Any:
    """torchmetrics.image.PART. Raises InputError where torchmetrics is not installed."""
    try:
        return importlib.import_module(f"torchmetrics.image.{part}")
    except ImportError as error:
        raise InputError('KID and the Inception score need torchmetrics: pip install "invdiff[evaluate]", or leave '
                         "them out") from error


def _quiet(make: Callable[..., Any], **arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)        # that it keeps what it is given, that one part has no spread
        return make(**arguments)


def _seeded(metric: Any, seed: int) -> tuple[float, float]:
    with torch.random.fork_rng(devices=[]):         # torchmetrics draws its subsets from the global generator
        torch.manual_seed(seed)
        mean, spread = _quiet(metric.compute)
    return float(mean), float(spread)


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, Eqs. 1 and 2): the share of fakes that are as near to some real
    image as its k-th nearest real neighbour, and the other way round. Both depend on the counts: take as many of each."""
    return _share_inside(real, fake, k), _share_inside(fake, real, k)


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, Eqs. 3 and 5): how many balls around real images, as wide as to the k-th nearest
    real neighbour, hold a fake, over k; and the share of those balls that hold one. For two sets from one distribution the
    expectation of density is 1, that of coverage 1 - Π_{i<k} (M - 1 - i) / (2 M - 1 - i) for M of each, nearly 1 - 2^-k."""
    radii, inside, covered = _radii(real, k), 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for squared in _blocks(fake, real):
        hit = squared <= radii                      # (chunk of fakes, reals)
        inside += int(hit.sum())
        covered |= hit.any(0)
    return inside / (k * len(fake)), float(covered.double().mean())


def _share_inside(centres: Tensor, points: Tensor, k: int) -> float:
    radii = _radii(centres, k)
    return sum(int((squared <= radii).any(1).sum()) for squared in _blocks(points, centres)) / len(points)


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each point to its k-th nearest other one, (N,)."""
    if not 1 <= k < len(x):
        raise ValueError(f"k: expected 1 to {len(x) - 1}, the number of the other points, got {k}")
    return torch.cat([squared.kthvalue(k + 1, dim=1).values for squared in _blocks(x, x)])       # the point itself comes first


def _blocks(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Squared distances of all rows of a to all of b, in float64, some rows of a at a time."""
    centre = b.double().mean(0).round()             # near zero, less is lost of the differences
    a, b = a.double() - centre, b.double() - centre
    norms = b.square().sum(1)
    for rows in a.split(max(1, _PAIRS // len(b))):
        yield torch.addmm(norms[None] + rows.square().sum(1, keepdim=True), rows, b.T, alpha=-2).clamp_min(0)
