"""From raw k-space to a problem: noise, coils, maps, scale, and what cannot be prepared."""

import pytest
import torch
from mri_scans import COILS, SIGMA, SIZE, kspace, mixing, noise, scan_of

import operators
from invdiff.errors import InputError
from invdiff.io.scans.scan import RawSlice
from invdiff.mri.preparing import LEVEL, measured_block, prepare, sampled_share
from invdiff.mri.settings import ScanSettings
from invdiff.mri.simulating import simulated_scan
from invdiff.mri.whitening import border, find_whitening
from operators import mri
from operators.mri import phantom

GIVEN = ScanSettings(noise="none")


# noise

def test_a_noise_scan_makes_noise_white_and_tells_its_level():
    mix = mixing()
    whitening = find_whitening(scan_of(kspace(), noise_scan=mix @ noise(COILS, 20_000)), RawSlice(kspace()[0]), None)
    covariance = mri.noise_covariance(whitening(mix @ noise(COILS, 20_000, seed=8)))
    assert whitening.source == "noise scan"
    assert (covariance - torch.eye(COILS) * 2 * whitening.sigma**2).abs().max() < 0.06 * whitening.sigma**2      # 4 / sqrt(n)
    expected = SIGMA * float((mix.abs().square().sum(1).mean()).sqrt())
    assert whitening.sigma == pytest.approx(expected, rel=0.02)


def test_whitening_keeps_the_unit_of_the_data():
    scan = scan_of(kspace(), noise_scan=noise(COILS, 20_000))             # white already: nothing is to be done
    whitening = find_whitening(scan, scan.read(0), None)
    assert (whitening.matrix - torch.eye(COILS)).abs().max() < 0.03
    assert whitening.sigma == pytest.approx(SIGMA, rel=0.02)


def test_an_image_is_as_bright_as_in_the_scanners_coils_however_they_are_whitened():
    """Also where it is drawn on a finer grid; unit norm over whitened coils would shade it by a factor of two."""
    data = kspace(size=(64, 64), coils=8, sigma=1e-4)
    scan = scan_of(data, noise_scan=1e-4 * mixing(8) @ noise(8, 20_000, sigma=1.0))

    def seen(noise):
        prepared = prepare(scan, 0, ScanSettings(acceleration=1, noise=noise, grid=96))
        problem = prepared.drawn.problem
        x = operators.least_squares(problem.physics, problem.y, z=0.0, gamma=1e6, iterations=100).x
        return prepared.truth, mri.combine_sets(prepared.drawn.on_scan(x))[0, 0] / prepared.scale

    for white, plain in zip(seen("scan"), seen("none"), strict=True):
        inside = plain > 0.2 * plain.max()
        assert (white / plain - 1)[inside].abs().mean() < 0.01
        assert (white - plain).abs().max() < 0.05 * plain.max()


def test_coils_of_a_known_noise_scan_get_equal_noise_even_if_it_is_short():
    gains = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    for count in (3, 12):                                                 # fewer than coils, and too few for a covariance
        scan = scan_of(kspace(), noise_scan=gains * noise(COILS, count, seed=3))
        whitening = find_whitening(scan, scan.read(0), None)
        assert whitening.matrix.count_nonzero() == COILS
        assert f"{count} samples" in whitening.source
        left = whitening(gains * noise(COILS, 20_000)).abs().square().mean(1)
        assert left.max() / left.min() < 16                               # was 16, to what 3 samples tell at the least


def test_the_border_of_k_space_tells_the_level_of_white_noise():
    size = (160, 128)
    data = noise(1, COILS, *size)
    data[..., 60:100, 44:84] += 1.0
    scan = scan_of(data)
    assert find_whitening(scan, scan.read(0), "border").sigma == pytest.approx(SIGMA, rel=0.03)


def test_a_noise_scan_is_preferred_and_the_border_is_used_on_request():
    scan = scan_of(kspace(), noise_scan=noise(COILS, 1000))
    found = [find_whitening(scan, scan.read(0), source).source for source in (None, "scan", "border", "none")]
    assert found == ["noise scan", "noise scan", "border of k-space", "not looked for"]


def test_where_corners_are_not_sampled_the_ends_of_the_readout_are_the_border():
    data = noise(COILS, 96, 80)
    mask = torch.zeros(96, 80, dtype=torch.bool)
    mask[:, 20:60] = True
    samples = border(RawSlice(data * mask, mask))
    assert samples.shape == (COILS, 9 * 40)                               # rows further than 0.9 · 48 from the middle
    assert samples.abs().min() > 0


def test_without_noise_to_be_seen_its_level_is_the_misfit_or_has_to_be_given():
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[12:36, 10:30] = True
    choices = prepare(scan_of(kspace(coils=2), mask), 0, ScanSettings(sets=2)).choices
    assert "border of k-space is empty" in choices["noise"]
    assert choices["sigma_y"]["used"] == choices["sigma_y"]["misfit"] > 0
    with pytest.raises(InputError, match=r"border of k-space shows no noise.*expected operator.noise=none"):
        prepare(scan_of(kspace(), mask), 0, ScanSettings(noise="border"))
    with pytest.raises(InputError, match=r"nor several coils tell the noise level.*--set sigma_y=0.01"):
        prepare(scan_of(kspace(coils=1), mask), 0, ScanSettings())
    with pytest.raises(InputError, match="holds no noise scan"):
        prepare(scan_of(kspace()), 0, ScanSettings(noise="scan"))
    dead = noise(COILS, 100)
    dead[2] = 0
    with pytest.raises(InputError, match="coil 2 shows none in the noise scan"):
        prepare(scan_of(kspace(), noise_scan=dead), 0, ScanSettings())


# the level that the data show

def test_the_level_used_is_the_noise_or_the_misfit_where_that_is_larger_and_a_given_one_is_kept():
    scan = scan_of(kspace(size=(64, 64)), noise_scan=noise(COILS, 2000))
    found = prepare(scan, 0, ScanSettings()).choices["sigma_y"]
    assert found["used"] == max(found["noise"], found["misfit"])
    assert found["used"] == pytest.approx(SIGMA, rel=0.1)
    prepared = prepare(scan, 0, ScanSettings(), sigma_y=0.5)
    assert prepared.choices["sigma_y"]["used"] == 0.5
    assert prepared.problem.sigma_y == pytest.approx(0.5 * prepared.scale)
    assert prepare(scan, 0, ScanSettings(), sigma_y=0.0).problem.sigma_y == 0


# scale

def test_a_scan_in_another_unit_is_the_same_problem():
    data, white = kspace(), noise(COILS, 500)
    one, thousand = (prepare(scan_of(f * data, noise_scan=f * white), 0, ScanSettings(acceleration=2)) for f in (1, 1000))
    assert one.scale == pytest.approx(1000 * thousand.scale, rel=1e-4)
    assert (one.problem.y - thousand.problem.y).abs().max() < 1e-4 * one.problem.y.abs().max()
    assert one.problem.sigma_y == pytest.approx(thousand.problem.sigma_y, rel=1e-4)
    assert (1000 * one.truth - thousand.truth).abs().max() < 1e-4 * thousand.truth.max()


@pytest.mark.parametrize("settings", [ScanSettings(), ScanSettings(acceleration=2.5)])
def test_a_head_has_the_brightness_that_the_prior_knows(settings):
    size = (64, 64)
    prepared = prepare(scan_of(kspace(size=size), noise_scan=noise(COILS, 500)), 0, settings)
    true = mri.combine_sets(phantom.image(size))[0, 0] * prepared.scale
    assert true[true > 0.2 * true.max()].square().mean().sqrt() == pytest.approx(LEVEL, rel=0.15)


# coils

def test_compressed_coils_keep_the_energy_and_the_white_noise():
    data = kspace(coils=12)
    prepared = prepare(scan_of(data, noise_scan=noise(12, 4000)), 0, ScanSettings(coils=6))
    coils = prepared.choices["coils"]
    assert (coils["given"], coils["used"]) == (12, 6)
    assert 0.99 < coils["energy"] <= 1
    assert prepared.problem.y.shape == (1, 2, 6, *SIZE)
    assert float((prepared.problem.y / prepared.scale).square().sum() / data.abs().square().sum()) == \
        pytest.approx(coils["energy"], rel=0.03)                          # of a covariance from 4000 samples
    assert prepared.choices["sigma_y"]["used"] == pytest.approx(SIGMA, rel=0.15)


def test_more_than_16_coils_are_compressed_unless_told_otherwise():
    scan = scan_of(kspace(coils=20), noise_scan=noise(20, 2000))
    assert prepare(scan, 0, ScanSettings()).choices["coils"]["used"] == 16
    assert prepare(scan, 0, ScanSettings(coils=20)).choices["coils"]["used"] == 20


def test_a_single_coil_is_taken_as_uniform():
    prepared = prepare(scan_of(kspace(coils=1), noise_scan=noise(1, 200)), 0, ScanSettings())
    assert prepared.problem.image_shape == (2, *SIZE)
    assert bool((prepared.support == 1).all())
    assert "uniform" in prepared.choices["coil_maps"]["source"]
    levels = prepared.choices["sigma_y"]
    assert levels["misfit"] == 0            # least squares explain anything, and tell nothing
    assert levels["used"] == levels["noise"]


# simulating

def test_a_simulated_scan_has_the_noise_that_was_asked_for():
    from invdiff.io.scans.scan import Images
    image = mri.combine_sets(phantom.image((64, 64)))[0, 0] * 50
    scan = simulated_scan(Images("x", "NIfTI", 1, (64, 64), lambda number: image), None, 0.05, 0)
    raw = scan.read(0)
    images = mri.ifft(raw.kspace, (-2, -1))
    clean = mri.birdcage_maps((64, 64), 8)[0] * image
    sigma = 0.05 * float(image.max())
    assert (images.abs() - clean.abs())[:, image == 0].square().mean().sqrt() < 3 * sigma
    assert prepare(scan, 0, ScanSettings()).choices["sigma_y"]["used"] == pytest.approx(sigma, rel=0.1)
    assert torch.equal(raw.kspace, scan.read(0).kspace)                   # the same noise whenever it is read


def test_single_zeros_are_measured_and_a_missing_column_is_not():
    there = torch.ones(SIZE, dtype=torch.bool)
    there[[3, 20, 40], [7, 30, 9]] = False
    assert measured_block(there) == (slice(0, SIZE[0]), slice(0, SIZE[1]))
    there[torch.rand(SIZE, generator=torch.Generator().manual_seed(0)) < 0.05] = False
    assert measured_block(there) is None
    wide = torch.ones(48, 400, dtype=torch.bool)
    wide[:, 150] = False
    assert (measured_block(wide), f"{sampled_share(wide):.0%}") == (None, "99%")


def test_a_mask_over_zeros_beside_what_was_measured_stays_within_it():
    data, block = kspace(), torch.zeros(SIZE, dtype=torch.bool)
    block[:, 3:38] = True                               # 35 columns, their middle at the origin
    prepared = prepare(scan_of(data, block), 0, ScanSettings(acceleration=2, noise="none"))
    kept = prepared.problem.physics.mask[0, 0].bool()
    assert not kept[:, ~block[0]].any()
    assert kept[0].sum() == pytest.approx(35 / 2, abs=2)
    assert prepared.truth is not None
    block[:, :10] = False                               # a quarter was never measured: what is there is no truth
    with pytest.raises(InputError, match="undersampled already"):
        prepare(scan_of(data, block), 0, ScanSettings(acceleration=2, noise="none"))
