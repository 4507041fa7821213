"""Forward models made from files."""

import numpy as np
import pytest
import torch
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


def test_black_strokes_on_a_transparent_layer_are_to_be_laid_over_white(tmp_path):
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[1:3, 2:5, -1] = 255
    Image.fromarray(pixels).save(tmp_path / "strokes.png")
    with pytest.raises(ValueError, match=r"strokes.png: expected white .* got black and transparent .*; lay it over white"):
        mask_inpainting((3, 4, 6), str(tmp_path / "strokes.png"))
    Image.fromarray(pixels[..., :3]).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match=r"got none"):
        mask_inpainting((3, 4, 6), str(tmp_path / "black.png"))


def test_a_mask_of_equal_channels_is_no_remarkable_one(tmp_path, recwarn):
    mask = np.zeros((6, 7, 3), np.uint8)
    mask[:3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    physics = mask_inpainting((3, 6, 7), str(tmp_path / "mask.png"))
    assert physics.A(torch.ones(1, 3, 6, 7)).sum() == 3 * 3 * 7
    assert not recwarn
