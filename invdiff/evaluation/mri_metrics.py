"""fastMRI's measures of a reconstructed volume, over the whole slices and inside the head.

Magnitudes (D, h, w) on any scale, the same in both. NMSE, PSNR and SSIM are those of Zbontar et al. 2018 as their evaluation
code computes them: the peak is the truth's maximum over the volume; SSIM, the mean over slices, has a uniform window of
7 x 7, sample covariances, K1 = 0.01 and K2 = 0.03, and leaves out windows that cross the edge. About half of such a slice is
air, so the `_head` figures are of the head's pixels alone. Computed by scikit-image; heavy imports wait for the first call.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WINDOW = 7
SMOOTHING = 0.01    # of the width of a slice: of the image that is thresholded, and how far the mask reaches over its edge


def score(x: npt.ArrayLike, truth: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> dict[str, float]:
    """"psnr" (dB), "ssim" and "nmse" of a magnitude volume (D, h, w), and "psnr_head", "ssim_head", "nmse_head".

    x, truth: real arrays or CPU tensors (D, h, w). mask: bool (D, h, w), the head; `head_mask(truth)` unless given. The peak
    is the truth's maximum over the whole volume in the head too. Raises ValueError for shapes that do not fit, slices
    smaller than the window, values that are not finite, a truth without signal and an empty mask.
    """
    import numpy as np

    estimate, reference = np.asarray(x), np.asarray(truth)
    if reference.ndim != 3 or estimate.shape != reference.shape or not reference.size:
        raise ValueError(f"x: expected a volume (D, h, w) of the truth's shape {reference.shape}, got {estimate.shape}")
    inside = head_mask(reference) if mask is None else np.asarray(mask)
    if inside.shape != reference.shape:
        raise ValueError(f"mask: expected the truth's shape {reference.shape}, got {inside.shape}")
    scores = VolumeScores(float(reference.max()))
    for slices in zip(estimate, reference, inside, strict=True):
        scores.add(*slices)
    return scores.result()


class VolumeScores:
    """`score` of a volume that comes slice by slice: scores = VolumeScores(peak); scores.add(x, truth, mask); scores.result().

    peak: the truth's maximum over the volume, which SSIM needs before the first slice. Raises ValueError unless it is finite
    and above 0.
    """

    def __init__(self, peak: float):
        if not (math.isfinite(peak) and peak > 0):
            raise ValueError(f"peak: expected the truth's maximum, finite and above 0, got {peak}")
        self.peak = float(peak)    # of float32 it would make the sums single
        self._whole, self._head = _Sums(), _Sums()
        self._ssim: list[float] = []

    def add(self, x: npt.ArrayLike, truth: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> None:
        """Counts one slice (h, w). mask: bool (h, w), the head; without it the slice counts for the whole only."""
        import numpy as np
        from skimage.metrics import structural_similarity

        estimate, reference = np.asarray(x, np.float64), np.asarray(truth, np.float64)
        if reference.ndim != 2 or estimate.shape != reference.shape or min(reference.shape) < WINDOW:
            raise ValueError(f"x: expected a slice (h, w) of the truth's shape {reference.shape}, {WINDOW} x {WINDOW} or more "
                             f"for SSIM's window, got {estimate.shape}")
        if not (np.isfinite(estimate).all() and np.isfinite(reference).all()):
            raise ValueError("x, truth: expected finite values, got NaN or infinity")
        mean, similarity = structural_similarity(reference, estimate, win_size=WINDOW, data_range=self.peak, full=True)
        self._ssim.append(float(mean))
        self._whole.add(estimate, reference, similarity)
        if mask is not None:
            inside = np.asarray(mask, bool)
            if inside.shape != reference.shape:
                raise ValueError(f"mask: expected the slice's shape {reference.shape}, got {inside.shape}")
            self._head.add(estimate[inside], reference[inside], similarity[inside])

    def result(self) -> dict[str, float]:
        """As `score`; without the three of the head where no mask was given. ValueError without a slice or a signal."""
        if not self._ssim:
            raise ValueError("VolumeScores: expected at least one slice before result(), got none")
        result = {**self._whole.figures(self.peak, "the volume"), "ssim": sum(self._ssim) / len(self._ssim)}
        if self._head.slices:
            result |= {f"{name}_head": value for name, value in self._head.figures(self.peak, "the mask").items()}
        return result


class _Sums:
    """Over pixels: how many, squared errors, squared truth, the SSIM map."""

    def __init__(self) -> None:
        self.slices = self.pixels = 0
        self.error = self.energy = self.similarity = 0.0

    def add(self, x: np.ndarray, truth: np.ndarray, similarity: np.ndarray) -> None:
        self.slices += 1
        self.pixels += x.size
        self.error += float(((x - truth) ** 2).sum())
        self.energy += float((truth**2).sum())
        self.similarity += float(similarity.sum())

    def figures(self, peak: float, where: str) -> dict[str, float]:
        if not self.energy:
            raise ValueError(f"truth: expected a signal in {where}, got zeros or no pixel")
        psnr = 10 * math.log10(peak**2 * self.pixels / self.error) if self.error else math.inf
        return {"psnr": psnr, "ssim": self.similarity / self.pixels, "nmse": self.error / self.energy}


def head_mask(truth: npt.ArrayLike) -> np.ndarray:
    """Where the head is, bool (D, h, w), of magnitudes (D, h, w), such as a root sum of squares.

    Otsu's threshold on the root of the smoothed volume, dark places inside a slice filled, the largest connected part,
    grown by a hundredth of the slice. The root brings tissue far from the coils closer to the rest, above the noise.
    Raises ValueError for other shapes, values that are not finite, and a volume that is the same everywhere.
    """
    import numpy as np
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    volume = np.abs(np.asarray(truth)).astype(np.float32)
    if volume.ndim != 3 or not volume.size:
        raise ValueError(f"truth: expected a volume (D, h, w), got {volume.shape}")
    if not np.isfinite(volume).all() or volume.min() == volume.max():
        raise ValueError("truth: expected finite magnitudes that are not the same everywhere")
    reach = SMOOTHING * min(volume.shape[1:])
    root = np.sqrt(ndimage.gaussian_filter(volume / volume.max(), (0, reach, reach)))
    filled = np.stack([ndimage.binary_fill_holes(part) for part in root > threshold_otsu(root)])
    parts, _ = ndimage.label(filled)
    sizes = np.bincount(parts.ravel())
    head = parts == 1 + int(np.argmax(sizes[1:]))
    disc = np.hypot(*np.ogrid[-round(reach) : round(reach) + 1, -round(reach) : round(reach) + 1]) <= reach
    return ndimage.binary_dilation(head, disc[None])
