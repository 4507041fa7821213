"""Priors in closed form, for tests of what draws from them."""

import torch

from invdiff.priors.analytic import GaussianPrior

SIZE = (1, 8, 8)


def prior(std=0.2):
    return GaussianPrior.stationary(torch.full(SIZE, 0.5), torch.full((8, 5), std**2))


class TwoGaussians(torch.nn.Module):
    """Of two classes, white Gaussians around 0.2 and 0.8; of any class, the one around 0.5."""

    classes, channels, std = 2, 1, 0.1

    def __init__(self):
        super().__init__()
        self.card = {"image_size": [2, 3], "sigma_range": [0.01, 10.0], "classes": ["dark", "bright"]}
        self.each = [GaussianPrior(torch.full((1, 2, 3), m), self.std**2 * torch.eye(6)) for m in (0.2, 0.8, 0.5)]

    def forward(self, x, sigma, classes=None):
        classes = torch.full((len(x),), -1) if classes is None else classes
        return torch.stack([each(x, sigma) for each in self.each])[classes, torch.arange(len(x))]
