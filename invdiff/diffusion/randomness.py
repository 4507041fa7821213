"""Random streams that belong to a sample, not to a batch: what is drawn beside it never matters."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def stream_seed(seed: int, measurement: int, sample: int) -> int:
    """The seed of sample `sample` of measurement `measurement` in a run with an integer seed (0 included)."""
    return int(np.random.SeedSequence([seed, measurement, sample]).generate_state(1, np.uint64)[0] >> 1)


class Streams:
    """One generator for each chain of a batch, on the CPU so that every device sees the same noise."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu"):
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.device = device

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise (number of seeds, *shape), float32."""
        draws = [torch.randn(tuple(shape), generator=g) for g in self.generators]
        return torch.stack(draws).to(self.device)
