"""Complex-valued training images (MRI): real ones, and magnitudes that are given a smooth phase."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.datasets.complex_images import smooth_phase
from invdiff.datasets.images import ImageSet, scaled
from invdiff.errors import InputError

BRIGHTNESS = (0.5, 1.2)         # a patch is scaled by a factor in this range, log-uniform
CURVE = (-1.8, 1.0)             # b of a changed contrast, uniform
EMPTY = 0.03                    # patches of less root mean square are air; another place is tried


class ComplexPatches:
    """Random square patches of complex images, (count, 2, size, size): flips, turns, brightness, and a smooth phase.

    Args:
        images: complex (H, W), magnitude of about one at most; lists or `ImageSet`s.
        magnitudes: real (H, W) in [0, 1], which get a phase; half of the patches are theirs, if there are any.
        largest: largest side of a patch; some image must be as large. A patch is cut from images that hold it, and turned
            unless it is the whole of one.
        scales: each image is also kept at these sizes.
        contrast: share of patches whose contrast is changed.
        flips: without them patches are neither flipped nor turned.
    """

    def __init__(self, images: Sequence[np.ndarray], magnitudes: Sequence[np.ndarray], largest: int,
                 scales: Sequence[float] = (1.0,), contrast: float = 0.0, flips: bool = True):
        self.pools, self.contrast, self.flips = [], contrast, flips
        for source in (images, magnitudes):
            self.pools.append(ImageSet.of(source).resized(scales, _resize))
        if not any(min(shape) >= largest for shape in self.pools[0].shapes):
            raise InputError(f"data.patch: no training image is at least {largest} pixels high and wide")

    def __len__(self) -> int:
        """How many images there are, at all scales."""
        return sum(map(len, self.pools))

    def batch(self, count: int, size: int, rng: np.random.Generator, mine: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Clean patches (count, 2, size, size), and (count,) False, as none of them is grey; of both, `mine`.

        All are made, for which places are air, and how often another is tried, is seen in the images alone.
        """
        fit = [[i for i, shape in enumerate(pool.shapes) if min(shape) >= size] for pool in self.pools]
        patches = []
        for _ in range(count):
            source = int(rng.integers(2)) if fit[1] else 0
            patches.append(self._patch(self.pools[source], fit[source], size, rng))
        kept = np.stack(patches[mine])
        return (torch.from_numpy(np.stack([kept.real, kept.imag], 1).astype(np.float32)),
                torch.zeros(len(kept), dtype=torch.bool))

    def _patch(self, pool: Sequence[np.ndarray], fit: Sequence[int], size: int, rng: np.random.Generator) -> np.ndarray:
        for _ in range(4):
            image = pool[fit[int(rng.integers(len(fit)))]]
            top, left = (int(rng.integers(n - size + 1)) for n in image.shape)
            patch = image[top : top + size, left : left + size]
            if np.sqrt(np.mean(np.abs(patch) ** 2)) > EMPTY:
                break
        y, x = (np.linspace(-1, 1, n)[start : start + size] for n, start in zip(image.shape, (top, left), strict=True))
        if self.contrast and rng.random() < self.contrast:
            patch = other_contrast(patch, rng.uniform(*CURVE))
        patch = patch * np.exp(1j * smooth_phase(y, x, rng))
        turns, flipped = 0 if patch.shape == image.shape else int(rng.integers(4)), bool(rng.integers(2))
        if self.flips:                          # a whole image keeps its way up
            patch = np.rot90(patch, turns)
            patch = patch[:, ::-1] if flipped else patch
        return patch * np.exp(rng.uniform(*np.log(BRIGHTNESS)))


def other_contrast(image: np.ndarray, b: float) -> np.ndarray:
    """Magnitudes m -> m exp(b m), in units of the largest, and again of the same mean square; the phase is kept.

    With b < -1 the brightest tissue becomes darker than what is less bright, as fluid does from T2 to T1 weighting.
    """
    m = np.abs(image)
    factor = np.exp(b * m / max(float(m.max()), EMPTY)).astype(m.dtype)
    return image * (factor * np.sqrt(np.sum(m**2) / max(float(np.sum((m * factor) ** 2)), 1e-12)))


def _resize(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return image
    height, width = scaled(image.shape, scale)
    real, imaginary = (np.asarray(Image.fromarray(np.ascontiguousarray(part, np.float32)).resize(
        (width, height), Image.Resampling.LANCZOS)) for part in (image.real, image.imag))
    return (real + 1j * imaginary).astype(np.complex64) if np.iscomplexobj(image) else real.clip(0)
