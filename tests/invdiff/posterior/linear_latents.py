"""A prior of latents whose posterior is known: a linear autoencoder, and Gaussian latents."""

import torch
from torch import nn

from invdiff.priors.analytic import GaussianPrior
from invdiff.priors.latent import LatentPrior


class LinearAutoencoder(nn.Module):
    """decode(z) = 0.5 + W z, encode(x) = W^T (x - 0.5), W (n, d) with orthonormal columns."""

    def __init__(self, image=(1, 8, 8), latent=(4, 2, 2), seed=0):
        super().__init__()
        self.image, self.latent = image, latent
        self.channels, self.latent_channels, self.factor = image[0], latent[0], image[-1] // latent[-1]
        n, d = torch.Size(image).numel(), torch.Size(latent).numel()
        random = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.register_buffer("basis", torch.linalg.qr(random)[0].float())

    def encode(self, x):
        return ((x - 0.5).flatten(1) @ self.basis).reshape(-1, *self.latent)

    def decode(self, z):
        return 0.5 + (z.flatten(1) @ self.basis.T).reshape(-1, *self.image)


def latent_prior(card=None):
    """Of latents (4, 2, 2), stationary, of different power at each frequency; and the Gaussian law of the images."""
    power = torch.tensor([[1.0, 0.5], [0.4, 0.2]])
    latents = GaussianPrior.stationary(torch.zeros(4, 2, 2), power)
    coder = LinearAutoencoder()
    cov = coder.basis.double() @ latents.cov.double() @ coder.basis.double().T
    return LatentPrior(latents, coder, card), GaussianPrior(torch.full((1, 8, 8), 0.5), cov.float())


def suited(sampler, prior, channels=1):
    """The prior; for samplers that draw latents, with the identity for an autoencoder."""
    if not sampler.latents:
        return prior
    same = LatentPrior(prior, Same(prior.mean.shape[0] if hasattr(prior, "mean") else channels))
    for name in ("mean", "values", "vectors"):
        setattr(same, name, getattr(prior, name, None))
    return same


class Same(nn.Module):
    """Latents that are the images."""

    def __init__(self, channels=1):
        super().__init__()
        self.channels = self.latent_channels = channels
        self.factor = 1

    def encode(self, x):
        return x

    def decode(self, z):
        return z


