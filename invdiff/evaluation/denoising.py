"""How well a prior denoises white noise: the table on its card."""

from collections.abc import Sequence

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.diffusion.randomness import stream_seed
from invdiff.evaluation.metrics import psnr


@torch.no_grad()
def denoising_table(denoiser: Denoiser, images: Sequence[Tensor], sigmas: Sequence[float] = (15 / 255, 25 / 255, 50 / 255),
                    seed: int = 0) -> dict[str, float]:
    """Mean PSNR in dB of D(x0 + sigma n, sigma) over whole images, by noise level on the 8-bit scale.

    Args:
        denoiser: D(x, sigma).
        images: clean images (C, H, W) in [0, 1], of any sizes, on the denoiser's device; complex ones have C = 2.
        sigmas: noise levels in the images' units.
        seed: image i gets the same noise n at every level, and whatever images are beside it. The noisy image is not
            clipped, a real estimate is.

    Returns:
        {"15": dB, "25": dB, "50": dB}, rounded to a thousandth; levels between whole numbers keep three digits.

    Raises:
        ValueError: no images, or one that is not (C, H, W).
    """
    bad = [tuple(image.shape) for image in images if image.ndim != 3]
    if bad or not images:
        raise ValueError(f"images: expected one or more of shape (C, H, W), got {bad or 'none'}")
    return {f"{255 * sigma:.3g}": round(_mean_psnr(denoiser, images, sigma, seed), 3) for sigma in sigmas}


def _mean_psnr(denoiser: Denoiser, images: Sequence[Tensor], sigma: float, seed: int) -> float:
    total = 0.0
    for i, image in enumerate(images):
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(stream_seed(seed, i, 0))).to(image)
        estimate = denoiser((image + sigma * noise)[None], sigma).float()
        complex_valued = image.shape[0] == 2        # nothing to clip
        total += float(-10 * (estimate - image).square().mean().log10() if complex_valued else psnr(estimate, image[None]))
    return total / len(images)
