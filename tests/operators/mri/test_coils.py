"""Coil tools: covariances, whitening, birdcages and combination."""

import math

import pytest
import torch

from operators.mri import coils


def crandn(*shape, seed=0):
    """Complex noise with E|n|² = 2."""
    return 2**0.5 * torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def covariance(n, seed=0):
    factor = crandn(n, n, seed=seed)
    return factor @ factor.mH + 0.1 * torch.eye(n)


def test_noise_covariance_is_that_of_the_samples():
    psi, samples = covariance(4), 20_000
    noise = torch.linalg.cholesky(psi) @ crandn(4, samples) / 2**0.5
    got = coils.noise_covariance(noise.reshape(4, 100, 200))
    assert (got - psi).abs().max() <= 5 * psi.diagonal().real.max() / samples**0.5
    torch.testing.assert_close(got, got.mH)


def test_prewhitening_makes_noise_white_with_the_stated_sigma_per_real_channel():
    psi = covariance(5)
    for sigma in (1.0, 0.3):
        w = coils.prewhitening(psi, sigma)
        identity = torch.eye(5, dtype=psi.dtype)
        torch.testing.assert_close(w @ psi @ w.mH, 2 * sigma**2 * identity, rtol=1e-10, atol=1e-12)
    noise = (torch.linalg.cholesky(psi) @ crandn(5, 40_000) / 2**0.5)[None]
    white = torch.view_as_real(coils.prewhiten(noise, coils.noise_covariance(noise[0]), sigma=0.3))
    torch.testing.assert_close(white.square().mean().sqrt(), torch.tensor(0.3, dtype=torch.float64), rtol=1e-6, atol=0)
    assert (white.square().mean((0, 2)).sqrt() - 0.3).abs().max() < 5 * 0.3 / (2 * 40_000) ** 0.5


def test_maps_are_whitened_and_unwhitened_with_k_space():
    matrix, maps, x = coils.prewhitening(covariance(3)), crandn(2, 3, 4, 5), crandn(2, 1, 4, 5, seed=1)
    torch.testing.assert_close(coils.mix_coils(maps * x, matrix), coils.mix_coils(maps, matrix) * x)
    torch.testing.assert_close(coils.mix_coils(coils.mix_coils(maps, matrix), torch.linalg.inv(matrix)), maps)


def test_mix_coils_takes_a_matrix_for_each_item_or_position():
    x, matrix = crandn(2, 3, 4, 5), crandn(2, 2, 3, seed=1)
    torch.testing.assert_close(coils.mix_coils(x, matrix), torch.einsum("bmn,bnhw->bmhw", matrix, x))
    by_row = crandn(2, 4, 2, 3, seed=2)
    torch.testing.assert_close(coils.mix_coils(x, by_row, axis=2), torch.einsum("bhmn,bnhw->bmhw", by_row, x))
    by_column = crandn(5, 2, 3, seed=3)
    torch.testing.assert_close(coils.mix_coils(x, by_column, axis=-1), torch.einsum("wmn,bnhw->bmhw", by_column, x))


def test_border_samples_are_those_of_the_corners_that_were_measured():
    kspace = torch.zeros(2, 3, 20, 21, dtype=torch.complex64)
    kspace[:, :, ::2] = 1 + torch.arange(2 * 3 * 10 * 21).reshape(2, 3, 10, 21)
    row, column = (torch.arange(20) - 10).abs() > 8, (torch.arange(21) - 10).abs() > 8.4
    corner = kspace[:, :, row][..., column]
    corner = corner.transpose(0, 1).flatten(1)
    corner = corner[:, corner[0] != 0]
    got = coils.border_samples(kspace, border=0.2)
    assert got.shape == corner.shape
    assert set(got.flatten().real.tolist()) == set(corner.flatten().real.tolist())
    edges = coils.border_samples(kspace, border=0.2, dims=(-1,))
    assert edges.shape == (3, 2 * 10 * int(column.sum()))


def test_border_samples_have_the_covariance_of_the_noise():
    psi = covariance(4).to(torch.complex64)
    noise = (torch.linalg.cholesky(psi) @ crandn(4, 128 * 128).to(torch.complex64) / 2**0.5).reshape(1, 4, 128, 128)
    noise[..., 44:84, 44:84] += 100  # the signal
    samples = coils.border_samples(noise, border=0.5)
    got = coils.noise_covariance(samples)
    assert (got - psi).abs().max() <= 5 * psi.diagonal().real.max() / samples.shape[1] ** 0.5


@pytest.mark.parametrize("size", [(12, 16), (6, 8, 10)])
def test_birdcage_is_that_of_sigpy(size):
    sigpy_mri = pytest.importorskip("sigpy.mri", reason="SigPy is not installed")
    rings = 1 if len(size) == 2 else 2
    expected = sigpy_mri.birdcage_maps((8, *size), r=1.3, nzz=8 // rings)
    got = coils.birdcage_maps(size, coils=8, rings=rings, radius=1.3)
    assert got.dtype == torch.complex64
    torch.testing.assert_close(got[0], torch.from_numpy(expected).to(torch.complex64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(9, 7), (1, 6), (3, 5, 4)])
def test_birdcage_maps_have_unit_norm_or_the_magnitude_of_their_wires(size):
    maps = coils.birdcage_maps(size, coils=6)
    assert maps.shape == (1, 6, *size)
    torch.testing.assert_close(coils.rss(maps), torch.ones(1, *size))
    centre = tuple(n // 2 for n in size)
    wires = coils.birdcage_maps(size, coils=6, radius=2.0, normalize=False)
    torch.testing.assert_close(wires[(0, slice(None), *centre)].abs(), torch.full((6,), 0.5))


def test_combine_is_the_least_squares_image():
    maps, x = crandn(2, 3, 4, 5), crandn(2, 1, 4, 5, seed=1)
    maps[..., 0] = 0
    images = maps * x + crandn(2, 3, 4, 5, seed=2)
    got = coils.combine(images, maps)
    assert (got[..., 0] == 0).all()
    columns = maps.movedim(1, -1)[..., 1:, :, None]
    expected = torch.linalg.lstsq(columns, images.movedim(1, -1)[..., 1:, :, None]).solution
    torch.testing.assert_close(got[..., 1:], expected[..., 0, 0])


def test_sets_of_maps_combine_one_by_one():
    maps, images = crandn(2, 3, 4, 5, 6), crandn(2, 4, 5, 6, seed=1)
    got = coils.combine(images[:, None], maps, dim=2)
    torch.testing.assert_close(got[:, 1], coils.combine(images, maps[:, 1]))
    torch.testing.assert_close(coils.rss(images), images.abs().square().sum(1).sqrt())


SINGULAR = covariance(3)
SINGULAR[2] = SINGULAR[1]
SINGULAR[:, 2] = SINGULAR[:, 1]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: coils.noise_covariance(crandn(4, 3)), "at least 4 samples.*got 3"),
    (lambda: coils.noise_covariance(torch.ones(4, 30)), "expected a complex tensor.*float32"),
    (lambda: coils.noise_covariance(crandn(4, 30) * math.nan), "noise: expected finite"),
    (lambda: coils.prewhitening(SINGULAR), "positive definite.*eigenvalues from"),
    (lambda: coils.prewhitening(torch.diag(torch.tensor([1, 0, 2 + 0j]))), "positive definite"),
    (lambda: coils.prewhitening(crandn(3, 3)), "covariance: expected a Hermitian"),
    (lambda: coils.prewhitening(crandn(3, 4)), r"covariance: expected a square matrix.*\(3, 4\)"),
    (lambda: coils.prewhitening(covariance(3), sigma=0), "sigma: expected a number in .0, inf.*got 0"),
    (lambda: coils.prewhiten(crandn(1, 4, 5, 5), covariance(3)), r"matrix: expected \(\.\.\., M, 4\).*\(3, 3\)"),
    (lambda: coils.mix_coils(crandn(2, 3, 5, 5), crandn(3, 2, 3)), "matrix: expected"),
    (lambda: coils.mix_coils(crandn(2, 3, 5, 5), crandn(4, 2, 3), axis=2), r"\(\.\.\., 5, M, 3\)"),
    (lambda: coils.mix_coils(crandn(2, 3, 5, 5), crandn(5, 2, 3), axis=1), "axis: expected a spatial dimension.*got 1"),
    (lambda: coils.border_samples(crandn(1, 3, 8, 8), border=0), "border: expected a number in"),
    (lambda: coils.border_samples(torch.zeros(1, 3, 8, 8) + 0j), "at least 3 sampled places.*got 0"),
    (lambda: coils.birdcage_maps((8,)), r"img_size: expected \(H, W\)"),
    (lambda: coils.birdcage_maps((8, 8), coils=0), "coils: expected an integer >= 1"),
    (lambda: coils.birdcage_maps((8, 8), coils=8, rings=2), "rings: expected a divisor"),
    (lambda: coils.birdcage_maps((4, 8, 8), coils=8, rings=3), "rings: expected a divisor of the 8 coils"),
    (lambda: coils.birdcage_maps((8, 8), radius=math.inf), "radius: expected"),
    (lambda: coils.combine(crandn(1, 3, 4, 4), crandn(1, 2, 4, 4)), "maps: expected a shape that fits"),
    (lambda: coils.combine(crandn(1, 3, 4, 4), 0 * crandn(1, 3, 4, 4)), "maps: expected coil sensitivities, got zeros"),
])
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
