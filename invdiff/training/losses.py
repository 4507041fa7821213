"""What a denoiser is trained to do well: how its squared error counts at each noise level.

Predicting the image, the noise or v is one and the same denoiser with another weight, so each is a weight w(sigma) on
|D(x0 + sigma n, sigma) - x0|^2. Derived for z = alpha x0 + s n, alpha^2 + s^2 = 1, of an image x0 in units of `unit`
(0.5 where networks see [-1, 1]); our x is z unit / alpha, so that sigma = unit s / alpha.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from invdiff.priors.unet import fourier_features
from invdiff.training.consistency import ConsistencyLoss
from invdiff.training.hybrid import HybridLoss
from invdiff.training.objectives import Loss
from invdiff.training.progressive import ProgressiveLoss


class EDMLoss(Loss):
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 = 1 / c_out^2: the network's own output errs by one at every level
    before training (Karras et al. 2022, Eq. 8). It is v-prediction with sigma_data as unit."""

    kind: Literal["edm"] = "edm"

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


class ImageLoss(Loss):
    """|D - x0|^2 itself (x0-prediction): the highest noise levels count most."""

    kind: Literal["x0"]

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return torch.ones_like(sigma)


class NoiseLoss(Loss):
    """eps-prediction (Ho et al. 2020, Eq. 14): the noise estimate is (x - D) / sigma, so its error is (D - x0) / sigma and
    the weight 1 / sigma^2, whatever the unit."""

    kind: Literal["eps"]

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return sigma.square().reciprocal()


class VelocityLoss(Loss):
    """v-prediction (Salimans & Ho 2022): v = alpha n - s x0, so x0 = alpha z - s v, and v errs by the image's error over s:
    weight 1 / (unit s)^2 = (sigma^2 + unit^2) / (sigma unit)^2."""

    kind: Literal["v"]
    unit: PositiveFloat = 0.5

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return sigma.square().reciprocal() + self.unit**-2


class MinSNRLoss(Loss):
    """min(SNR, gamma) on the image's error in units of `unit` (Hang et al. 2023), SNR = (alpha / s)^2 =
    (unit / sigma)^2. So it is eps-prediction at sigma >= unit / sqrt(gamma), and constant below."""

    kind: Literal["min_snr"]
    gamma: PositiveFloat = 5.0
    unit: PositiveFloat = 0.5

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return (self.unit / sigma).square().clamp_max(self.gamma) / self.unit**2


class UncertaintyLoss(Loss):
    """EDM's loss l as l / exp(u(sigma)) + u(sigma), u learned beside the denoiser (Karras et al. 2024, Eq. 21): at its
    optimum exp(u) is the expected loss, and every level pulls equally. u is no part of the prior."""

    kind: Literal["uncertainty"]
    features: PositiveInt = 32

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return EDMLoss().weight(sigma, sigma_data)

    def head(self) -> nn.Module:
        return Uncertainty(self.features)


class FlowLoss(Loss):
    """Flow matching along straight lines (Lipman et al. 2023, Eq. 23; Liu et al. 2023, Eq. 1): z = (1 - t) x0 / unit + t n has
    the velocity n - x0 / unit. In this frame sigma = unit t / (1 - t), and with n = (x - D) / sigma the velocity errs by
    (D - x0) (1 / sigma + 1 / unit): weight (1 / sigma + 1 / unit)^2."""

    kind: Literal["flow"]
    unit: PositiveFloat = 0.5

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return (sigma.reciprocal() + 1 / self.unit).square()


LossSettings = Annotated[EDMLoss | ImageLoss | NoiseLoss | VelocityLoss | MinSNRLoss | FlowLoss | UncertaintyLoss
                         | HybridLoss | ConsistencyLoss | ProgressiveLoss, Field(discriminator="kind")]


class Uncertainty(nn.Module):
    """u(sigma), (B,) -> (B,): linear in cosines and sines of log sigma, zero at first."""

    def __init__(self, features: int):
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.zeros(2 * features))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, sigma: Tensor) -> Tensor:
        # a product and a sum, which autocast leaves in float32
        return (fourier_features(sigma.log(), self.features) * self.weight).sum(1) / self.features**0.5 + self.bias
