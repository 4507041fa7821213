"""Noise models, and the estimates of sigma against what was put in."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from operators import (
    GaussianNoise,
    PoissonGaussianNoise,
    PoissonNoise,
    estimate_kspace_sigma,
    estimate_sigma,
    noise_whiteness,
)
from operators.mri._fourier import fft, ifft, to_channels

DATA = Path(__file__).parents[2] / "../shared/data"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noisy(x, sigma, seed=0):
    return x + sigma * torch.randn(x.shape, generator=generator(seed)).to(x)


def photograph(name):
    image = torch.from_numpy(getattr(skimage.data, name)()).float() / 255
    return (image.permute(2, 0, 1)[:, :300, 100:400] if image.ndim == 3 else image[None, :384])[None]


@pytest.mark.parametrize("level", [0.02, 0.5, 1.0])
@pytest.mark.parametrize(
    ("model", "variance"),
    [
        (lambda: GaussianNoise(0.1, rng=generator()), lambda x: 0.01),
        (lambda: PoissonNoise(0.02, rng=generator()), lambda x: 0.02 * x),
        (lambda: PoissonGaussianNoise(0.02, 0.1, rng=generator()), lambda x: 0.02 * x + 0.01),
    ],
)
def test_noise_has_the_mean_and_the_variance_it_should(model, variance, level):
    n = 400_000
    x = torch.full((2, 1, n // 2, 1), level)
    noise = model()(x) - x
    expected = variance(level)
    assert abs(noise.mean()) < 5 * (expected / n) ** 0.5
    kurtosis = ((noise - noise.mean()) ** 4).mean() / noise.var() ** 2
    assert abs(noise.var() / expected - 1) < 5 * ((kurtosis - 1) / n) ** 0.5
    torch.testing.assert_close(model()(x), x + noise)  # the same seed
    assert not torch.equal(noise[0], noise[1])


def test_gaussian_noise_takes_a_sigma_an_image_and_is_white_on_complex_data():
    k = GaussianNoise(torch.tensor([0.1, 0.5]), rng=generator())(torch.zeros(2, 2, 3, 64, 64))
    torch.testing.assert_close(k.flatten(2).std(-1), torch.tensor([[0.1, 0.1], [0.5, 0.5]]), rtol=0.05, atol=0)
    assert torch.complex(k[:, 0], k[:, 1]).abs().square().mean((1, 2, 3))[1].item() == pytest.approx(2 * 0.25, rel=0.05)


def test_poisson_noise_refuses_or_clips_negative_light():
    x = torch.full((1, 1, 4, 4), -1e-3)
    with pytest.raises(ValueError, match="non-negative"):
        PoissonNoise(0.1)(x)
    assert not PoissonNoise(0.1, clip_positive=True)(x).any()


@pytest.mark.parametrize(("size", "count"), [((1, 16, 16), 200), ((3, 40, 32), 100), ((1, 128, 130), 50)])
def test_the_estimate_of_pure_noise_is_right_on_average(size, count):
    sigma = 0.3
    variance = estimate_sigma(noisy(torch.zeros(count, *size), sigma)).square() / sigma**2
    assert abs(variance.mean() - 1) < 4 * variance.std() / count**0.5
    assert variance.std() < 7 / min(size[1:]) ** 0.5 / 4  # it shrinks with the size


@pytest.mark.parametrize("sigma", [0.01, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("name", ["camera", "coins", "astronaut"])
def test_the_estimate_on_photographs_is_within_five_per_cent_but_for_faint_noise(name, sigma):
    x = photograph(name)
    assert estimate_sigma(noisy(x, sigma)).item() == pytest.approx(sigma, rel=0.05 if sigma > 0.01 else 0.1)


def test_the_estimate_takes_images_for_themselves_and_is_equivariant():
    x = photograph("astronaut")[..., :120, :140].expand(3, -1, -1, -1)
    sigma = torch.tensor([0.02, 0.1, 0.3]).reshape(3, 1, 1, 1)
    y = x + sigma * torch.randn(x.shape, generator=generator())
    got = estimate_sigma(y)
    assert got.shape == (3,)
    for i in range(3):
        torch.testing.assert_close(estimate_sigma(y[i : i + 1]), got[i : i + 1])
    torch.testing.assert_close(got, sigma.flatten(), rtol=0.1, atol=0)
    torch.testing.assert_close(estimate_sigma(-255 * y + 40), 255 * got, rtol=1e-3, atol=0)
    torch.testing.assert_close(estimate_sigma(y.flip(-1).transpose(-2, -1)), got, rtol=1e-3, atol=0)
    assert estimate_sigma(y.bfloat16()).dtype == torch.float32
    assert estimate_sigma(y.double()).dtype == torch.float64


def test_clipped_and_rounded_images_do_not_fool_the_estimate():
    x = photograph("astronaut").clone()
    x[..., :100, :150] = 1.0  # blown out: half of its noise is clipped away
    x[..., 200:, 200:] = 0.0
    for sigma in (0.02, 0.1):
        y = (noisy(x, sigma).clamp(0, 1) * 255).round() / 255
        assert estimate_sigma(y).item() == pytest.approx(sigma, rel=0.06)


def eight_bits(y):
    return (y.clamp(0, 1) * 255).round() / 255


def test_areas_of_one_value_do_not_fool_the_estimate():
    y = eight_bits(noisy(photograph("astronaut"), 0.05))
    y[..., 100:130, 100:130] = 0.5  # painted over
    framed = torch.nn.functional.pad(y, (20, 20, 12, 12), value=128 / 255)
    for image in (y, framed):
        assert estimate_sigma(image).item() == pytest.approx(0.05, rel=0.05)


def test_nothing_but_constants_has_no_noise():
    assert estimate_sigma(torch.full((1, 2, 32, 32), 0.7)).item() == 0
    steps = torch.linspace(0.1, 0.9, 8).repeat_interleave(16).expand(1, 1, 64, -1)
    assert estimate_sigma(steps).item() == 0
    assert noise_whiteness(steps).item() == 1


def test_where_next_to_all_is_clipped_there_is_no_estimate():
    dark = eight_bits(noisy(photograph("camera") * 0.1, 0.1))
    for y in (dark, torch.arange(2.0).repeat(16).expand(1, 1, 32, -1)):
        with pytest.raises(ValueError, match=r"y: .*% of the 8 x 8 blocks of a channel touch clipped pixels"):
            estimate_sigma(y)


def test_the_estimate_does_not_hold_all_coefficients(monkeypatch):
    from operators import noise

    y, sizes = noisy(torch.zeros(1, 1, 300, 40), 0.1), []
    coefficients = noise._block_coefficients
    monkeypatch.setattr(noise, "_block_coefficients", lambda strip: (sizes.append(strip.numel()), coefficients(strip))[1])
    by_strips = estimate_sigma(y)
    assert len(sizes) > 1
    assert max(sizes) < y.numel() / 4
    monkeypatch.setattr(noise, "_ROWS", 300)
    torch.testing.assert_close(by_strips, estimate_sigma(y))


@pytest.mark.parametrize("name", ["camera", "astronaut"])
def test_white_noise_is_said_to_be_white_and_jpeg_and_enlarged_is_not(name):
    from PIL import Image

    sigma = 0.02
    y = noisy(photograph(name)[..., :160, :160], sigma)
    for white in (y, eight_bits(y), noisy(torch.nn.functional.avg_pool2d(y, 5, 1), sigma, 1)):
        assert noise_whiteness(white).item() > 0.8
    file, pixels = io.BytesIO(), (eight_bits(y) * 255).byte()[0].permute(1, 2, 0).squeeze().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    jpeg = torch.from_numpy(np.array(Image.open(file))).float().reshape(*y.shape[-2:], -1).permute(2, 0, 1)[None] / 255
    enlarged = torch.nn.functional.interpolate(y, scale_factor=1.5, mode="bicubic")
    for coloured in (jpeg, enlarged):
        assert noise_whiteness(coloured).item() < 0.5
        assert estimate_sigma(coloured).item() < 0.6 * sigma


def test_of_small_images_white_noise_is_white_too():
    assert noise_whiteness(noisy(torch.zeros(40, 3, 32, 32), 0.1)).min() > 0.7


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(3, 32, 32), r"y: expected \(B, C, H, W\) .* got \(3, 32, 32\)"),
        (torch.zeros(1, 3, 32, 15), "at least 16, got"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "floating-point tensor, got torch.uint8"),
        (torch.full((1, 1, 32, 32), torch.nan), "finite values, got NaN"),
    ],
)
def test_what_is_no_image_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        estimate_sigma(y)


def test_the_estimate_on_the_test_photographs():
    path = DATA / "natural.h5"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    h5py = pytest.importorskip("h5py")
    from PIL import Image

    with h5py.File(path) as file:
        images = [np.array(Image.open(io.BytesIO(bytes(b)))) for b in file["test_jpeg"][::17]]
    errors = []
    for seed, image in enumerate(images):
        x = torch.from_numpy(image).float().mean(-1)[None, None] / 255
        errors.append([estimate_sigma(noisy(x, sigma, seed)).item() / sigma - 1 for sigma in (0.02, 0.1)])
    assert np.abs(np.median(errors, axis=0)).max() < 0.02
    assert np.abs(errors).max() < 0.12


def kspace(sigma, coils=4, side=128, seed=0):
    """K-space (1, N, H, W) of a smooth image seen by `coils` coils, with noise, and the noise alone."""
    axis = torch.linspace(-1, 1, side)
    image = torch.exp(-20 * (axis[:, None] ** 2 + axis**2)) * torch.exp(1j * axis)
    clean = fft(image * torch.linspace(0.5, 1.5, coils)[:, None, None], (-2, -1))
    noise = sigma * torch.randn(1, coils, side, side, 2, generator=generator(seed))
    return clean + torch.view_as_complex(noise)


@pytest.mark.parametrize("sigma", [0.001, 0.05, 2.0])
def test_kspace_sigma_is_within_sampling_error(sigma):
    k = kspace(sigma)
    # the median of n Rayleigh variables has the relative standard deviation 1 / (2 ln 2 sqrt n)
    n = 4 * (128**2 - 114**2)
    assert abs(estimate_kspace_sigma(k).item() / sigma - 1) < 5 / (2 * math.log(2) * n**0.5)
    torch.testing.assert_close(estimate_kspace_sigma(to_channels(k)), estimate_kspace_sigma(k))
    noise = k - kspace(0.0)
    assert abs(estimate_kspace_sigma(noise, border=1).item() / sigma - 1) < 5 / (2 * math.log(2) * 256)


def test_kspace_sigma_leaves_out_what_was_not_sampled():
    mask = torch.rand(128, 128, generator=generator()) < 0.2
    assert estimate_kspace_sigma(kspace(0.05) * mask).item() == pytest.approx(0.05, rel=0.06)


def test_kspace_sigma_per_coil_and_item():
    sigma = torch.tensor([[0.1, 0.2, 0.4], [1.0, 2.0, 3.0]])
    k = sigma[:, :, None, None] * (kspace(1.0, 6).unflatten(1, (2, 3))[0] - kspace(0.0, 6).unflatten(1, (2, 3))[0])
    torch.testing.assert_close(estimate_kspace_sigma(k, per_coil=True), sigma, rtol=0.08, atol=0)
    torch.testing.assert_close(estimate_kspace_sigma(k), sigma.square().mean(1).sqrt(), rtol=0.08, atol=0)
    torch.testing.assert_close(estimate_kspace_sigma(k[:, 1]), sigma[:, 1], rtol=0.08, atol=0)  # (B, H, W): one coil
    series = k[:, :, None].expand(-1, -1, 2, -1, -1)
    torch.testing.assert_close(estimate_kspace_sigma(series, per_coil=True), estimate_kspace_sigma(k, per_coil=True))


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (torch.zeros(1, 3, 8, 8), {}, r"kspace: expected complex .* got \(1, 3, 8, 8\)"),
        (torch.zeros(8, 8, dtype=torch.complex64), {}, "kspace: expected complex"),
        (torch.zeros(1, 2, 8, 8, dtype=torch.int32), {}, "floating-point numbers, got torch.int32"),
        (torch.zeros(1, 4, 8, 8, dtype=torch.complex64), {}, "sampled .* entries .* got none"),
        (torch.full((1, 4, 8, 8), torch.inf + 0j), {}, "finite"),
        (torch.ones(1, 4, 8, 8) + 0j, {"border": 0.0}, r"border: expected a number in \(0, 1\], got 0"),
        (torch.ones(1, 4, 8, 8) + 0j, {"border": 1.5}, "border: expected"),
    ],
)
def test_what_is_no_kspace_is_refused(k, options, message):
    with pytest.raises(ValueError, match=message):
        estimate_kspace_sigma(k, **options)


def test_the_estimates_on_a_real_scan():
    path = DATA / "kspace/brain_t1_8ch.h5"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    with pytest.importorskip("h5py").File(path) as file:
        k = torch.from_numpy(file["kspace"][:])
    images = ifft(k, (-2, -1))[0]
    edge = torch.cat([images[:, :15], images[:, -15:]], dim=1)
    corners = torch.cat([edge[..., :15], edge[..., -15:]], dim=-1).flatten(1)
    air = corners.abs().median(1).values / math.sqrt(2 * math.log(2))
    by_border = estimate_kspace_sigma(k, per_coil=True)[0]
    assert ((by_border > 0.95 * air) & (by_border < 1.7 * air)).all()  # from above: the detail reaches the border
    by_blocks = estimate_sigma(to_channels(images[:, None])[:, :, 0])
    assert by_blocks.square().mean().sqrt().item() == pytest.approx(air.square().mean().sqrt().item(), rel=0.1)


def test_a_constant_channel_says_nothing_of_the_others():
    y = 0.5 + 0.05 * torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    y[:, 1] = 0.3
    assert estimate_sigma(y).item() == pytest.approx(0.05, rel=0.06)
    assert noise_whiteness(y).item() == pytest.approx(1.0, abs=0.15)
