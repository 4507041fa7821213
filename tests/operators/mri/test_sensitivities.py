"""ESPIRiT: the maps are eigenvectors of the averaged projection, and those of other people's code."""

import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import operators
from operators.mri import _fourier, coils, sensitivities

KSPACE = Path(__file__).parents[3] / "../shared/data/kspace"


def crandn(*shape, seed=0):
    """Complex noise with E|n|² = 2."""
    return 2**0.5 * torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def ellipse(height, width, radius=0.7):
    y = (torch.arange(height) - height // 2) / (height / 2)
    x = (torch.arange(width) - width // 2) / (width / 2)
    return (y[:, None] ** 2 + x**2) < radius**2


def scan(height=60, width=48, count=6, radius=0.7, contrast=0.2, seed=0):
    """K-space (1, N, H, W) complex64 of an ellipse with texture under birdcage coils, the maps (N, H, W), the object."""
    maps = coils.birdcage_maps((height, width), count)[0]
    inside = ellipse(height, width, radius)
    texture = 1 + contrast * crandn(height, width, seed=seed)
    return _fourier.fft(maps * inside * texture.to(torch.complex64), (-2, -1))[None], maps, inside


def real_scan(name):
    h5py = pytest.importorskip("h5py")
    if not (KSPACE / name).exists():
        pytest.skip("the shared k-space data are not there")
    with h5py.File(KSPACE / name) as file:
        return torch.from_numpy(file["kspace"][()])


def overlap(a, b):
    """|<a, b>| / |a| |b| over the coils of maps (N, H, W)."""
    product = (a.conj() * b).sum(0).abs()
    return product / (coils.rss(a, 0) * coils.rss(b, 0)).clamp(min=1e-12)


def project(maps, images):
    """Projection of images (N, H, W) on the span of orthonormal maps (M, N, H, W), pixel by pixel."""
    return ((maps.conj() * images).sum(1, keepdim=True) * maps).sum(0)


def energy_kept(maps, images, where):
    return float((project(maps, images).abs().square() * where).sum() / (images.abs().square() * where).sum())


def write_cfl(path, array):
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
    np.asarray(array, np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def read_cfl(path):
    dims = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(dims, order="F")


def bart(tmp_path, *command):
    if shutil.which("bart") is None:
        pytest.skip("BART is not installed")
    subprocess.run(["bart", *map(str, command)], cwd=tmp_path, check=True, capture_output=True)


def bart_maps(tmp_path, kspace, sets):
    """Maps (M, N, H, W) of BART from k-space (1, N, H, W)."""
    count, height, width = kspace.shape[1:]
    write_cfl(tmp_path / "kspace", kspace[0].permute(1, 2, 0).reshape(height, width, 1, count).numpy())
    bart(tmp_path, "ecalib", "-m", sets, "-r", 24, "kspace", "maps")
    return torch.from_numpy(read_cfl(tmp_path / "maps").reshape(height, width, count, sets).copy()).permute(3, 2, 0, 1)


def head(kspace):
    magnitude = coils.rss(_fourier.ifft(kspace, (-2, -1)))[0]
    return magnitude > 0.1 * magnitude.max()


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


# --- other people's code

def test_agrees_with_sigpy():
    app = pytest.importorskip("sigpy.mri.app", reason="SigPy is not installed")
    kspace, _, inside = scan()
    expected = app.EspiritCalib(kspace[0].numpy(), calib_width=24, crop=0, show_pbar=False).run()
    got = operators.mri.espirit(kspace, threshold=0.02)
    assert overlap(got[0], torch.from_numpy(expected))[inside].min() > 1 - 1e-5


def test_agrees_with_bart_on_its_phantom(tmp_path):
    bart(tmp_path, "phantom", "-x", 96, "-k", "-s", 8, "phantom")
    kspace = torch.from_numpy(read_cfl(tmp_path / "phantom").reshape(96, 96, 8).copy()).permute(2, 0, 1)[None]
    theirs = bart_maps(tmp_path, kspace, 1)
    image = project(theirs, _fourier.ifft(kspace, (-2, -1))[0])
    assert energy_kept(operators.mri.espirit(kspace)[0][None], image, head(kspace)) > 0.999


@pytest.mark.parametrize("name", ["brain_t1_8ch.h5", "brain_gre_16ch_96.h5", "brain_undersampled_8ch.h5"])
def test_maps_of_a_brain_span_the_space_of_those_of_bart(name, tmp_path):
    kspace = real_scan(name)
    theirs = bart_maps(tmp_path, kspace, 1)
    image = _fourier.ifft(kspace, (-2, -1))[0]
    inside = head(kspace) & (theirs[0].abs().sum(0) > 0)
    ours = operators.mri.espirit(kspace)
    assert energy_kept(ours, project(theirs, image), inside) > 0.999
    if name == "brain_t1_8ch.h5":
        assert energy_kept(ours, image, inside) > 0.99  # of the coil images themselves


def test_a_small_field_of_view_needs_two_sets_and_they_are_those_of_bart(tmp_path):
    kspace = real_scan("brain_smallfov_8ch.h5")
    image, inside = _fourier.ifft(kspace, (-2, -1))[0], head(kspace)
    one, two = (operators.mri.espirit(kspace, sets=sets).reshape(1, sets, *kspace.shape[1:])[0] for sets in (1, 2))
    lost_by_one, lost_by_two = 1 - energy_kept(one, image, inside), 1 - energy_kept(two, image, inside)
    assert lost_by_two < 0.015
    assert lost_by_one > 2.5 * lost_by_two
    theirs = bart_maps(tmp_path, kspace, 2)
    assert energy_kept(two, project(theirs, image), inside & (theirs[0].abs().sum(0) > 0)) > 0.99


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
