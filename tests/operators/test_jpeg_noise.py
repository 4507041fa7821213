"""The noise that an image had before it became a JPEG."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import operators


def compressed(pixels, quality):
    """The luminance that a file has, and its steps."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    image = Image.open(file)
    table = torch.tensor(image.quantization[0]).reshape(8, 8)
    return torch.from_numpy(np.array(image)), table


def ramp(sigma, seed=0, side=256):
    """A smooth scene, grey levels from 60 to 190, with white noise."""
    down, across = np.mgrid[:side, :side] / side
    noise = np.random.default_rng(seed).standard_normal((side, side))
    return np.clip(60 + 65 * down + 65 * across + sigma * noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("quality", [60, 75, 90, 98])
@pytest.mark.parametrize("sigma", [12.0, 25.0])
def test_the_level_before_compression_is_found(sigma, quality):
    """32 blocks of 36 coefficients or so tell a level to 1 / sqrt(2 * 32 * 36) = 2 % where steps are fine; with steps of two to
    three levels, of which a third of the information is left, 4 %. Three of those, and half a step between levels tried."""
    found = operators.estimate_jpeg_sigma(*compressed(ramp(sigma), quality))
    assert found == pytest.approx(sigma, rel=0.14)
    white = operators.estimate_sigma(compressed(ramp(sigma), quality)[0].float()[None, None])
    assert quality > 90 or abs(float(white) - sigma) > abs(found - sigma)


def test_it_is_right_on_average():
    found = [operators.estimate_jpeg_sigma(*compressed(ramp(12.0, seed), 75)) for seed in range(24)]
    assert np.mean(found) == pytest.approx(12.0, rel=0.14 / 24**0.5)


def test_noise_far_below_the_steps_does_not_show():
    luminance, steps = compressed(ramp(1.0), 50)
    assert operators.estimate_jpeg_sigma(luminance, steps) < 1
    assert operators.estimate_jpeg_sigma(*compressed(ramp(0.0), 75)) < 1


def test_texture_is_no_noise():
    """Stripes over half of the image."""
    pixels = ramp(8.0).astype(int)
    pixels[:, :128] += (40 * np.sin(np.arange(128) * 1.3)).astype(int)
    assert operators.estimate_jpeg_sigma(*compressed(pixels.clip(0, 255).astype(np.uint8), 85)) == pytest.approx(8, rel=0.14)


@pytest.mark.parametrize(("luminance", "steps", "said"), [
    (torch.zeros(1, 32, 32), torch.ones(8, 8), r"luminance: expected \(H, W\)"),
    (torch.zeros(8, 32), torch.ones(8, 8), "luminance: expected .* at least 16"),
    (torch.full((32, 32), torch.nan), torch.ones(8, 8), "luminance: expected finite"),
    (torch.full((32, 32), 9.0), torch.ones(64), r"steps: expected \(8, 8\) numbers"),
    (torch.full((32, 32), 9.0), torch.zeros(8, 8), "steps: expected .* >= 1"),
    (torch.full((32, 32), 255.0), torch.ones(8, 8), "luminance: expected 8 blocks .* got 0"),
])
def test_what_it_cannot_tell_from_is_refused(luminance, steps, said):
    with pytest.raises(ValueError, match=said):
        operators.estimate_jpeg_sigma(luminance, steps)
