"""What the samples of a slice say of its magnitude: the best guess, and how far off it may be."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from invdiff.diffusion.randomness import sample_variance
from operators import mri

POOL = 2.0              # pixels: a handful of samples says little of the variance at one pixel, its neighbours help


def magnitudes(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Of complex samples (S, 2 M, h, w): the magnitude of their mean, and by how much theirs differ from it, (h, w).

    That is their standard deviation where there is signal. Where there is none, they are larger than that of the mean and their
    distance from it counts, too. The square is pooled over a Gaussian window of POOL pixels; it is zero for a single sample.
    """
    spread = mri.combine_sets(samples)[:, 0]
    mean = mri.combine_sets(samples.mean(0, keepdim=True))[0, 0]
    if len(samples) == 1:
        return mean, torch.zeros_like(mean)
    variance = (sample_variance(spread, 0) + (spread.mean(0) - mean).square()).numpy()
    return mean, torch.from_numpy(np.sqrt(gaussian_filter(variance, POOL))).to(mean)
