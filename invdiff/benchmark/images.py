"""The clean images of a benchmark."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.benchmark.settings import BenchmarkConfig
from invdiff.datasets.crops import central_crops
from invdiff.datasets.pixels import to_grey
from invdiff.errors import InputError
from invdiff.io.images import SAMPLES
from invdiff.priors import load_prior
from invdiff.priors.facts import channels_of

SAMPLE = "sample"
QUARTERS = ((0, 0), (1, 1), (0, 1), (1, 0))         # of a photo's central square: down, right
SHORT_SIDE = 300                                    # of the smallest of the photos


def clean_images(config: BenchmarkConfig) -> dict[str, Tensor]:
    """Images (3, size, size) in [0, 1] by name; (1, size, size), of their brightness, where the priors are for grey ones, as
    far as they say. Raises InputError: too few, or too small."""
    grey = {channels_of(load_prior(name)) for name in config.priors} - {None} == {1}
    if config.images == SAMPLE:
        photos = sample_crops(config.count, config.size)
        return {name: to_grey(photo.permute(1, 2, 0).numpy()) for name, photo in photos.items()} if grey else photos
    crops = central_crops(config.images, config.key, config.count, config.size, grey)
    if len(crops) < config.count:
        raise InputError(f"{config.images}: expected {config.count} images of at least {config.size} x {config.size} pixels, "
                         f"found {len(crops)}; set a smaller count or size")
    return {f"{i + 1}": crop for i, crop in enumerate(crops)}


def sample_crops(count: int, size: int) -> dict[str, Tensor]:
    """Crops of the photos in scikit-image's wheel: their quarters, made smaller to `size`, a quarter of each photo in turn.

    Raises InputError for more than there are, or of more than half the smallest photo's side: they would be enlarged ones.
    """
    most = len(SAMPLES) * len(QUARTERS)
    if count > most or size > SHORT_SIDE // 2:
        raise InputError(f"images: the photos that come along make {most} images of up to {SHORT_SIDE // 2} pixels a side, and "
                         f"{count} of {size} are asked for; set count or size, or give a folder of your own with --data")
    crops = {}
    for i in range(count):
        name, quarter = SAMPLES[i % len(SAMPLES)], i // len(SAMPLES)
        crops[f"{name} {quarter + 1}"] = _quarter(name, size, QUARTERS[quarter])
    return crops


def _quarter(name: str, size: int, place: tuple[int, int]) -> Tensor:
    from PIL import ImageOps
    from skimage import data

    photo = ImageOps.fit(Image.fromarray(getattr(data, name)()), (2 * size, 2 * size), Image.Resampling.LANCZOS)
    top, left = (size * step for step in place)
    pixels = np.array(photo, dtype=np.float32)[top : top + size, left : left + size] / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
