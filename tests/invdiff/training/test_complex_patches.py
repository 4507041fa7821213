"""Complex training images: read, cut into patches and given a phase."""

import io

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.datasets.complex_images import load_complex, smooth_phase
from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.training.complex_patches import BRIGHTNESS, ComplexPatches, other_contrast
from invdiff.training.run import load_data, train
from invdiff.training.settings import TrainSettings


def write_complex(path, shape=(3, 2, 128, 128), key="train", **attributes):
    values = np.random.default_rng(0).integers(-300, 300, shape).astype(np.int16)
    with h5py.File(path, "a") as file:
        file[key] = values
        file.attrs.update(attributes)
    return values


def write_magnitudes(path, count=2, size=128):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("train_webp", count, dtype=h5py.vlen_dtype(np.uint8))
        for i in range(count):
            buffer = io.BytesIO()
            Image.fromarray(np.full((size, size), 100 + i, np.uint8)).save(buffer, "WEBP", lossless=True)
            data[i] = np.frombuffer(buffer.getvalue(), np.uint8)


def test_integers_are_scaled_and_paired(tmp_path):
    values = write_complex(tmp_path / "x.h5", scale=1 / 300)
    images = load_complex(tmp_path / "x.h5", "train")
    assert [image.dtype for image in images] == [np.complex64] * 3
    np.testing.assert_allclose(images[1], (values[1, 0] + 1j * values[1, 1]) / 300, rtol=1e-6)


def test_what_is_no_complex_data_set_is_named(tmp_path):
    write_complex(tmp_path / "x.h5", (3, 3, 8, 8))
    (tmp_path / "text.h5").write_text("no HDF5")
    for path, key, message in (("x.h5", "train", r"expected numbers \(N, 2, H, W\), got int16 \(3, 3, 8, 8\)"),
                               ("x.h5", "test", "no dataset 'test'; it holds train"), ("text.h5", "train", "HDF5")):
        with pytest.raises(InputError, match=message):
            load_complex(tmp_path / path, key)


@pytest.mark.parametrize("value", [1e3, float("nan")])
def test_complex_images_of_another_scale_are_refused(tmp_path, value):
    images = np.full((2, 2, 8, 8), 0.5, np.float32)
    images[1, 0, 3, 4] = value
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train"] = images
    with pytest.raises(InputError, match=r"x.h5\[train\]\[1\]: expected finite magnitudes of about one at most"):
        load_complex(tmp_path / "x.h5", "train")


def test_complex_patches_are_left_as_they_are_without_flips():
    image = (np.arange(20 * 21).reshape(20, 21) / 420).astype(np.complex64)
    patches, _ = ComplexPatches([image], [], 16, flips=False).batch(50, 16, np.random.default_rng(0))
    magnitude = torch.hypot(patches[:, 0], patches[:, 1])
    assert (magnitude.diff(dim=2) > 0).all()
    assert (magnitude.diff(dim=1) > 0).all()


def test_a_patch_keeps_the_magnitude_up_to_its_brightness():
    image = np.full((40, 50), 0.5 + 0.5j, np.complex64)
    batch, grey = ComplexPatches([image], [], largest=16).batch(40, 16, np.random.default_rng(0))
    assert batch.shape == (40, 2, 16, 16)
    assert not grey.any()
    magnitude = torch.hypot(batch[:, 0], batch[:, 1])
    torch.testing.assert_close(magnitude.amin((1, 2)), magnitude.amax((1, 2)))
    brightness = magnitude[:, 0, 0] / 0.5**0.5
    assert BRIGHTNESS[0] <= brightness.min() < 0.6
    assert 1.1 < brightness.max() <= BRIGHTNESS[1]
    assert (batch.mean((0, 2, 3)).abs() < 0.25).all()        # 40 phases; without a random one the mean is 0.4


def test_another_contrast_keeps_phase_and_energy_and_turns_the_order_of_the_brightest():
    image = np.array([[0, 0.2j, 0.4, 0.8j, -1.0]], np.complex64)
    assert np.array_equal(other_contrast(image, 0.0), image)
    other = other_contrast(image, -1.8)
    assert other.dtype == np.complex64
    np.testing.assert_allclose(np.angle(other[0, 1:]), np.angle(image[0, 1:]), atol=1e-6)
    assert np.sum(np.abs(other) ** 2) == pytest.approx(np.sum(np.abs(image) ** 2), rel=1e-5)
    assert np.argsort(np.abs(other[0])).tolist() == [0, 1, 4, 3, 2]
    assert not other_contrast(np.zeros((3, 3), np.complex64), 1.0).any()


def test_a_share_of_the_patches_has_another_contrast():
    image = np.tile(np.array([[0.2, 1.0]], np.complex64), (16, 8))
    batch, _ = ComplexPatches([image], [], 16, contrast=0.3).batch(200, 16, np.random.default_rng(0))
    m = torch.hypot(batch[:, 0], batch[:, 1])
    changed = ((m[:, 0].amax(-1) / m[:, 0].amin(-1) - 5).abs() > 1e-3).float().mean().item()
    assert changed == pytest.approx(0.3, abs=4 * (0.21 / 200) ** 0.5)


def test_half_of_the_patches_are_magnitudes_and_their_phase_is_smooth():
    patches = ComplexPatches([np.full((64, 64), 1j, np.complex64)], [np.full((64, 64), 0.1, np.float32)], largest=32)
    batch, _ = patches.batch(200, 32, np.random.default_rng(0))
    from_magnitudes = (torch.hypot(batch[:, 0], batch[:, 1]).mean((1, 2)) < 0.2).float().mean().item()
    assert from_magnitudes == pytest.approx(0.5, abs=4 * (0.25 / 200) ** 0.5)
    z = torch.complex(batch[:, 0], batch[:, 1])
    assert (z[:, :, 1:] * z[:, :, :-1].conj()).angle().abs().max() < 1.0


def test_a_patch_is_cut_from_images_that_hold_it_and_a_whole_image_keeps_its_way_up():
    ramp = np.linspace(0.2, 1, 32)[:, None].repeat(32, 1)           # brighter downwards
    patches = ComplexPatches([ramp.astype(np.complex64)], [np.full((16, 16), 0.5, np.float32)], largest=32)
    whole = torch.linalg.vector_norm(patches.batch(30, 32, np.random.default_rng(0))[0], dim=1)
    assert (whole.diff(dim=1) > 0).all()
    parts = torch.linalg.vector_norm(patches.batch(60, 16, np.random.default_rng(0))[0], dim=1)
    flat = parts.flatten(1).std(1) < 1e-5
    assert 10 < flat.sum() < 50                                      # the small grey image is half of the small patches
    down, right = parts[~flat].diff(dim=1).mean((1, 2)), parts[~flat].diff(dim=2).mean((1, 2))
    for slope in (down > 1e-3, down < -1e-3, right > 1e-3, right < -1e-3):
        assert slope.any()


def test_patches_and_phases_follow_the_seed():
    patches = ComplexPatches([np.ones((40, 40), np.complex64)], [], largest=16)
    a, b, c = (patches.batch(3, 16, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    line = np.linspace(-1, 1, 20)
    whole = smooth_phase(line, line, np.random.default_rng(3))
    np.testing.assert_allclose(smooth_phase(line[4:9], line[2:8], np.random.default_rng(3)), whole[4:9, 2:8])


def test_a_prior_of_two_channels_is_trained_and_gets_its_card(tmp_path):
    write_complex(tmp_path / "x.h5", (4, 2, 128, 128), scale=1 / 425)
    write_complex(tmp_path / "x.h5", (2, 2, 128, 128), key="test")
    write_magnitudes(tmp_path / "m.h5")
    settings = TrainSettings(
        name="toy", precision="fp32", seed=1,
        data={"path": str(tmp_path / "x.h5"), "key": "train", "test": "test", "magnitudes": "m.h5", "patch": [16],
              "holdout": 1},
        network={"channels": 2, "widths": [4, 4], "depths": [1, 1], "embedding": 16},
        noise={"centre": 0.0}, optimiser={"steps": 2, "batch": 2, "warmup": 2})
    for change, said in (({"labels": "y"}, r"data\.labels: is for photographs"), ({"grey": 0.5}, r"data\.grey: is for patches"),
                         ({"magnitudes": "small.h5"}, r"data\.magnitudes: no image of .* is at least 16 pixels")):
        write_magnitudes(tmp_path / "small.h5", size=12)
        with pytest.raises(InputError, match=said):
            load_data(settings.model_copy(update={"data": settings.data.model_copy(update=change)}))
    prior = load_prior(str(train(settings, tmp_path / "run")))
    x = torch.randn(1, 2, 20, 24)
    assert prior(x, 0.1).shape == x.shape
    assert set(prior.card["denoising"]["psnr"]) == {"15", "25", "50"}
    assert prior.error_spectrum(2).power.shape[1] == 2
    assert "spectrum_grey" not in prior.card
