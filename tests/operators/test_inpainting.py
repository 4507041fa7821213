import numpy as np
import pytest
import torch

import operators

SIZE = (3, 6, 8)


@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (3, 6, 8), (1, 1, 6, 8), (2, 1, 6, 8), (2, 3, 6, 8)])
def test_masks_of_every_shape_keep_the_measured_pixels(shape):
    mask = np.random.default_rng(0).random(shape) < 0.5
    x = torch.rand(2, *SIZE)
    expected = x.numpy() * np.broadcast_to(mask, x.shape)
    for given in (mask, torch.from_numpy(mask), mask.astype(np.uint8), mask.astype(float)):
        physics = operators.Inpainting(SIZE, given)
        np.testing.assert_array_equal(physics(x).numpy(), expected)
        assert physics.singular_values.ndim == 4


def test_each_image_of_a_batch_has_its_own_mask():
    masks = torch.stack([operators.random_mask(SIZE, seed=s) for s in (0, 1)])
    physics = operators.Inpainting(SIZE, masks)
    x = torch.rand(2, *SIZE)
    for i in range(2):
        torch.testing.assert_close(physics(x)[i : i + 1], operators.Inpainting(SIZE, masks[i])(x[i : i + 1]))
    with pytest.raises(ValueError, match=r"x: expected 2 images, one a mask, got \(3, 3, 6, 8\)"):
        physics(torch.rand(3, *SIZE))


def test_the_operator_keeps_its_own_copy_of_the_mask():
    mask = torch.ones(6, 8)
    physics = operators.Inpainting(SIZE, mask)
    mask.zero_()
    assert physics.mask.all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(8, 6), r"mask: expected \(H, W\) = \(6, 8\), got \(8, 6\)"),
        (torch.ones(8), r"mask: expected \(H, W\) = \(6, 8\), got \(8,\)"),
        (torch.ones(2, 6, 8), r"mask: .* \(1 or 3, H, W\) .* got \(2, 6, 8\)"),
        (torch.ones(1, 1, 1, 6, 8), r"got \(1, 1, 1, 6, 8\)"),
        (torch.full((6, 8), 255), "mask: expected bool, or only 0 and 1 .* such as 255"),
        (torch.full((6, 8), float("nan")), "such as nan"),
        (torch.zeros(6, 8), "mask: expected at least one measured pixel an image"),
        (torch.stack([torch.ones(1, 6, 8), torch.zeros(1, 6, 8)]), "mask: expected at least one measured pixel"),
        (torch.ones(0, 1, 6, 8), "mask: expected at least one measured pixel"),
    ],
)
def test_bad_masks_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        operators.Inpainting(SIZE, mask)


@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_random_masks_keep_that_many_pixels_and_follow_their_seed(keep):
    drawn = [operators.random_mask((3, 20, 31), keep, seed) for seed in (0, 1, 0)]
    for mask in drawn:
        assert mask.shape == (1, 20, 31)
        assert mask.dtype == torch.bool
        assert mask.sum() == round(keep * 20 * 31)
    assert torch.equal(drawn[0], drawn[2])
    assert keep == 1 or not torch.equal(drawn[0], drawn[1])


def test_every_pixel_is_kept_equally_often():
    kept = sum(operators.random_mask((1, 4, 5), 0.3, seed).double() for seed in range(2000)) / 2000
    assert (kept - 0.3).abs().max() < 5 * (0.3 * 0.7 / 2000) ** 0.5


def test_box_masks():
    expected = np.ones((1, 6, 8), bool)
    expected[:, 1:4, 2:6] = False  # centred, half as high and wide, the odd pixel below
    np.testing.assert_array_equal(operators.box_mask(SIZE).numpy(), expected)
    expected = np.ones((1, 6, 8), bool)
    expected[:, 0:2, 5:8] = False
    np.testing.assert_array_equal(operators.box_mask(SIZE, top=0, left=5, height=2, width=3).numpy(), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: operators.random_mask(SIZE, keep=0), r"keep: expected a number in \(0, 1\], got 0"),
        (lambda: operators.random_mask(SIZE, keep=1.5), "keep: .* got 1.5"),
        (lambda: operators.random_mask(SIZE, keep=float("nan")), "keep: .* got nan"),
        (lambda: operators.random_mask(SIZE, keep=1e-3), "keep: expected at least one measured pixel"),
        (lambda: operators.random_mask(SIZE, seed=-1), "seed: expected an integer >= 0, got -1"),
        (lambda: operators.random_mask(SIZE, seed=0.5), "seed: expected an integer >= 0, got 0.5"),
        (lambda: operators.random_mask(SIZE, seed=None), "seed: expected an integer >= 0, got None"),
        (lambda: operators.box_mask(SIZE, top=4), "box: expected to lie within .* got rows 4 to 7"),
        (lambda: operators.box_mask(SIZE, left=-1), "left: expected an integer >= 0, got -1"),
        (lambda: operators.box_mask(SIZE, width=9), "box: expected to lie within"),
        (lambda: operators.box_mask(SIZE, height=0), "height: expected an integer >= 1, got 0"),
        (lambda: operators.box_mask(SIZE, height=6, width=8), "box: expected to leave a pixel"),
    ],
)
def test_bad_mask_parameters_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
