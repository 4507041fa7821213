"""Where in an image a denoiser errs: the variance of its error by what the estimate looks like around a pixel.

Edges and bright tissue are uncertain, air and flat walls are not. With W a weight for each pixel and S the spectrum of the
error divided by it, C = W S W follows both where the error is and how it is correlated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

RADIUS = 2.0            # pixels, of the Gaussian window around one
SMALLEST = 1e-6         # contrast and energy below this are none
STEPS = 20              # of the fit
# Given data, the few large errors matter more than the many small ones that a fit is about: sharper weights than the fitted
# ones gain 0.7 dB on undersampled brain scans, and more of the same nothing.
CONTRAST_POWER = 0.5    # at least
ENERGY_SHARE = 0.5
SURPLUS = 2.5           # of the error's power: on images unlike those it was measured on, a prior errs more


@dataclass(frozen=True)
class LocalError:
    """log v = a + b log(contrast) + c log(energy), the error's variance at a pixel, for each noise level.

    Attributes:
        coefficients: (a, b, c) by noise level, (L, 3).
        power: of the error over W, by noise level and ring of frequency, as `ErrorSpectrum.power`, (L, K, F).
    """

    coefficients: Tensor
    power: Tensor


def features(x0: Tensor) -> Tensor:
    """1, log contrast and log energy around each pixel, (B, 3, H, W), of estimates x0 (B, C, H, W): the squares of the
    gradient and of the values, summed over channels and weighted by a Gaussian window."""
    across = pad(x0.diff(dim=-1).square().sum(1, keepdim=True), (0, 1))
    down = pad(x0.diff(dim=-2).square().sum(1, keepdim=True), (0, 0, 0, 1))
    both = torch.cat([across + down, x0.square().sum(1, keepdim=True)], 1)
    logs = (_smooth(both) + SMALLEST).log()
    return torch.cat([torch.ones_like(logs[:, :1]), logs], 1)


def weights(x0: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of v over each image, (B, 1, 1, 1), and W (B, 1, H, W), whose mean square is 1, by coefficients (3,)."""
    seen, (a, b, c) = features(x0), coefficients.tolist()
    _, contrast, energy = seen.split(1, 1)
    v = (a + b * contrast + c * energy).exp()
    sharp = (max(b, CONTRAST_POWER) * contrast + ENERGY_SHARE * c * energy).exp()
    return v.mean((1, 2, 3), keepdim=True), (sharp / sharp.mean((1, 2, 3), keepdim=True)).sqrt()


def fit(estimates: Tensor, errors: Tensor) -> Tensor:
    """Coefficients (3,) for estimates (N, C, H, W) and their errors, by maximum likelihood: a generalised linear model of
    squared errors with logarithmic link (McCullagh & Nelder 1989, Sec. 8.3), by iterated least squares."""
    x = features(estimates).movedim(1, -1).reshape(-1, 3).double()
    y = errors.square().mean(1).flatten().double()
    y = y / (scale := y.mean().clamp_min(1e-30))
    gram = x.mT @ x
    gram.diagonal()[1:] += 1e-3 * len(x)            # where nothing varies, nothing is learned
    b = torch.zeros(3, dtype=torch.float64)
    for _ in range(STEPS):
        eta = (x @ b).clamp(-20, 20)
        b = b + torch.linalg.solve(gram, x.mT @ (y * (-eta).exp() - 1) - 1e-3 * len(x) * b * torch.tensor([0.0, 1.0, 1.0]))
    return (b + torch.tensor([1.0, 0.0, 0.0]) * scale.log()).float()


def _smooth(x: Tensor) -> Tensor:
    """Each channel under the window; at the border the image is reflected, as far as it reaches."""
    for dim in (-2, -1):
        reach = min(round(3 * RADIUS), x.shape[dim] - 1)
        place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        window = torch.exp(-0.5 * (place / RADIUS) ** 2)
        shape = (1, 1, -1, 1) if dim == -2 else (1, 1, 1, -1)
        padding = (0, 0, reach, reach) if dim == -2 else (reach, reach, 0, 0)
        weight = (window / window.sum()).reshape(shape).expand(x.shape[1], -1, -1, -1)
        x = conv2d(pad(x, padding, mode="reflect"), weight, groups=x.shape[1])
    return x
