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


@pytest.mark.parametrize("keep", [0.2, 0.5, 1.0])
def test_row_masks_keep_whole_rows_and_follow_their_seed(keep):
    drawn = [operators.row_mask((3, 40, 7), keep, seed) for seed in (0, 1, 0)]
    for mask in drawn:
        assert mask.shape == (1, 40, 7)
        assert mask.dtype == torch.bool
        assert torch.equal(mask.all(-1), mask.any(-1))
        assert mask.all(-1).sum() == round(keep * 40)
    assert torch.equal(drawn[0], drawn[2])
    assert keep == 1 or not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ("left", (slice(None), slice(0, 3))),  # of 7 columns, 3 are missing
        ("right", (slice(None), slice(4, 7))),
        ("top", (slice(0, 2), slice(None))),
        ("bottom", (slice(3, 5), slice(None))),
    ],
)
def test_half_masks(missing, gone):
    expected = np.ones((5, 7), bool)
    expected[gone] = False
    mask = operators.half_mask((3, 5, 7), missing)
    np.testing.assert_array_equal(mask.numpy(), expected[None])
    mask[:] = False  # it has memory of its own for each pixel
    assert operators.half_mask((3, 5, 7), missing).any()


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (3, 5, 7)])
def test_a_drawing_gives_the_same_mask_in_every_form(shape):
    expected = np.random.default_rng(0).random((1, 5, 7)) < 0.5
    drawn = np.broadcast_to(expected if len(shape) == 3 else expected[0], shape)
    grey = np.where(drawn, 0.7, 0.3)
    for given in (drawn, drawn.astype(np.uint8) * 255, grey, (grey * 255).astype(np.uint8), torch.tensor(grey).half()):
        mask = operators.image_mask(given)
        assert mask.dtype == torch.bool
        np.testing.assert_array_equal(mask.numpy(), expected)
        operators.Inpainting((3, 5, 7), mask)


def test_what_is_transparent_in_a_drawing_is_missing():
    drawing = torch.ones(4, 5, 7)
    drawing[3, :, 2] = 0.2
    expected = torch.ones(1, 5, 7, dtype=torch.bool)
    expected[..., 2] = False
    assert torch.equal(operators.image_mask(drawing), expected)


def test_colours_of_a_drawing_count_by_their_mean():
    drawing = torch.zeros(3, 2, 2)
    drawing[:, 0, 0] = torch.tensor([1.0, 1.0, 0.0])
    drawing[:, 1, 1] = torch.tensor([1.0, 0.0, 0.0])
    assert operators.image_mask(drawing).tolist() == [[[True, False], [False, False]]]


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
        (lambda: operators.row_mask(SIZE, keep=0.01), "keep: expected at least one measured row of 6, got keep = 0.01"),
        (lambda: operators.row_mask(SIZE, keep=0), r"keep: expected a number in \(0, 1\], got 0"),
        (lambda: operators.row_mask(SIZE, seed=-1), "seed: expected an integer >= 0, got -1"),
        (lambda: operators.half_mask(SIZE, "middle"), "missing: expected 'left', .* got 'middle'"),
        (lambda: operators.half_mask((1, 1, 6), "top"), r"img_size: expected at least 2 .* got \(H, W\) = \(1, 6\)"),
        (lambda: operators.image_mask(np.ones(5)), r"image: expected \(H, W\) .* got \(5,\)"),
        (lambda: operators.image_mask(np.ones((2, 5, 5))), r"image: .* got \(2, 5, 5\)"),
        (lambda: operators.image_mask(np.ones((1, 3, 5, 5))), r"image: .* got \(1, 3, 5, 5\)"),
        (lambda: operators.image_mask(np.ones((0, 5))), r"image: .* got \(0, 5\)"),
        (lambda: operators.image_mask(np.ones((5, 5), int)), "image: expected bool, uint8, .* got torch.int64"),
        (lambda: operators.image_mask(np.full((5, 5), 255.0)), r"image: .* in \[0, 1\], got values in \[255, 255\]"),
        (lambda: operators.image_mask(np.full((5, 5), np.nan)), r"image: .* got values in \[nan, nan\]"),
        (lambda: operators.image_mask(np.zeros((5, 7))), r"image: expected white .* none in \(H, W\) = \(5, 7\)"),
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
