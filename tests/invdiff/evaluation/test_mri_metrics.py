"""fastMRI's measures and the mask of the head."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from invdiff.evaluation.mri_metrics import VolumeScores, head_mask, score
from operators.mri import phantom

SCANS = Path(__file__).parents[4] / "shared" / "data" / "kspace"


@pytest.fixture(scope="module")
def head():
    return torch.hypot(*phantom.image((96, 80), supersample=4)[0]).numpy()


@pytest.fixture(scope="module")
def volume(head):
    """Truth (3, 96, 80) on a scanner's scale, its slices of unequal brightness, and a noisy estimate."""
    truth = 2e-4 * head * np.array([0.5, 1, 0.8], np.float32)[:, None, None]
    return truth + 1e-5 * np.random.default_rng(0).normal(size=truth.shape).astype(np.float32), truth


def test_the_figures_are_scikit_images_with_the_volumes_peak(volume):
    x, truth = volume
    got = score(x, truth)
    assert got["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, x, data_range=truth.max()), rel=1e-5)
    assert got["nmse"] == pytest.approx(normalized_root_mse(truth, x) ** 2, rel=1e-4)
    ssim = [structural_similarity(t, a, data_range=truth.max()) for a, t in zip(x, truth, strict=True)]
    assert got["ssim"] == pytest.approx(np.mean(ssim), rel=1e-4)


def test_the_heads_figures_are_over_the_masks_pixels(volume):
    x, truth = volume
    mask = head_mask(truth)
    got = score(x, truth, mask)
    assert got == score(torch.from_numpy(x), torch.from_numpy(truth))    # the mask is head_mask's unless given
    error, inside = (x - truth)[mask].astype(float), truth[mask].astype(float)
    assert got["psnr_head"] == pytest.approx(10 * math.log10(truth.max() ** 2 / (error**2).mean()), rel=1e-6)
    assert got["nmse_head"] == pytest.approx((error**2).sum() / (inside**2).sum(), rel=1e-6)
    maps = np.stack([structural_similarity(t, a, data_range=truth.max(), full=True)[1] for a, t in zip(x, truth, strict=True)])
    assert got["ssim_head"] == pytest.approx(maps[mask].mean(), rel=1e-4)


def test_air_counts_for_the_whole_and_not_for_the_head(volume):
    _, truth = volume
    mask = head_mask(truth)
    x = truth + 1e-5 * ~mask
    got = score(x, truth)
    assert got["psnr_head"] == math.inf
    assert got["nmse_head"] == 0 < got["nmse"]
    assert got["ssim"] < got["ssim_head"]
    only = score(truth + 1e-5 * mask, truth)
    assert only["psnr_head"] == pytest.approx(20 * math.log10(truth.max() / 1e-5), abs=1e-3)
    assert only["psnr"] - only["psnr_head"] == pytest.approx(-10 * math.log10(mask.mean()), abs=1e-3)


def test_figures_known_by_hand():
    truth = np.zeros((2, 8, 8))
    truth[0] = 2.0
    mask = truth > 0
    got = score(truth + 0.2, truth, mask)
    assert [got["psnr"], got["psnr_head"]] == pytest.approx([20, 20])
    assert got["nmse"] == pytest.approx(0.04 * 128 / (4 * 64))
    assert got["nmse_head"] == pytest.approx(0.01)
    c1 = (0.01 * 2) ** 2    # of flat slices only the means differ
    bright = (2 * 2 * 2.2 + c1) / (2**2 + 2.2**2 + c1)
    assert got["ssim_head"] == pytest.approx(bright)
    assert got["ssim"] == pytest.approx((bright + c1 / (0.2**2 + c1)) / 2)
    perfect = score(truth, truth, mask)
    assert perfect == {"psnr": math.inf, "ssim": 1, "nmse": 0, "psnr_head": math.inf, "ssim_head": 1, "nmse_head": 0}


def test_slice_by_slice_is_the_whole_and_the_scale_does_not_matter(volume):
    x, truth = volume
    want = score(x, truth)
    scores = VolumeScores(truth.max())
    for slices in zip(x, truth, head_mask(truth), strict=True):
        scores.add(*slices)
    assert scores.result() == want
    whole = VolumeScores(truth.max())
    for a, t in zip(x, truth, strict=True):
        whole.add(a, t)
    assert whole.result() == {name: want[name] for name in ("psnr", "ssim", "nmse")}
    assert score(1e4 * x, 1e4 * truth) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.06])
@pytest.mark.parametrize("size", [(256, 256), (97, 128)])
def test_the_mask_is_the_head_with_all_that_is_dark_in_it(noise, size):
    truth = torch.hypot(*phantom.image(size, supersample=4)[0]).numpy()
    n = noise * np.random.default_rng(0).normal(size=(2, *size))
    mask = head_mask(np.hypot(truth + n[0], n[1])[None])[0]
    y, x = np.ogrid[: size[0], : size[1]]
    y, x = (y - size[0] // 2) / (size[0] / 2), (x - size[1] // 2) / (size[1] / 2)
    assert mask[(y / 0.91) ** 2 + (x / 0.73) ** 2 <= 1].all()
    assert not mask[(y / 1.02) ** 2 + (x / 0.84) ** 2 > 1].any()


def test_tissue_far_from_the_coils_is_in_the_mask(head):
    shading = np.linspace(0.2, 1, 96)[:, None]
    assert (head_mask((head * shading)[None]) == head_mask(head[None])).mean() > 0.98


def test_a_bright_artefact_apart_from_the_head_is_left_out(head):
    truth = np.stack([head] * 2)
    truth[:, :6, :6] = 2
    mask = head_mask(truth)
    assert not mask[:, :10, :10].any()
    assert mask[:, 48, 40].all()


@pytest.mark.parametrize("name", ["brain_gre_16ch_96", "brain_smallfov_8ch", "brain_t1_4ch", "brain_t1_8ch",
                                  "brain_undersampled_8ch"])
def test_the_mask_of_a_real_scan(name):
    path = SCANS / f"{name}.h5"
    if not path.is_file():
        pytest.skip("the shared scans are not here")
    with h5py.File(path) as file:
        image = file["reconstruction_rss"][()]
    mask = head_mask(image)
    assert mask.shape == image.shape
    assert 0.5 < mask.mean() < 0.9
    height, width = image.shape[1:]
    middle = mask[:, height // 4 : -height // 4, width // 4 : -width // 4]
    assert middle.all()
    assert mask.sum() / (mask.any(1).sum() * mask.any(2).sum()) < 0.9    # round: the corners of its frame are out
    assert (image[mask] ** 2).sum() > 0.98 * (image**2).sum()


@pytest.mark.parametrize(("arguments", "message"), [
    ((np.ones((8, 8)), np.ones((8, 8))), "x: expected a volume"),
    ((np.ones((1, 8, 9)), np.ones((1, 8, 8))), "x: expected a volume"),
    ((np.ones((1, 6, 8)), np.ones((1, 6, 8)), np.ones((1, 6, 8))), "x: expected a slice"),
    ((np.full((1, 8, 8), np.nan), np.ones((1, 8, 8)), np.ones((1, 8, 8))), "x, truth: expected finite"),
    ((np.ones((1, 8, 8)), np.zeros((1, 8, 8)), np.ones((1, 8, 8))), "peak: expected"),
    ((np.ones((1, 8, 8)), np.ones((1, 8, 8)), np.zeros((1, 8, 8))), "truth: expected a signal in the mask"),
    ((np.ones((1, 8, 8)), np.ones((1, 8, 8)), np.ones((8, 8))), "mask: expected"),
    ((np.ones((1, 8, 8)), np.ones((1, 8, 8))), "truth: expected finite magnitudes that are not the same"),
])
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        score(*arguments)


def test_no_slice_has_no_score():
    with pytest.raises(ValueError, match="at least one slice"):
        VolumeScores(1.0).result()
