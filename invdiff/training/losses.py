"""What a denoiser is trained to do well: how its squared error counts at each noise level.

Predicting the image, the noise or v is one and the same denoiser with another weight, so each is a weight w(sigma) on
|D(x0 + sigma n, sigma) - x0|^2. Derived for z = alpha x0 + s n, alpha^2 + s^2 = 1, of an image x0 in units of `unit`
(0.5 where networks see [-1, 1]); our x is z unit / alpha, so that sigma = unit s / alpha.
"""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.unet import fourier_features


class Weighting(BaseModel):
    """Base of the losses: a frozen set of parameters, and the weight they give each noise level."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """w(sigma) (B,) of sigma (B,), in image units to the power -2 (or 0)."""
        raise NotImplementedError

    def head(self) -> nn.Module | None:
        """A trainable module that maps sigma (B,) to the log of the expected loss (B,), if there is one."""
        return None


class EDMLoss(Weighting):
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 = 1 / c_out^2: the network's own output errs by one at every level
    before training (Karras et al. 2022, Eq. 8). It is v-prediction with sigma_data as unit."""

    kind: Literal["edm"] = "edm"

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


class ImageLoss(Weighting):
    """|D - x0|^2 itself (x0-prediction): the highest noise levels count most."""

    kind: Literal["x0"]

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return torch.ones_like(sigma)


class NoiseLoss(Weighting):
    """eps-prediction (Ho et al. 2020, Eq. 14): the noise estimate is (x - D) / sigma, so its error is (D - x0) / sigma and
    the weight 1 / sigma^2, whatever the unit."""

    kind: Literal["eps"]

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return sigma.square().reciprocal()


class VelocityLoss(Weighting):
    """v-prediction (Salimans & Ho 2022): v = alpha n - s x0, so x0 = alpha z - s v, and v errs by the image's error over s:
    weight 1 / (unit s)^2 = (sigma^2 + unit^2) / (sigma unit)^2."""

    kind: Literal["v"]
    unit: PositiveFloat = 0.5

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return sigma.square().reciprocal() + self.unit**-2


class MinSNRLoss(Weighting):
    """min(SNR, gamma) on the image's error in units of `unit` (Hang et al. 2023), SNR = (alpha / s)^2 =
    (unit / sigma)^2. So it is eps-prediction at sigma >= unit / sqrt(gamma), and constant below."""

    kind: Literal["min_snr"]
    gamma: PositiveFloat = 5.0
    unit: PositiveFloat = 0.5

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return (self.unit / sigma).square().clamp_max(self.gamma) / self.unit**2


class UncertaintyLoss(Weighting):
    """EDM's loss l as l / exp(u(sigma)) + u(sigma), u learned beside the denoiser (Karras et al. 2024, Eq. 21): at its
    optimum exp(u) is the expected loss, and every level pulls equally. u is no part of the prior."""

    kind: Literal["uncertainty"]
    features: PositiveInt = 32

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return EDMLoss().weight(sigma, sigma_data)

    def head(self) -> nn.Module:
        return Uncertainty(self.features)


LossSettings = Annotated[EDMLoss | ImageLoss | NoiseLoss | VelocityLoss | MinSNRLoss | UncertaintyLoss,
                         Field(discriminator="kind")]


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


class Objective(nn.Module):
    """The loss as one module, for it is modules that are compiled and spread over processes."""

    def __init__(self, denoiser: EDMDenoiser, weighting: Weighting):
        super().__init__()
        self.denoiser, self.weighting, self.head = denoiser, weighting, weighting.head()

    def forward(self, x0: Tensor, noise: Tensor, sigma: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x0 and unit noise (B, C, H, W), sigma and classes (B,) -> what is minimised, and the weighted error, (B,) each."""
        error = self.denoiser.precondition(x0 + sigma.reshape(-1, 1, 1, 1) * noise, sigma, classes) - x0
        losses = self.weighting.weight(sigma, self.denoiser.sigma_data) * error.square().mean(dim=(1, 2, 3))
        if self.head is None:
            return losses, losses
        u = self.head(sigma)
        return losses * (-u).exp() + u, losses
