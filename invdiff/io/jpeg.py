"""What a JPEG file tells beside its pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def jpeg_steps(path: str | Path | None) -> Tensor | None:
    """The quantisation table (8, 8) of a JPEG's luminance, in grey levels, from its header; None of other files, of such as
    cannot be read, and of none."""
    with _opened(path) as image:
        return None if image is None else torch.tensor(image.quantization[0], dtype=torch.float32).reshape(8, 8)


def jpeg_luminance(path: str | Path | None) -> Tensor | None:
    """The luminance of a JPEG, grey levels (H, W) as the file holds them, not turned; None also of those in CMYK."""
    with _opened(path) as image:
        if image is None or image.mode not in ("L", "RGB"):
            return None
        image.draft("L", image.size)            # the decoder's own, before it mixes in colours
        try:
            return torch.from_numpy(np.array(image.convert("L")))
        except (OSError, SyntaxError):          # it is cut short
            return None


@contextmanager
def _opened(path: str | Path | None) -> Iterator[Any]:
    from PIL import Image

    try:
        image: Any = None if path is None else Image.open(path, formats=("JPEG",))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        image = None
    try:
        yield image if image is not None and 0 in image.quantization else None
    finally:
        if image is not None:
            image.close()
