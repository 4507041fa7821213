"""What a restoration gives: samples, what can be read off them, and a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.diffusion.randomness import sample_variance
from invdiff.io.results import output_folder, save_arrays, write_json


@dataclass(frozen=True)
class Result:
    """Posterior samples of B measurements.

    Attributes:
        samples: (B, S, C, H, W), on the CPU, in image units, not clipped.
        measurement: y (B, ...).
        report: plain dict: seconds (of drawing the samples alone), network and operator calls a sample, residual, sampler,
            seed, versions.
    """

    samples: Tensor
    measurement: Tensor
    report: dict[str, Any]

    @property
    def mean(self) -> Tensor:
        """(B, C, H, W)."""
        return self.samples.mean(1)

    @property
    def std(self) -> Tensor:
        """Pixelwise over samples, (B, C, H, W); zero where there is one sample."""
        return sample_variance(self.samples, 1).sqrt() if self.samples.shape[1] > 1 else torch.zeros_like(self.mean)

    def quantiles(self, *levels: float) -> Tensor:
        """Pixelwise over samples, (B, len(levels), C, H, W), linear between neighbouring samples; rough where there are few.

        Raises ValueError for no level, or one outside [0, 1].
        """
        if not levels or not all(0 <= level <= 1 for level in levels):
            raise ValueError(f"quantiles: expected levels from 0 to 1, got {levels}")
        found = np.quantile(self.samples.numpy(), levels, axis=1)          # torch's own refuses more than 2^24 values
        return torch.from_numpy(found).to(self.samples.dtype).movedim(0, 1)

    def save(self, path: str | Path) -> None:
        """Write result.h5 and report.json into the folder `path`, whole or not at all. Raises InputError."""
        with output_folder(path) as folder:
            self.write_into(folder)

    def write_into(self, folder: Path, **more: Tensor) -> None:
        """The files of `save`, into a folder that exists; `more` arrays into result.h5. A single sample has no std there."""
        if self.samples.shape[1] > 1:
            more["std"] = self.std
        save_arrays(folder / "result.h5", samples=self.samples, mean=self.mean, measurement=self.measurement, **more)
        write_json(folder / "report.json", self.report)
