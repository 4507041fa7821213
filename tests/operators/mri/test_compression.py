"""Coil compression: what is kept is the most that can be, and it stays a picture taken with coils."""

from pathlib import Path

import pytest
import torch

from operators.mri import _fourier, compression
from operators.mri.coils import birdcage_maps, mix_coils, rss

BRAIN = Path(__file__).parents[3] / "../shared/data/kspace/brain_t1_8ch.h5"


def crandn(*shape, seed=0):
    """Complex noise with E|n|² = 2."""
    return 2**0.5 * torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def scan(height=24, width=32, coils=8, seed=0):
    """K-space (2, N, H, W) of two textured objects under birdcage coils, and its maps and images."""
    maps = birdcage_maps((height, width), coils).to(torch.complex128)
    x = crandn(2, 1, height, width, seed=seed)
    return _fourier.fft(maps * x, (-2, -1)), maps, x


@pytest.fixture(scope="module")
def brain():
    h5py = pytest.importorskip("h5py")
    if not BRAIN.exists():
        pytest.skip("the shared k-space data are not there")
    with h5py.File(BRAIN) as file:
        return torch.from_numpy(file["kspace"][()])


METHODS = [compression.compress_svd, compression.compress_geometric]


@pytest.mark.parametrize("compress", METHODS)
def test_as_many_coils_as_there_are_is_a_rotation(compress):
    kspace = crandn(2, 4, 7, 6)
    got = compress(kspace, 4)
    torch.testing.assert_close(rss(_fourier.ifft(got.kspace, (-2, -1))), rss(_fourier.ifft(kspace, (-2, -1))))
    torch.testing.assert_close(got.energy, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("coils", [1, 3])
@pytest.mark.parametrize("compress", METHODS)
def test_virtual_coils_are_orthonormal_and_energy_is_what_is_left(compress, coils):
    kspace = crandn(2, 5, 7, 6)
    got = compress(kspace, coils)
    assert got.kspace.shape == (2, coils, 7, 6)
    identity = torch.eye(coils, dtype=torch.complex128)  # so white noise stays white
    torch.testing.assert_close(got.matrix @ got.matrix.mH, identity.expand(*got.matrix.shape[:-2], -1, -1))
    kept = got.kspace.abs().square().sum((1, 2, 3)) / kspace.abs().square().sum((1, 2, 3))
    torch.testing.assert_close(got.energy, kept)


@pytest.mark.parametrize("compress", METHODS)
def test_all_that_is_returned_can_become_numpy(compress):
    assert [part.numpy().shape[0] for part in compress(crandn(2, 4, 6, 6), 3)] == [2, 2, 2]


def test_svd_keeps_the_largest_singular_values():
    kspace = crandn(2, 5, 7, 6) * torch.linspace(0.2, 1, 5)[:, None, None]
    got = compression.compress_svd(kspace, 2)
    s = torch.linalg.svdvals(kspace.flatten(2)).square()
    torch.testing.assert_close(got.energy, s[:, :2].sum(1) / s.sum(1))
    torch.testing.assert_close(mix_coils(kspace, got.matrix), got.kspace)


@pytest.mark.parametrize("axis", [2, -1])
def test_geometric_keeps_the_largest_singular_values_of_each_position(axis):
    kspace = crandn(1, 5, 7, 6)
    got = compression.compress_geometric(kspace, 2, axis)
    hybrid = _fourier.ifft(kspace, (axis,)).movedim(axis, 1)[0]
    s = torch.linalg.svdvals(hybrid).square()
    torch.testing.assert_close(got.energy[0], s[:, :2].sum() / s.sum())
    assert (got.energy >= compression.compress_svd(kspace, 2).energy).all()


@pytest.mark.parametrize("axis", [2, 3])
def test_maps_are_compressed_with_k_space(axis):
    kspace, maps, x = scan()
    got = compression.compress_geometric(kspace, 3, axis)
    virtual = mix_coils(maps.expand(2, -1, -1, -1), got.matrix, axis)
    torch.testing.assert_close(_fourier.ifft(got.kspace, (-2, -1)), virtual * x)


def test_each_position_is_as_close_to_its_neighbour_as_a_rotation_makes_it():
    kspace, _, _ = scan()
    matrix = compression.compress_geometric(kspace, 3).matrix[0]
    overlap = matrix[:-1] @ matrix[1:].mH  # the trace is largest where this is Hermitian and positive: Procrustes
    torch.testing.assert_close(overlap, overlap.mH, rtol=0, atol=1e-10)
    assert torch.linalg.eigvalsh(overlap).min() > 0


def test_alignment_makes_virtual_coils_smooth():
    kspace, _, _ = scan(width=128)
    matrix = compression.compress_geometric(kspace, 3).matrix[0]
    hybrid = _fourier.ifft(kspace, (-1,)).movedim(-1, 1)[0]
    unaligned = torch.linalg.svd(hybrid, full_matrices=False)[0][..., :3].mH
    step = (matrix[1:] - matrix[:-1]).abs().square().sum((1, 2)).sqrt()
    raw = (unaligned[1:] - unaligned[:-1]).abs().square().sum((1, 2)).sqrt()
    assert step.median() < 0.3 * raw.median()


def test_the_centre_alone_can_decide():
    kspace, _, _ = scan()
    outside = kspace.clone()
    outside[..., :4, :] = 100
    for compress in METHODS:
        got, expected = compress(outside, 3, calib=8), compress(kspace, 3, calib=8)
        torch.testing.assert_close(got.matrix, expected.matrix)


def test_volumes_are_compressed_too():
    kspace = crandn(2, 5, 4, 6, 3)
    assert compression.compress_svd(kspace, 2, calib=4).kspace.shape == (2, 2, 4, 6, 3)
    got = compression.compress_geometric(kspace, 2, axis=3)
    assert got.kspace.shape == (2, 2, 4, 6, 3)
    assert got.matrix.shape == (2, 6, 2, 5)


def test_geometric_compression_keeps_more_of_a_brain(brain):
    for axis in (2, 3):
        software, geometric = compression.compress_svd(brain, 4), compression.compress_geometric(brain, 4, axis)
        assert geometric.energy > software.energy > 0.95
        assert geometric.energy > 0.99


@pytest.mark.parametrize(("call", "message"), [
    (lambda: compression.compress_svd(crandn(1, 3, 5, 5), 4), "coils: expected at most 3.*got 4"),
    (lambda: compression.compress_svd(crandn(1, 3, 5, 5), 0), "coils: expected an integer >= 1, got 0"),
    (lambda: compression.compress_svd(crandn(1, 3, 5, 5), 2, calib=0), "calib: expected an integer >= 1"),
    (lambda: compression.compress_svd(0 * crandn(1, 3, 5, 5), 2), "kspace: expected signal.*item 0"),
    (lambda: compression.compress_geometric(torch.ones(1, 3, 5, 5), 2), "kspace: expected a complex tensor"),
    (lambda: compression.compress_geometric(crandn(1, 3, 5, 5), 2, axis=1), "axis: expected a spatial dimension"),
    (lambda: compression.compress_geometric(crandn(1, 3, 5, 5) / 0, 2), "kspace: expected finite"),
])
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
