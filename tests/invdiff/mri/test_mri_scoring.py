"""Scores of a volume: whose head is a volume's, and no slice's own."""

import numpy as np
import pytest
import torch
from mri_scans import head

from invdiff.evaluation.mri_metrics import head_mask, score
from invdiff.mri.scoring import score_volume
from invdiff.mri.uncertainty import magnitudes


def volume(samples=4, seed=0):
    """Slices of a head between two of noise alone, restored with errors."""
    random = torch.Generator().manual_seed(seed)
    heads = torch.from_numpy(head())
    for scale in (0.0, 1.0, 0.9, 0.0):
        truth = (scale * heads + 0.02 * torch.randn(heads.shape, generator=random)).abs()
        drawn = torch.stack([truth, 0 * truth]) + 0.05 * torch.randn(samples, 2, *truth.shape, generator=random)
        yield {"samples": drawn, "zero_filled": truth + 0.1, "truth": truth}, {}


def test_slices_of_noise_hold_nothing_of_the_head():
    slices = list(volume())
    truth = np.stack([tensors["truth"].numpy() for tensors, _ in slices])
    means, deviations = (np.stack(found) for found in zip(*(magnitudes(t["samples"]) for t, _ in slices), strict=True))
    inside = head_mask(truth)
    assert not inside[[0, 3]].any()
    found = score_volume(slices, 1.0)
    assert found["restored"] == pytest.approx(score(means, truth))
    assert found["covered"] == (np.abs(truth - means) <= deviations)[inside].mean()


def test_a_volume_that_is_the_same_everywhere_has_no_head():
    flat = [({"samples": torch.ones(2, 2, 8, 8), "zero_filled": torch.ones(8, 8), "truth": torch.ones(8, 8)}, {})]
    assert set(score_volume(flat, 1.0)["restored"]) == {"psnr", "ssim", "nmse"}
    assert score_volume([({"samples": torch.ones(2, 2, 6, 6), "truth": torch.ones(6, 6)}, {})], 1.0) == {}
