"""Files with a colour profile."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from invdiff.io.images import load_image

# The primaries of Adobe RGB (1998), gamma 563 / 256; and what its values (r, g, b) are in sRGB, by the two standards' own
# formulas: the same red and blue, another green, so greens that it holds are more saturated than their numbers say.
TO_XYZ = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
FROM_XYZ = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.969266, 1.8760108, 0.041556], [0.0556434, -0.2040259, 1.0572252]])


def in_srgb(adobe):
    linear = (adobe ** (563 / 256)) @ (FROM_XYZ @ TO_XYZ).T
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.abs(linear) ** (1 / 2.4) - 0.055)


def adobe_profile():
    """An ICC profile, version 2, matrix and curves, white at D50 by Bradford's adaptation."""
    adapt = np.array([[1.0478112, 0.0228866, -0.050127], [0.0295424, 0.9904844, -0.0170491],
                      [-0.0092345, 0.0150436, 0.7521316]])
    columns = (adapt @ TO_XYZ).T

    def fixed(*numbers):
        return b"".join(round(n * 65536).to_bytes(4, "big", signed=True) for n in numbers)

    text = b"Wide"
    tags = {b"desc": b"desc\0\0\0\0" + (len(text) + 1).to_bytes(4, "big") + text + b"\0" + bytes(78 + 3),
            b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    tags |= {name: b"XYZ \0\0\0\0" + fixed(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + (563).to_bytes(2, "big") + b"\0\0"
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + at.to_bytes(4, "big") + len(content).to_bytes(4, "big")
        body, at = body + content, at + len(content)
    header = (at.to_bytes(4, "big") + bytes(4) + b"\x02\x10\0\0" + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
              + fixed(0.9642, 1, 0.8249) + bytes(48))
    return header + len(tags).to_bytes(4, "big") + table + body


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(60, 190, (24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp"])
def test_colours_of_another_space_are_made_srgb(name, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / name, icc_profile=adobe_profile(), **({"lossless": True} if "webp" in name else {}))
    found = load_image(tmp_path / name)[0].permute(1, 2, 0).numpy()
    expected = in_srgb(pixels / 255)
    inside = (expected > 0.01) & (expected < 0.99)          # others are beyond sRGB, and clipped
    assert inside.mean() > 0.8
    assert np.abs(found - expected)[inside].max() < 2.5 / 255     # 8 bits in, 8 bits out, and the conversion's own tables
    assert np.abs(found - pixels / 255).max() > 20 / 255


def test_transparency_stays(pixels, tmp_path):
    with_alpha = np.dstack([pixels, np.full((24, 32), 128, np.uint8)])
    Image.fromarray(with_alpha).save(tmp_path / "a.png", icc_profile=adobe_profile())
    Image.fromarray(pixels).save(tmp_path / "b.png", icc_profile=adobe_profile())
    half, whole = (load_image(tmp_path / name, background=0.0) for name in ("a.png", "b.png"))
    assert np.allclose(half, whole * 128 / 255, atol=1e-6)


def test_srgb_and_damaged_profiles_change_nothing(pixels, tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile", adobe_profile()[:200]):
        Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
        assert np.array_equal(load_image(tmp_path / "a.png")[0].permute(1, 2, 0).numpy(), (pixels / 255).astype(np.float32))


@pytest.mark.filterwarnings("ignore:.*taken for grey")
@pytest.mark.parametrize("stored", [1, 3])
def test_a_grey_picture_keeps_its_values(stored, pixels, tmp_path):
    """Also where it is stored as red, green and blue, which conversion and rounding would make unlike."""
    grey = pixels[..., 0]
    Image.fromarray(grey if stored == 1 else np.dstack([grey] * 3)).save(tmp_path / "a.png", icc_profile=adobe_profile())
    assert np.array_equal(load_image(tmp_path / "a.png")[0].numpy(), (grey[None] / 255).astype(np.float32))


def test_the_colours_of_a_palette_are_made_srgb_too(pixels, tmp_path):
    palette = Image.fromarray(pixels).quantize(16)
    palette.save(tmp_path / "a.png", icc_profile=adobe_profile())
    palette.convert("RGB").save(tmp_path / "b.png", icc_profile=adobe_profile())
    assert np.array_equal(load_image(tmp_path / "a.png"), load_image(tmp_path / "b.png"))
