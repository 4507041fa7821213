import numpy as np
import pytest
import torch

from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.unet import UNet
from invdiff.training.averages import Averages, relative_width


def test_each_average_is_weighted_by_a_power_of_the_step():
    """Against the sum itself: for gamma = 0 and 1 the weights of Karras et al. 2024, Eq. 1, are exact; else they tend to it."""
    network = EDMDenoiser(UNet(3, (4, 4), (1, 1), 16))
    averages = Averages(network, (0.0, 1.0, 6.0))
    values = torch.rand(400, generator=torch.Generator().manual_seed(0)).tolist()
    for step, value in enumerate(values, 1):
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, value)
        averages.update(list(network.parameters()), step)
    steps = np.arange(1, len(values) + 1)
    for gamma, average in zip((0.0, 1.0, 6.0), averages.copies, strict=True):
        got = {round(float(p.flatten()[0]), 6) for p in average.parameters()}
        assert len(got) == 1
        assert got.pop() == pytest.approx(np.average(values, weights=steps**gamma), abs=1e-6 if gamma == 0 else 2e-3)
        assert not average.training


@pytest.mark.parametrize("gamma", [0.0, 6.94, 16.97])
def test_the_relative_width_is_the_profile_s_standard_deviation(gamma):
    """EDM2's two lengths, gamma 16.97 and 6.94, are 0.05 and 0.10 wide."""
    t = (np.arange(200_000) + 0.5) / 200_000
    weight = t**gamma / (t**gamma).sum()
    assert relative_width(gamma) == pytest.approx(((weight * t**2).sum() - (weight * t).sum() ** 2) ** 0.5, rel=1e-4)
    if gamma:
        assert relative_width(gamma) == pytest.approx({6.94: 0.10, 16.97: 0.05}[gamma], rel=5e-3)
