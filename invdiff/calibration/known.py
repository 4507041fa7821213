"""The images that a calibration restores: those whose truth is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from invdiff.config import RunConfig, block_side
from invdiff.datasets.complex_images import open_complex, open_magnitudes
from invdiff.datasets.crops import crops_for, holds_complex
from invdiff.datasets.images import Cache
from invdiff.errors import InputError
from invdiff.io.scans import open_images
from invdiff.io.scans.scan import Images
from invdiff.priors import load_prior
from invdiff.priors.facts import channels_of

MIDDLE = 256            # pixels, of pictures that stand in for slices


@dataclass(frozen=True)
class Known:
    """Clean images: `crops` (C, H, W), or slices of a scan. source: what they are, in words."""

    crops: Sequence[Tensor]
    slices: Images | None
    source: str

    def __len__(self) -> int:
        return self.slices.slices if self.slices else len(self.crops)

    @property
    def channels(self) -> int:
        """Of an image; two of a complex one."""
        return 2 if self.slices else self.crops[0].shape[0]

    def some(self) -> Tensor:
        """Three of the images, which tell them from others of the same name."""
        chosen = (0, len(self) // 2, len(self) - 1)
        if self.slices is None:
            return torch.stack([self.crops[i] for i in chosen])
        return torch.stack([torch.view_as_real(self.slices.read(i).to(torch.complex64)) for i in chosen])


def known_images(config: RunConfig, data: str | Path, key: str | None, count: int, size: int) -> Known:
    """Clean images for a config's task: central crops of photographs, of as many channels as its prior is for, or slices for a
    scan. Raises InputError."""
    name = Path(data).name + (f" ({key})" if key else "")
    if config.is_scan:
        slices = _slices(data, key or "test", count)
        return Known([], slices, f"{slices.slices} slices of {name}")
    crops = crops_for(channels_of(load_prior(config.prior)), data, key or "test_jpeg", count, size)
    block = block_side(config.operator)
    whole = size // block * block
    source = f"{len(crops)} central crops of {whole} x {whole} from {name}"
    return Known([crop[:, :whole, :whole] for crop in crops], None, source)


def _slices(data: str | Path, key: str, count: int) -> Images:
    """Up to `count` slices, spread evenly, but for empty ones: an HDF5 dataset of complex ones (N, 2, H, W), or of pictures, of
    which the middles are taken for magnitudes, or what `open_images` reads."""
    if not (Path(data).is_file() and h5py.is_hdf5(data)):
        every = open_images(data)
    elif holds_complex(data, key):
        found = open_complex(data, key, Cache(0))
        every = Images(str(data), "HDF5", len(found), found.shapes[0], lambda i: torch.from_numpy(found[i]))
    else:
        pictures = open_magnitudes(data, key, Cache(0))
        side = min(MIDDLE, *(min(shape) for shape in pictures.shapes))
        every = Images(str(data), "HDF5", len(pictures), (side, side), lambda i: _middle(torch.from_numpy(pictures[i]), side))
    spread = np.linspace(0, every.slices - 1, min(count, every.slices)).round().astype(int).tolist()
    if not (chosen := [i for i in spread if every.read(i).any()]):          # as at the ends of volumes
        raise InputError(f"{data}: its slices are zero everywhere; expected images")
    return Images(every.path, every.format, len(chosen), every.size, lambda i: every.read(chosen[i]))


def _middle(x: Tensor, side: int) -> Tensor:
    top, left = ((n - side) // 2 for n in x.shape[-2:])
    return x[..., top : top + side, left : left + side].contiguous()
