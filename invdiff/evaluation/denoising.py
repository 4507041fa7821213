"""How well a prior denoises white noise: the table on its card, and what is watched as it is trained."""

from collections.abc import Sequence

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.diffusion.randomness import stream_seed


def denoising_table(denoiser: Denoiser, images: Sequence[Tensor],
                    sigmas: Sequence[float] = (15 / 255, 25 / 255, 50 / 255)) -> dict[str, float]:
    """Mean PSNR in dB of D(x0 + sigma n, sigma) over whole images, by noise level on the 8-bit scale.

    Args:
        denoiser: D(x, sigma).
        images: clean images (C, H, W) in [0, 1], of any sizes, on the denoiser's device; complex ones have C = 2.
        sigmas: noise levels in the images' units.

    Returns:
        {"15": dB, "25": dB, "50": dB}, rounded to a thousandth; levels between whole numbers keep three digits.

    Raises:
        ValueError: no images, or one that is not (C, H, W).
    """
    bad = [tuple(image.shape) for image in images if image.ndim != 3]
    if bad or not images:
        raise ValueError(f"images: expected one or more of shape (C, H, W), got {bad or 'none'}")
    return {f"{255 * sigma:.3g}": round(denoising_psnr(denoiser, images, sigma), 3) for sigma in sigmas}


@torch.no_grad()
def denoising_psnr(denoiser: Denoiser, images: Sequence[Tensor], sigma: float, clip: bool = True) -> float:
    """Mean PSNR in dB of D(x0 + sigma n, sigma) over images (C, H, W); the peak is 1.

    Image i gets the same noise n at every level, and whatever images are beside it. The noisy image is not clipped, an estimate
    is, to [0, 1], but of complex images, C = 2, and where `clip` is false, as of latents: they have no range.
    """
    total = 0.0
    for i, image in enumerate(images):
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(stream_seed(0, i, 0))).to(image)
        estimate = denoiser((image + sigma * noise)[None], sigma)[0].float()
        if clip and image.shape[0] != 2:
            estimate = estimate.clamp(0, 1)
        total += float(-10 * (estimate - image).square().mean().log10())
    return total / len(images)
