"""Masks, maps and sizes that do not fit together: one sentence each."""

import pytest
import torch
from draws import randc, randn, random_mask

import operators

MASK, MAPS = random_mask(6, 7), randc(4, 6, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": MASK[:, 1:]}, r"mask: expected \(6, 7\).* got \(6, 6\)"),
        ({"mask": random_mask(2, 6, 7)}, r"mask: expected .* got \(2, 6, 7\)"),
        ({"mask": random_mask(1, 2, 6, 7)}, r"mask: expected .* got \(1, 2, 6, 7\)"),
        ({"mask": random_mask(2, 1, 6, 7), "coil_maps": randc(3, 4, 6, 7)}, r"mask: expected a batch of 1 or 3.* got \(2, 1"),
        ({"mask": 0.5 * MASK}, r"mask: expected bool, or only 0 and 1 \(1 = sampled\), got values such as 0\.5"),
        ({"mask": torch.where(MASK, torch.nan, 1.0)}, r"mask: expected bool, .* got values such as nan"),
        ({"mask": torch.zeros(6, 7)}, r"mask: expected at least one sampled place an image, got none in"),
        ({"mask": torch.stack([MASK, 0 * MASK])[:, None]}, r"mask: expected at least one sampled place an image"),
        ({"mask": torch.zeros(0, 1, 6, 7)}, r"mask: expected at least one sampled place"),
        ({"weights": torch.ones(7, 6)}, r"weights: expected \(6, 7\), as the mask, got \(7, 6\)"),
        ({"weights": torch.ones(6, 7) * 1j}, r"weights: expected numbers above 1e-12, got others"),
        ({"weights": MASK.double()}, r"weights: expected numbers above 1e-12, got others"),
        ({"coil_maps": MAPS.real}, r"coil_maps: expected complex64 or complex128, got torch\.float64"),
        ({"coil_maps": 0 * MAPS}, r"coil_maps: expected maps that are not all zero, got"),
        ({"coil_maps": torch.stack([MAPS, 0 * MAPS])}, r"coil_maps: expected maps that are not all zero, got an item"),
        ({"coil_maps": MAPS[:0]}, r"coil_maps: expected maps that are not all zero"),
        ({"coil_maps": MAPS / (MAPS.real > 0)}, r"coil_maps: expected finite values, got NaN or infinity in"),
        ({"coil_maps": MAPS[0]}, r"coil_maps: expected \(N, \*\).* got \(6, 7\)"),
        ({"coil_maps": MAPS[..., 1:]}, r"mask: expected \(6, 6\), .* got \(6, 7\)"),
        ({"coil_maps": MAPS[..., 1:], "img_size": (2, 6, 7)}, r"coil_maps: expected .* \(6, 7\), got \(4, 6, 6\)"),
        ({"img_size": (4, 6, 7)}, r"img_size: expected 2 channels, 2 for each of 1 sets of maps, got \(4, 6, 7\)"),
        ({"img_size": (2, 6)}, r"img_size: expected .* got \(2, 6\)"),
        ({"img_size": (2, 6, 7.5)}, r"img_size: expected .* got \(2, 6, 7\.5\)"),
        ({"spatial_dims": 4}, r"spatial_dims: expected 2 or 3, got 4"),
        ({"img_size": (2, 6, 7), "spatial_dims": 3}, r"spatial_dims: expected 2 for img_size \(2, 6, 7\), got 3"),
    ],
)
def test_bad_masks_maps_and_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        operators.MultiCoilMRI(**{"mask": MASK, "coil_maps": MAPS, **arguments})


def test_single_coil_refuses_bad_sizes_and_masks():
    for size, message in [((1, 6, 7), "img_size: expected 2 channels"), ((2, 6), "img_size: expected"), (6, "img_size: exp")]:
        with pytest.raises(ValueError, match=message):
            operators.MRI(size, MASK)
    with pytest.raises(ValueError, match=r"mask: expected \(6, 7\) or \(5, 6, 7\), .* got \(4, 6, 7\)"):
        operators.MRI((2, 5, 6, 7), random_mask(4, 6, 7), spatial_dims=2)
    with pytest.raises(ValueError, match=r"spatial_dims: expected 2 \(a series\) or 3 \(a volume\)"):
        operators.MRI((2, 5, 6, 7), MASK, spatial_dims=1)


def test_a_batch_of_another_size_is_refused():
    physics = operators.MultiCoilMRI(MASK, randc(3, 4, 6, 7))
    with pytest.raises(ValueError, match=r"x: expected a batch of 3, one for each of the maps, got \(2, 2, 6, 7\)"):
        physics.A(randn(2, 2, 6, 7))
    with pytest.raises(ValueError, match=r"y: expected a batch of 3, one for each of the maps, got \(1, 2, 4, 6, 7\)"):
        physics.A_adjoint(randn(1, 2, 4, 6, 7))
    with pytest.raises(ValueError, match=r"x: expected a batch of 2, one for each of the masks, got \(3, 2, 6, 7\)"):
        operators.MRI((2, 6, 7), random_mask(2, 1, 6, 7)).A(randn(3, 2, 6, 7))
    for physics in (operators.MultiCoilMRI(MASK, MAPS), operators.MRI((2, 6, 7), MASK)):
        with pytest.raises(ValueError, match=r"x: expected \(B, 2, 6, 7\), got \(2, 6, 7\)"):
            physics.A(randn(2, 6, 7))
