"""k-space, masks and coils as pictures."""

from typing import Any

import numpy as np
import torch

from invdiff.errors import InputError
from invdiff.mri.preparing import measured_block, prepare, retrospective, sampled_share
from invdiff.mri.settings import ScanSettings
from invdiff_app import text_mri as words
from invdiff_app.pictures import stretched, windowed
from operators import mri


def kspace_pictures(scan: Any, config: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """k-space, mask, and what is seen without more: by title, with captions. Raises InputError as the run will."""
    settings, raw = ScanSettings.of(config.operator), scan.read(config.slices[0])
    if raw.mask is None:
        raise InputError(f"{scan.path}: is on a trajectory, which the command line restores, and this page does not show")
    mask = raw.mask if settings.acceleration is None else retrospective(scan, raw, settings)
    kept = raw.kspace * mask
    size = kept.abs().square().sum(0).sqrt()
    image = mri.rss(mri.ifft(kept, (-2, -1)), 0)
    pictures = {words.KSPACE: stretched((size + 1e-4 * size.max()).log()), words.MASK: stretched(mask.float()),
                words.ZERO_FILLED: windowed(_cropped(image, scan.crop), 0.0, float(image.quantile(0.998)))}
    captions = {words.KSPACE: words.KSPACE_CAPTION, words.MASK: words.MASK_CAPTION.format(float(mask.float().mean())),
                words.ZERO_FILLED: words.ZERO_FILLED_CAPTION}
    return pictures, captions


def undersampled(scan: Any, number: int) -> float | None:
    """The share of k-space that there is in a slice over which no mask can be put; None where one can, and where it cannot be
    read, as `kspace_pictures` will say."""
    try:
        mask = scan.read(number).mask
    except InputError:
        return None
    return None if mask is None or measured_block(mask) else sampled_share(mask)


def coil_pictures(scan: Any, config: Any, most: int) -> dict[str, np.ndarray]:
    """Image and map of each coil, the first `most` of them."""
    prepared = prepare(scan, config.slices[0], ScanSettings.of(config.operator))
    y, maps = prepared.problem.y[0], torch.view_as_complex(prepared.problem.physics.coil_maps)[0, 0]
    images = mri.ifft(torch.complex(y[0], y[1]), (-2, -1)).abs()
    top, pictures = float(images.max()), {}
    for number in range(min(len(maps), most)):
        pictures[words.COIL.format(number + 1)] = windowed(images[number], 0.0, 0.7 * top)
    return pictures | {words.MAP.format(number + 1): windowed(maps[number].abs(), 0.0, 1.0)
                       for number in range(min(len(maps), most))}


def _cropped(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    top, left = ((n - m) // 2 for n, m in zip(x.shape[-2:], size, strict=True))
    return x[..., top : top + size[0], left : left + size[1]]
