"""Random streams that belong to a sample, not to a batch: what is drawn beside it never matters."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Draw = Callable[[Sequence[int]], Tensor]        # standard normal noise (B, *shape) for a shape


def stream_seed(seed: int, measurement: int, sample: int, antithetic: bool = False) -> int:
    """The seed of sample `sample` of measurement `measurement` in a run with an integer seed (0 included).

    antithetic: samples 2k and 2k + 1 share a stream, and the second has its noise mirrored, see `Streams`.
    """
    stream = sample // 2 if antithetic else sample
    found = int(np.random.SeedSequence([seed, measurement, stream]).generate_state(1, np.uint64)[0] >> 1)
    return ~found if antithetic and sample % 2 else found


class Streams:
    """One generator for each chain of a batch, on the CPU so that every device sees the same noise. The seed ~s draws the
    negatives of what s draws: noise as likely, and antithetic to it (Hammersley & Morton 1956)."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu"):
        self.mirrored = [i for i, seed in enumerate(seeds) if seed < 0]
        self.generators = [torch.Generator().manual_seed(int(seed if seed >= 0 else ~seed)) for seed in seeds]
        self.device = device

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise (number of seeds, *shape), float32."""
        noise = torch.empty(len(self.generators), *shape, dtype=torch.float32)
        for row, generator in zip(noise.unbind(), self.generators, strict=True):
            row.normal_(generator=generator)
        if self.mirrored:
            noise[self.mirrored] *= -1
        return noise.to(self.device)


def sample_variance(samples: Tensor, dim: int) -> Tensor:
    """The variance that S > 1 samples along `dim` show, unbiased, be neighbours independent or antithetic.

    It is that of the means of pairs, and that within them: independent samples lose next to nothing by being paired. Of an
    odd number, or of two, it is that around the mean of all, for antithetic samples up to S / (S - 1) too large.
    """
    count = samples.shape[dim]
    if not _in_pairs(count):
        return samples.var(dim, correction=1)
    first, second = samples.unflatten(dim, (count // 2, 2)).unbind(dim + 1)
    return ((first + second) / 2).var(dim, correction=1) + ((first - second) / 2).square().mean(dim)


def variance_of_mean(samples: Tensor, dim: int) -> Tensor:
    """That of the mean of S > 1 samples along `dim`, unbiased likewise, and too large likewise for an odd number or two."""
    count = samples.shape[dim]
    if not _in_pairs(count):
        return samples.var(dim, correction=1) / count
    return samples.unflatten(dim, (count // 2, 2)).mean(dim + 1).var(dim, correction=1) / (count // 2)


def _in_pairs(count: int) -> bool:
    return count >= 4 and count % 2 == 0
