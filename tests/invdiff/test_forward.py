"""Forward models made from files."""

import numpy as np
import pytest
from PIL import Image

from invdiff.forward import mask_inpainting


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_in_a_mask_is_missing(tmp_path, mode):
    """A white sheet with a hole rubbed out, as a drawing program saves it."""
    pixels = np.full((4, 6, len(mode)), 255, np.uint8)
    pixels[1:3, 2:5, -1] = 0
    Image.fromarray(pixels, mode).save(tmp_path / "hole.png")
    mask = mask_inpainting((3, 4, 6), str(tmp_path / "hole.png")).mask
    np.testing.assert_array_equal(mask[0, 0].numpy(), pixels[..., -1] / 255)
