"""Densities whose denoiser is exact, in image units: a line's are images (1, 1, 1), a plane's (1, 1, 2), within [0, 1]."""

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.priors.analytic import MixturePrior


def line() -> MixturePrior:
    """Three narrow modes of unequal weight on a line."""
    means = torch.tensor([0.14, 0.52, 0.86], dtype=torch.float64).reshape(3, 1, 1, 1)
    return MixturePrior(torch.tensor([0.35, 0.25, 0.4], dtype=torch.float64), means, 0.03**2)


def three_modes() -> MixturePrior:
    """Three Gaussians of unequal weight and width in the plane."""
    means = torch.tensor([[0.27, 0.3], [0.75, 0.38], [0.45, 0.78]], dtype=torch.float64).reshape(3, 1, 1, 2)
    widths = torch.tensor([0.07, 0.05, 0.09], dtype=torch.float64)
    return MixturePrior(torch.tensor([0.4, 0.25, 0.35], dtype=torch.float64), means, widths.square())


def moons(each: int = 16) -> MixturePrior:
    """Two crescents, of many narrow Gaussians each."""
    angles = torch.linspace(0, torch.pi, each, dtype=torch.float64)
    arc = torch.stack([angles.cos(), angles.sin()], 1)
    both = torch.cat([arc, torch.tensor([1.0, 0.45]) - arc])
    means = 0.5 + 0.26 * (both - both.mean(0))
    return MixturePrior(torch.ones(2 * each, dtype=torch.float64), means.reshape(-1, 1, 1, 2), 0.028**2)


class Classes(Denoiser):
    """A mixture of classes, each a mixture of its own: the exact denoiser of one class, or of any (-1 or None)."""

    def __init__(self, classes: list[MixturePrior]):
        super().__init__()
        self.each = torch.nn.ModuleList(classes)
        self.all = mixed(classes)
        self.classes = len(classes)

    def forward(self, x: Tensor, sigma: float | Tensor, classes: Tensor | None = None, **kwargs: object) -> Tensor:
        """E[x0 | x, class], x (B, 1, 1, 2), sigma a float or (B,), classes (B,)."""
        if classes is None:
            return self.all(x, sigma)
        levels = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1).expand(len(x))
        out = torch.empty_like(x)
        for number in classes.unique().tolist():
            of = classes == number
            out[of] = (self.each[number] if number >= 0 else self.all)(x[of], levels[of])
        return out


def overlapping_classes() -> Classes:
    """Three classes of two Gaussians each in the plane, whose outer ones are their own and whose inner ones overlap."""
    classes = []
    for k in range(3):
        angle = torch.tensor(torch.pi / 2 + k * 2 * torch.pi / 3, dtype=torch.float64)
        along = torch.stack([angle.cos(), angle.sin()])
        means = 0.5 + torch.stack([0.11 * along, 0.29 * along])
        weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
        widths = torch.tensor([0.09, 0.06], dtype=torch.float64)
        classes.append(MixturePrior(weights, means.reshape(2, 1, 1, 2), widths.square()))
    return Classes(classes)


def mixed(mixtures: list[MixturePrior]) -> MixturePrior:
    """All of them as one, in equal shares."""
    parts = [[getattr(each, name) for each in mixtures] for name in ("weights", "means", "variance")]
    return MixturePrior(*(torch.cat(part) for part in parts))


def exact_draws(prior: MixturePrior, count: int, seed: int) -> Tensor:
    """Independent samples (count, 1, 1, d) of a mixture, float64."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.multinomial(prior.weights, count, replacement=True, generator=generator)
    noise = torch.randn(count, *prior.means.shape[1:], generator=generator, dtype=torch.float64)
    return prior.means[k] + prior.variance[k].sqrt().reshape(-1, 1, 1, 1) * noise


def mode_of(prior: MixturePrior, x: Tensor) -> Tensor:
    """The number of the mean closest to each x (N, ...), (N,)."""
    return torch.cdist(x.flatten(1).double(), prior.means.flatten(1).double()).argmin(1)
