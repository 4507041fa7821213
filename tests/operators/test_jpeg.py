"""JPEG: the model against the codec, and its gradient."""

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from operators import JPEG
from operators.jpeg import quantization_tables


def photograph(channels, height=157, width=203):
    image = skimage.data.astronaut()[20 : 20 + height, 100 : 100 + width]
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    return x if channels == 3 else x[:, :1]


def encode(image, quality, subsampled=True):
    """The JPEG file of an array uint8 (H, W) or (H, W, 3)."""
    file = io.BytesIO()
    mode = {"subsampling": "4:2:0" if subsampled else "4:4:4"} if image.ndim == 3 else {}
    Image.fromarray(image).save(file, "JPEG", quality=quality, **mode)
    return file


@pytest.mark.parametrize("quality", [1, 5, 20, 49, 50, 75, 95, 100])
def test_the_tables_are_those_in_a_file_of_libjpeg(quality):
    expected = Image.open(encode(np.zeros((8, 8, 3), np.uint8), quality)).quantization
    tables = quantization_tables(quality).flatten(1).int().tolist()
    zigzag = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))
    for mine, theirs in zip(tables, (expected[0], expected[1]), strict=True):
        # Pillow 8.3 and later gives tables row by row, before in zigzag order
        assert list(theirs) in (mine, [mine[i] for i in zigzag])


@pytest.mark.parametrize("subsampled", [True, False], ids=["4:2:0", "4:4:4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_real_codec_is_pillows(channels, subsampled):
    x = photograph(channels)
    array = (x[0] * 255).byte().permute(1, 2, 0).numpy()
    expected = np.array(Image.open(encode(array.squeeze(), 20, subsampled))).reshape(array.shape)
    y = JPEG(x.shape[1:], 20, subsampled, real=True).A(x)
    assert np.array_equal((y[0] * 255).round().byte().permute(1, 2, 0), expected)


@pytest.mark.parametrize("quality", [5, 20, 75, 95, 100])
@pytest.mark.parametrize(("channels", "subsampled"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("before", [None, 85])
def test_the_model_agrees_with_the_codec(channels, subsampled, quality, before):
    """Of a photograph that was a JPEG before, many coefficients are half of a step."""
    x = photograph(channels)
    if before:
        x = JPEG(x.shape[1:], before, subsampled, real=True).A(x)
    model = JPEG(x.shape[1:], quality, subsampled)
    difference = 255 * (model.A(x) - JPEG(x.shape[1:], quality, subsampled, real=True).A(x)).abs()
    assert difference.mean() < 0.1  # grey levels
    if quality < 50:
        assert (255 * (model.A(x) - x)).abs().mean() > 10 * difference.mean()
        assert (difference > 0.5).float().mean() < 0.05


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 1, 1), (3, 2, 3), (3, 5, 4), (3, 3, 17), (3, 16, 16), (3, 33, 31)])
def test_the_edges_are_those_of_the_codec(size):
    x = photograph(size[0], *size[1:])
    for subsampled in (True, False):
        difference = 255 * (JPEG(size, 50, subsampled).A(x) - JPEG(size, 50, subsampled, real=True).A(x)).abs()
        assert difference.mean() < 0.1


@pytest.mark.parametrize("size", [(3, 6, 32), (3, 10, 20), (3, 21, 18)])
def test_the_edges_of_the_wildest_images_are_those_of_the_codec(size):
    x = torch.rand(50, *size, generator=torch.Generator().manual_seed(0))
    difference = 255 * (JPEG(size, 50).A(x) - JPEG(size, 50, real=True).A(x)).abs()
    assert difference.mean() < 1
    assert (difference > 0.5).float().mean() < 0.25  # a wrong edge spoils most pixels of its blocks


def test_output_is_in_levels_and_input_is_clipped():
    x = 3 * photograph(3) - 1
    y = JPEG(x.shape[1:], 30).A(x)
    torch.testing.assert_close(255 * y, (255 * y).round(), rtol=0, atol=1e-4)
    assert 0 <= y.min() < y.max() <= 1
    torch.testing.assert_close(y, JPEG(x.shape[1:], 30).A(x.clamp(0, 1)), rtol=0, atol=0)


def test_less_quality_is_less_like_the_image_and_twice_is_like_once():
    x = photograph(3)
    errors = [(JPEG(x.shape[1:], q).A(x) - x).square().mean() for q in (5, 20, 50, 90, 100)]
    assert errors == sorted(errors, reverse=True)
    physics = JPEG(x.shape[1:], 20)
    y = physics.A(x)
    assert (physics.A(physics.A_dagger(y)) - y).square().mean() < 0.05 * (y - x).square().mean()


def test_the_gradient_is_that_of_the_codec_without_rounding():
    x = 0.3 + 0.4 * photograph(3).double()
    v = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = JPEG(x.shape[1:], 100, False).to(torch.float64)
    torch.testing.assert_close(plain.A_vjp(x, v), v, rtol=1e-5, atol=1e-5)  # a chain of transforms and their inverses
    halved = JPEG(x.shape[1:], 100, True).to(torch.float64)
    got = halved.A_vjp(x, v)
    torch.testing.assert_close(got.sum(1), v.sum(1), rtol=1e-5, atol=1e-5)  # the grey part passes
    assert (got - v).norm() > 0.1 * v.norm()  # and the colour is smoothed


@pytest.mark.parametrize("subsampled", [True, False])
def test_the_real_codec_has_the_gradient_of_the_model(subsampled):
    x = photograph(3, 40, 41).repeat(2, 1, 1, 1)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    real, model = JPEG(x.shape[1:], 40, subsampled, real=True), JPEG(x.shape[1:], 40, subsampled)
    expected = model.A_vjp(x, v)
    torch.testing.assert_close(real.A_vjp(x, v), expected, rtol=0, atol=0)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((real.A(leaf) * v).sum(), leaf)
    torch.testing.assert_close(gradient, expected)
    value, tangent = torch.func.jvp(real.A, (x,), (v,))
    torch.testing.assert_close(value, real.A(x), rtol=0, atol=0)
    torch.testing.assert_close(tangent, torch.func.jvp(model.A, (x,), (v,))[1])
    torch.testing.assert_close(torch.func.vmap(real.A, in_dims=1)(x[:, None]).squeeze(0), real.A(x), rtol=0, atol=0)


def test_half_precision_comes_back_as_it_went_in():
    x = photograph(3, 24, 24).bfloat16()
    y = JPEG(x.shape[1:]).A(x)
    assert y.dtype == torch.bfloat16
    assert (y - JPEG(x.shape[1:]).A(x.float())).abs().max() < 1 / 128


@pytest.mark.parametrize("arguments", [((2, 8, 8),), ((3, 8, 8), 0), ((3, 8, 8), 101), ((3, 8, 8), 20.5), ((3, 8, 8), True)])
def test_parameters_are_checked(arguments):
    with pytest.raises(ValueError, match=r"(img_size|quality): expected .* got "):
        JPEG(*arguments)
