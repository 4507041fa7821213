"""Random arrays and masks for the tests of Cartesian MRI."""

import torch


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=rng(seed))


def randc(*shape, seed=0):
    return torch.randn(shape, dtype=torch.complex128, generator=rng(seed))


def random_mask(*shape, seed=0):
    mask = torch.rand(shape, generator=rng(seed)) < 0.6
    mask.flatten(-2)[..., 0] = True
    return mask


def assert_close(got, expected, tolerance=1e-12):
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()
