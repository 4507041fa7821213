"""Montages of slices."""

import numpy as np
import pytest
from PIL import Image

from invdiff.io.volumes.montage import montage, write_montage


def test_slices_are_laid_out_row_by_row_in_one_window(tmp_path):
    volume = np.arange(1, 7, dtype=np.float32)[:, None, None] * np.ones((6, 120, 100), np.float32)
    sheet = np.asarray(montage(iter(volume), volume.shape, columns=3))
    assert sheet.shape == (2 * 122 - 2, 3 * 102 - 2)
    middle = [sheet[60 + 122 * (i // 3), 50 + 102 * (i % 3)] for i in range(6)]
    assert middle == [round(255 * (i + 1) / 6) for i in range(6)]
    write_montage(tmp_path / "m.png", iter(volume), volume.shape, columns=3)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "m.png")), sheet)


def test_at_most_25_slices_evenly_chosen_from_first_to_last():
    volume = np.arange(100, dtype=np.float32)[:, None, None] * np.ones((100, 96, 96), np.float32)
    sheet = np.asarray(montage(iter(volume), volume.shape))
    assert sheet.shape == (5 * 98 - 2, 5 * 98 - 2)
    middle = [sheet[70 + 98 * (i // 5), 60 + 98 * (i % 5)] for i in range(25)]
    np.testing.assert_allclose(middle, 255 * np.round(np.linspace(0, 99, 25)) / 99, atol=2)


def test_every_tile_carries_its_number_and_nothing_is_lit_for_black_slices():
    sheet = np.asarray(montage(iter(np.zeros((2, 96, 96), np.float32)), (2, 96, 96), columns=2))
    left, right = sheet[:, :96], sheet[:, 98:]
    assert min(left.max(), right.max()) > 200
    assert not np.array_equal(left, right)
    assert not left[20:].any()


def test_one_bright_pixel_does_not_darken_the_picture():
    volume = np.full((1, 200, 200), 0.5, np.float32)
    volume[0, 3, 3] = 1e6
    assert np.asarray(montage(iter(volume), volume.shape))[100, 100] == 255
    speck = np.zeros((1, 200, 200), np.float32)
    speck[0, 100, 100] = 3.0    # where the percentile is 0, white is the maximum
    assert np.asarray(montage(iter(speck), speck.shape))[100, 100] == 255


@pytest.mark.parametrize("arguments", [{"columns": 0}, {"most": 0}])
def test_bad_numbers_are_named(arguments):
    with pytest.raises(ValueError, match=r"^columns, most: expected at least 1"):
        montage(iter(np.ones((1, 4, 4))), (1, 4, 4), **arguments)
