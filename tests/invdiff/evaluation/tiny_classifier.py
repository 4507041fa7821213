"""A classifier of noisy images, too small to be right, and images for it."""

import torch

from invdiff.evaluation.generative.classifier import Classifier

TINY = {"classes": 3, "channels": 1, "widths": [8, 8], "depths": [1, 1], "grid": 2, "num_features": 6, "embedding": 16}
NAMES = ["a", "b", "c"]


def tiny(seed=0):
    torch.manual_seed(seed)
    classifier = Classifier(**TINY)
    with torch.no_grad():
        for parameter in classifier.parameters():       # its blocks start as the identity
            parameter.add_(0.1 * torch.randn_like(parameter))
    return classifier.eval()


def images(count, channels=1, seed=0):
    return torch.rand(count, channels, 12, 12, generator=torch.Generator().manual_seed(seed))
