"""ESPIRiT: the maps are eigenvectors of the averaged projection."""

import math

import pytest
import torch
from coil_scans import crandn, ellipse, energy_kept, overlap, scan

import operators
from operators.mri import _fourier, coils, sensitivities

# --- the method

def test_eigenvalues_and_vectors_are_those_of_the_averaged_projection():
    """Against the definition (Uecker et al. 2014, Eq. 13-17), as a dense matrix on all of a small k-space."""
    count, kernel, (height, width) = 3, 2, (5, 6)
    vectors = torch.linalg.qr(crandn(count * kernel**2, 4))[0]
    projection = vectors.conj() @ vectors.T  # of a block of k-space as a column
    place = torch.arange(count * height * width).reshape(count, height, width)
    average = torch.zeros(place.numel(), place.numel(), dtype=torch.complex128)
    for y in range(height):
        for x in range(width):
            block = place.roll((-y, -x), (1, 2))[:, :kernel, :kernel].flatten()
            average[block[:, None], block] += projection / kernel**2
    delta = torch.eye(place.numel(), dtype=torch.complex128).reshape(-1, count, height, width)
    images = _fourier.ifft((average @ _fourier.fft(delta, (-2, -1)).flatten(1).T).T.reshape(delta.shape), (-2, -1))
    images = images.reshape(count, height, width, count, height, width)  # what (coil, pixel) becomes of a point
    expected = torch.einsum("cyxdyx->yxdc", images)
    torch.testing.assert_close(images.abs().square().sum(), expected.abs().square().sum())  # no pixel sees another

    filters = sensitivities._filters(vectors, count, kernel, 2)
    maps, values = sensitivities._eigenmaps(filters, torch.Size((height, width)), count)
    got = torch.einsum("myx,mcyx,mdyx->yxcd", values.to(maps.dtype), maps, maps.conj())
    torch.testing.assert_close(got, expected.to(got.dtype), rtol=0, atol=2e-5)
    assert (values[:-1] >= values[1:] - 1e-6).all()


def test_leading_eigenvectors_are_those_of_a_full_decomposition():
    values = torch.tensor([1.0, 0.9, 0.5, 0.1, 0.0])
    basis = torch.linalg.qr(crandn(200, 5, 5))[0].to(torch.complex64)
    g = (basis * values) @ basis.mH
    vectors, got = sensitivities._leading_eigenvectors(g, 3)
    torch.testing.assert_close(got, values[:3, None].expand(3, 200), rtol=0, atol=1e-5)
    cosine = (basis.permute(2, 0, 1)[:3].conj() * vectors).sum(-1).abs()
    torch.testing.assert_close(cosine, torch.ones(3, 200), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1, 20])
def test_the_noise_floor_ends_where_the_signal_does(rank):
    rows, columns, variance = 361, 144, 0.04
    signal = crandn(rows, rank) @ crandn(rank, columns, seed=1)
    matrix = signal + (variance / 2) ** 0.5 * crandn(rows, columns, seed=2)
    got, noise = sensitivities._noise_floor(torch.linalg.svdvals(matrix).square(), rows)
    assert got == rank
    assert abs(noise / variance - 1) < 5 / (rows * columns) ** 0.5 + 1e-3


def test_noise_in_overlapping_blocks_is_still_below_the_floor():
    for count in (4, 8, 16):
        blocks = sensitivities._blocks(crandn(count, 24, 24, seed=count), 6)
        rank, noise = sensitivities._noise_floor(torch.linalg.svdvals(blocks).square(), max(blocks.shape))
        assert rank == 0
        assert abs(noise / 2 - 1) < 0.1


# --- the maps

@pytest.mark.parametrize("size", [(60, 48), (49, 63), (33, 64)])
def test_maps_of_simulated_coils_are_found(size):
    kspace, truth, inside = scan(*size)
    maps = operators.mri.espirit(kspace)
    assert maps.shape == (1, 6, *size)
    assert maps.dtype == torch.complex64
    assert overlap(maps[0], truth)[inside].min() > 0.995
    norm = coils.rss(maps)[0]
    torch.testing.assert_close(norm[inside], torch.ones(int(inside.sum())))
    assert ((norm == 0) | ((norm - 1).abs() < 1e-4)).all()
    assert (norm == 0).any()


def test_coil_images_lie_in_the_span_of_the_maps():
    kspace, _, inside = scan()
    assert energy_kept(operators.mri.espirit(kspace), _fourier.ifft(kspace, (-2, -1))[0], inside) > 0.999


def test_the_centre_of_k_space_is_all_that_is_read():
    kspace, _, _ = scan()
    centre = torch.zeros_like(kspace)
    centre[..., 18:42, 12:36] = kspace[..., 18:42, 12:36]
    torch.testing.assert_close(operators.mri.espirit(centre), operators.mri.espirit(kspace), rtol=0, atol=0)


def test_an_item_does_not_depend_on_its_neighbours_and_scale_does_not_matter():
    one, two = scan(seed=0)[0], scan(seed=1, radius=0.5)[0]
    both = sensitivities.calibrate(torch.cat([one, two]), sets=2)
    for i, alone in enumerate((one, two)):
        for got, expected in zip(both, sensitivities.calibrate(alone, sets=2), strict=True):
            torch.testing.assert_close(got[i], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(operators.mri.espirit(1e-4 * one), operators.mri.espirit(one), rtol=0, atol=1e-4)


def test_maps_follow_a_rotation_of_the_coils():
    kspace, _, inside = scan()
    rotation = torch.linalg.qr(crandn(6, 6))[0].to(torch.complex64)
    got = operators.mri.espirit(coils.mix_coils(kspace, rotation))
    expected = coils.mix_coils(operators.mri.espirit(kspace), rotation)
    assert overlap(got[0], expected[0])[inside].min() > 1 - 1e-4


def test_the_phase_is_that_of_the_first_virtual_coil():
    kspace = scan()[0]
    samples = kspace[0, :, 18:42, 12:36].flatten(1)
    component = torch.linalg.eigh(samples @ samples.mH).eigenvectors[:, -1]
    maps = operators.mri.espirit(kspace)[0]
    seen = torch.tensordot(component.conj(), maps, 1)
    assert seen.abs().max() > 0.5
    assert (seen * seen.sum().conj().sgn() - seen.abs()).abs().max() < 1e-4


def test_the_crop_is_where_the_eigenvalue_falls_below_it():
    kspace, _, inside = scan()
    for crop in (None, 0.0, 0.5, 0.9):
        got = sensitivities.calibrate(kspace, sets=2, crop=crop)
        kept = got.maps.abs().sum(2) > 0
        assert (kept == (got.eigenvalues >= got.crop)).all()
        assert crop is None or got.crop == pytest.approx(crop)
        assert got.eigenvalues.amin() >= 0
        assert got.eigenvalues.amax() <= 1
    automatic = sensitivities.calibrate(kspace)
    assert 0.3 < automatic.crop <= 0.95
    assert (automatic.maps[0, 0].abs().sum(0) > 0)[inside].all()


def test_the_automatic_crop_is_the_highest_that_loses_a_thousandth_of_the_energy():
    generator = torch.Generator().manual_seed(0)
    eigenvalues, energy = torch.rand(2, 50, 60, generator=generator) * torch.tensor([0.9, 1.0])[:, None, None]
    crop = sensitivities._automatic_crop(eigenvalues, energy)
    assert energy[eigenvalues < crop].sum() <= 1e-3 * energy.sum() < energy[eigenvalues <= crop].sum()


def test_soft_maps_fade_with_the_eigenvalue():
    kspace = scan()[0]
    hard, soft = (sensitivities.calibrate(kspace, crop=0.8, soft=soft) for soft in (False, True))
    norm, value = coils.rss(soft.maps, 2), soft.eigenvalues
    order = value.flatten().argsort()
    assert (norm.flatten()[order].diff() >= -1e-5).all()
    assert norm[value <= 0.8].max() == 0
    torch.testing.assert_close(norm[value > 0.9999], torch.ones(int((value > 0.9999).sum())), rtol=0, atol=1e-4)
    torch.testing.assert_close(soft.maps, hard.maps * norm[:, :, None], rtol=0, atol=1e-5)


def test_strong_noise_is_told_from_signal():
    """A threshold for the noiseless case takes noise for signal, and loses more than three times the energy."""
    kspace, _, inside = scan(96, 96, 8)
    image = _fourier.ifft(kspace, (-2, -1))[0]
    noisy = kspace + 0.3 * crandn(*kspace.shape).to(kspace)
    got, fixed = sensitivities.calibrate(noisy), sensitivities.calibrate(noisy, threshold=0.02)
    assert got.kernels < fixed.kernels / 2
    assert (got.maps[0, 0].abs().sum(0) > 0)[inside].float().mean() > 0.999
    lost, lost_fixed = (1 - energy_kept(r.maps[0], image, inside) for r in (got, fixed))
    assert lost < 0.02
    assert lost < lost_fixed / 3


def test_two_objects_on_top_of_each_other_need_two_sets():
    """A field of view of half the object's height: the image folds, and two maps overlap in each pixel."""
    kspace = scan(128, 48, 8, radius=0.9, contrast=10)[0]
    folded = kspace[..., ::2, :]
    image = _fourier.ifft(folded, (-2, -1))[0]
    one, two = (sensitivities.calibrate(folded, sets=sets) for sets in (1, 2))
    torch.testing.assert_close(one.maps, two.maps[:, :1])
    everywhere = torch.ones(64, 48)
    assert energy_kept(one.maps[0], image, everywhere) < 0.9
    assert energy_kept(two.maps[0], image, everywhere) > 0.999
    inner = (two.maps[0, 0].conj() * two.maps[0, 1]).sum(0)
    assert inner.abs().max() < 1e-4
    assert operators.mri.espirit(folded, sets=2).shape == (1, 2, 8, 64, 48)


@pytest.mark.parametrize("kspace", [crandn(1, 4, 32, 32), scan(32, 32, 1)[0].expand(1, 3, 32, 32) * (1 + 0.5j)],
                         ids=["noise alone", "coils alike"])
def test_a_second_set_of_which_nothing_is_left_is_finite(kspace):
    found = sensitivities.calibrate(kspace.to(torch.complex64), sets=2, crop=0.0)
    assert found.maps.isfinite().all()
    assert (found.maps.abs().square().sum(2) < 1 + 1e-4).all()


def test_volumes_have_maps_too():
    size = (11, 14, 12)
    truth = coils.birdcage_maps(size, coils=4)
    texture = (1 + 0.2 * crandn(*size)).to(torch.complex64)
    inside = ellipse(14, 12, 0.8) & ((torch.arange(11) - 5).abs() < 5)[:, None, None]
    kspace = _fourier.fft(truth * inside * texture, (-3, -2, -1))
    maps = operators.mri.espirit(kspace, calib=(11, 14, 12), kernel=4)
    assert maps.shape == truth.shape
    assert overlap(maps[0], truth[0])[inside].mean() > 0.99


def test_single_and_double_precision_agree():
    kspace = scan()[0]
    double = operators.mri.espirit(kspace.to(torch.complex128))
    assert double.dtype == torch.complex64
    torch.testing.assert_close(double, operators.mri.espirit(kspace), rtol=0, atol=1e-4)


# --- bad input

HOLED = scan()[0]
HOLED[..., 20, :] = 0
HOLED[..., 22, 3] = 0


@pytest.mark.parametrize(("call", "message"), [
    (lambda k: operators.mri.espirit(HOLED), "calib: expected a fully sampled centre, got 24 places.*side is 19"),
    (lambda k: operators.mri.espirit(k, calib=50), r"calib: expected a region that fits into \(60, 48\), got 50"),
    (lambda k: operators.mri.espirit(k, calib=(24, 24, 24)), "calib: expected a region that fits"),
    (lambda k: operators.mri.espirit(k, calib=6), "calib: expected at least 7 per side, for a kernel of 4, got 6"),
    (lambda k: operators.mri.espirit(k, calib=10, kernel=6), "calib: expected at least 11 per side, for a kernel of 6, got 10"),
    (lambda k: operators.mri.espirit(k, calib=24.5), "calib: expected an integer >= 1, got 24.5"),
    (lambda k: operators.mri.espirit(k, sets=7), "sets: expected at most 6, the coils of kspace, got 7"),
    (lambda k: operators.mri.espirit(k, sets=0), "sets: expected an integer >= 1, got 0"),
    (lambda k: operators.mri.espirit(k, kernel=0), "kernel: expected an integer >= 1"),
    (lambda k: operators.mri.espirit(k, crop=1.5), "crop: expected a number in .0, 1., got 1.5"),
    (lambda k: operators.mri.espirit(k, crop="auto"), "crop: expected a number in .0, 1., got 'auto'"),
    (lambda k: operators.mri.espirit(k, threshold=-0.1), "threshold: expected a number in .0, 1., got -0.1"),
    (lambda k: operators.mri.espirit(torch.cat([k, 0 * k])), "kspace: expected signal, got zeros everywhere in item 1"),
    (lambda k: operators.mri.espirit(k * math.nan), "kspace: expected finite values"),
    (lambda k: operators.mri.espirit(k.real), "kspace: expected a complex tensor.*got torch.float32"),
    (lambda k: operators.mri.espirit(k[0]), "kspace: expected at least 4 dimensions"),
    (lambda k: operators.mri.espirit(k[None, None]), r"kspace: expected \(B, N, H, W\) or \(B, N, D, H, W\)"),
    (lambda k: operators.mri.espirit(k.numpy()), "kspace: expected a complex tensor.*got ndarray"),
])
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(scan()[0])
