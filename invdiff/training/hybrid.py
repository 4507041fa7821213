"""Learned variance: the noise loss and, for a second output of the network, the variational bound."""

from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor

from invdiff.diffusion.elbo import MarkovChain, vlb_terms
from invdiff.errors import InputError
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.training import noise_levels
from invdiff.training.objectives import Loss, Objective


class HybridLoss(Loss):
    """L_simple + vlb_weight L_vlb (Nichol & Dhariwal 2021, Eq. 16), of a chain of levels, `noise.kind` linear or cosine.

    L_simple is eps-prediction, 1 / sigma^2 on the squared error. L_vlb, in bits a dimension, is the number of levels times the
    mean of its terms; it trains the variances alone, between the two choices of Ho et al. 2020 (ibid., Eq. 15), which a network
    with `variance: true` gives beside the image.
    """

    kind: Literal["hybrid"]
    vlb_weight: PositiveFloat = 0.001

    def objective(self, denoiser: EDMDenoiser, noise: noise_levels.Noise) -> Objective:
        if not isinstance(noise, noise_levels.Chain):
            raise InputError("loss.kind: hybrid is the loss of a chain of levels; expected noise.kind linear or cosine, got "
                             f"{getattr(noise, 'kind', 'another')}")
        if not denoiser.tells_variance:
            raise InputError("loss.kind: hybrid trains a network that tells variances; expected a U-Net with "
                             "network.variance=true")
        return HybridObjective(denoiser, self, noise.bound())


class HybridObjective(Objective):
    """`chain` has the levels that sigma is one of."""

    def __init__(self, denoiser: EDMDenoiser, loss: HybridLoss, chain: MarkovChain):
        super().__init__()
        self.denoiser, self.loss, self.chain = denoiser, loss, chain

    def forward(self, x0: Tensor, noise: Tensor, sigma: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = x0 + sigma.reshape(-1, 1, 1, 1) * noise
        estimate, variance = self.denoiser.with_variance(x, sigma, classes)
        losses = (estimate - x0).square().mean(dim=(1, 2, 3)) / sigma.square()
        bound = self.chain.steps * vlb_terms(x0, x, self.chain.index(sigma), estimate, variance, chain=self.chain)
        return losses + self.loss.vlb_weight * bound, losses
