"""What a JPEG file tells beside its pixels."""

import numpy as np
import torch
from PIL import Image

from invdiff.io.jpeg import jpeg_luminance, jpeg_steps


def test_steps_and_luminance_are_the_file_s_own(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, quality=50)
    steps = jpeg_steps(path)
    assert steps[0, :4].tolist() == [16, 11, 10, 16]           # Annex K of ITU-T T.81, row by row
    assert steps[7, 7] == 99
    assert torch.equal(jpeg_luminance(path), torch.from_numpy(np.array(Image.open(path))))


def test_other_files_have_none_and_damaged_ones_no_luminance(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "text.jpg").write_text("no picture")
    for path in (None, tmp_path / "a.png", tmp_path / "text.jpg", tmp_path / "absent.jpg"):
        assert jpeg_steps(path) is None
        assert jpeg_luminance(path) is None
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1500])
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.jpg")
    for name in ("cut.jpg", "cmyk.jpg"):
        assert jpeg_steps(tmp_path / name) is not None
        assert jpeg_luminance(tmp_path / name) is None
