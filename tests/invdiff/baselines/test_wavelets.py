"""The wavelets of the l1 baseline."""

import numpy as np
import pytest
import torch

from invdiff.baselines.wavelets import Wavelets


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("size", [(2, 2), (7, 16), (32, 48), (45, 33)])
def test_the_wavelets_are_orthogonal_and_kill_lines(size):
    x = torch.randn((2, 4, *size), dtype=torch.float64)
    wavelets = Wavelets(size, x)
    c = wavelets.forward(x)
    torch.testing.assert_close(wavelets.inverse(c), x)
    torch.testing.assert_close(c.norm(), x.norm())


def test_the_wavelets_are_those_of_pywavelets():
    pywt = pytest.importorskip("pywt")
    x = torch.randn((32, 32), dtype=torch.float64)
    theirs = pywt.wavedec2(x.numpy(), "db2", "periodization", level=2)
    ours = Wavelets((32, 32), x).forward(x).numpy()
    for block, expected in ((ours[:8, :8], theirs[0]), (ours[8:16, 8:16], theirs[1][2]), (ours[16:, 16:], theirs[2][2])):
        np.testing.assert_allclose(np.sort(np.abs(block).ravel()), np.sort(np.abs(expected).ravel()), atol=1e-10)
