"""Image quality against a known truth, by scikit-image. Heavy imports wait for the first call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SSIM_WINDOW = 11


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, (B,) float32 on the CPU; infinite where x equals the truth.

    x, truth: (B, C, H, W); x is clipped to [0, 1], the range of the truth, so the peak is 1. The mean square error is
    over channels and pixels. Raises ValueError where the shapes differ or are none of images.
    """
    import numpy as np
    import torch
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return torch.tensor([peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in _pairs(x, truth)],
                            dtype=torch.float32)


def ssim(x: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image, (B,) float32 on the CPU; 1 where x equals the truth.

    Wang et al. 2004, with their constants: Gaussian window of standard deviation 1.5, 11 x 11, K1 = 0.01, K2 = 0.03,
    data range 1, population covariances; windows that leave the image are not counted, colours are averaged.

    x, truth: (B, C, H, W); x is clipped to [0, 1]. Raises ValueError where the shapes differ or are none of images, or
    the images are smaller than the window.
    """
    import torch
    from skimage.metrics import structural_similarity

    if x.ndim == 4 and min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"ssim: expected images of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, the size of its window, "
                         f"got {x.shape[-2]} x {x.shape[-1]}")
    return torch.tensor([
        structural_similarity(b, a, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
                              use_sample_covariance=False)
        for a, b in _pairs(x, truth)
    ], dtype=torch.float32)


def enlarged(y: Tensor, size: Sequence[int]) -> Tensor:
    """A low-resolution measurement (B, C, h, w), bicubically enlarged to (H, W) so that it can be scored; others as is."""
    from torch.nn.functional import interpolate

    return y if tuple(y.shape[-2:]) == tuple(size) else interpolate(y, list(size), mode="bicubic", align_corners=False)


def _pairs(x: Tensor, truth: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Clipped image and truth, (C, H, W) in double precision, item by item."""
    if x.ndim != 4 or x.shape != truth.shape:
        raise ValueError(f"x: expected images (B, C, H, W) of the truth's shape {tuple(truth.shape)}, got {tuple(x.shape)}")
    yield from zip(x.detach().cpu().double().clamp(0, 1).numpy(), truth.detach().cpu().double().numpy(), strict=True)
