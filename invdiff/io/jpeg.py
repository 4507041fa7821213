"""What a JPEG file tells beside its pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def jpeg_luminance(path: str | Path) -> tuple[Tensor, Tensor] | None:
    """The luminance of a JPEG, grey levels (H, W) as the file holds them, not turned, and its quantisation table (8, 8); None
    of other files, of such as cannot be read, and of those in CMYK."""
    from PIL import Image

    try:
        opened: Any = Image.open(path, formats=("JPEG",))
        with opened as image:
            if image.mode not in ("L", "RGB"):
                return None
            table = torch.tensor(image.quantization[0], dtype=torch.float32).reshape(8, 8)
            image.draft("L", image.size)            # the decoder's own, before it mixes in colours
            return torch.from_numpy(np.array(image.convert("L"))), table
    except (OSError, ValueError, KeyError, SyntaxError, Image.DecompressionBombError):
        return None


def is_jpeg(path: str | Path | None) -> bool:
    """Do the first bytes of a file say so?"""
    if path is None:
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(3) == b"\xff\xd8\xff"
    except OSError:
        return False
