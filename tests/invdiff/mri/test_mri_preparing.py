"""From raw k-space to a problem: noise, coils, maps, scale, and what cannot be prepared."""

import pytest
import torch
from mri_scans import COILS, SIGMA, SIZE, kspace, lines, noise, radial_kspace, radial_points, scan_of

import operators
from invdiff.errors import InputError
from invdiff.io.scans.scan import RawSlice, Scan
from invdiff.mri.coil_maps import full_maps
from invdiff.mri.preparing import LEVEL, _misfit, prepare
from invdiff.mri.settings import ScanSettings
from invdiff.mri.simulating import simulated_scan
from invdiff.mri.whitening import border, find_whitening
from operators import mri
from operators.mri import phantom

GIVEN = ScanSettings(noise="none")


def mixing(coils=COILS, seed=1):
    """A well-conditioned mixture of coils, as of cables that couple."""
    random = torch.randn(coils, coils, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    return torch.eye(coils) + 0.25 * random


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


def test_without_noise_to_be_seen_the_user_is_told_to_give_its_level():
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[12:36, 10:30] = True
    with pytest.raises(InputError, match=r"border of k-space shows no noise.*--set sigma_y=0.01 --set operator.noise=none"):
        prepare(scan_of(kspace(), mask), 0, ScanSettings())
    with pytest.raises(InputError, match="holds no noise scan"):
        prepare(scan_of(kspace()), 0, ScanSettings(noise="scan"))
    dead = noise(COILS, 100)
    dead[2] = 0
    with pytest.raises(InputError, match="coil 2 shows none in the noise scan"):
        prepare(scan_of(kspace(), noise_scan=dead), 0, ScanSettings())


# the level that the data show

def test_the_misfit_is_the_noise_level_with_true_maps_and_more_with_wrong_ones():
    size = (64, 64)
    data, maps = phantom.kspace(size, 8, sigma=0.02), phantom.maps(size, 8)
    mask = lines(size)

    def misfit(maps):
        physics = operators.MultiCoilMRI(mask, maps)
        y = mri.to_channels(data * mask)
        return _misfit(physics, y, operators.least_squares(physics, y, z=0.0, gamma=1e3, iterations=60).x)

    assert misfit(maps) == pytest.approx(0.02, rel=0.05)
    assert misfit(maps.roll(6, -1)) > 1.3 * 0.02
    assert misfit(maps.roll(1, 1)) > misfit(maps)


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


# coil maps

@pytest.mark.parametrize(("center", "side"), [(12, 12), (13, 13), (18, 18), (40, 24)])
def test_the_calibration_region_is_what_the_mask_keeps_whole(center, side):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, SIZE[1] // 2 - center // 2 :][:, :center] = True
    mask[:, ::3] = True
    mask[:, 20 - center // 2 - 1 : 20 - center // 2] = False
    mask[:, 20 - center // 2 + center : 20 - center // 2 + center + 1] = False
    prepared = prepare(scan_of(kspace(), mask), 0, GIVEN)
    assert prepared.choices["coil_maps"]["region"] == [24, side]
    assert prepared.choices["coil_maps"]["source"] == "centre of k-space"


def test_maps_are_the_phantoms():
    size = (64, 64)
    prepared = prepare(scan_of(kspace(size=size, coils=8)), 0, GIVEN)
    found, true = (torch.view_as_complex(prepared.problem.physics.coil_maps.contiguous())[0, 0], phantom.maps(size, 8)[0])
    object_ = mri.combine_sets(phantom.image(size))[0, 0] > 0.1
    overlap = (found.conj() * true).sum(0).abs() / (found.norm(dim=0) * true.norm(dim=0)).clamp(min=1e-6)
    assert overlap[object_].quantile(0.02) > 0.98


@pytest.mark.parametrize("center", [0, 2, 6])
def test_too_few_lines_in_the_middle_are_refused_and_so_is_a_region_that_is_not_there(center):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, ::2] = True
    mask[:, 19] = mask[:, 21] = False
    mask[:, 20 - center // 2 : 20 - center // 2 + center] = True
    with pytest.raises(InputError, match=r"slice 0: coil maps need a fully sampled centre of 7 x 7 points") as error:
        prepare(scan_of(kspace(), mask), 0, GIVEN)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="coil maps: calib: expected a fully sampled centre"):
        prepare(scan_of(kspace(), mask), 0, ScanSettings(noise="none", calib=20))
    with pytest.raises(InputError, match="coil maps: calib: expected a region that fits"):
        prepare(scan_of(kspace()), 0, ScanSettings(noise="none", calib=200))


def test_separate_calibration_lines_are_used_even_where_the_middle_was_not_sampled():
    data = kspace()
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, ::2] = True
    apart = data[0][:, :, 20 - 10 : 20 + 10]
    prepared = prepare(scan_of(data, mask, noise_scan=noise(COILS, 500), calibration=apart), 0, ScanSettings())
    assert prepared.choices["coil_maps"]["source"] == "calibration lines"
    assert prepared.choices["coil_maps"]["region"] == [24, 20]
    whole = prepare(scan_of(data, noise_scan=noise(COILS, 500)), 0, ScanSettings(calib=(24, 20)))
    maps = [p.problem.physics.coil_maps for p in (prepared, whole)]
    assert (maps[0] - maps[1]).abs().mean() < 1e-3


def test_calibration_lines_are_mixed_as_the_image_is():
    data, mix = kspace(coils=12), mixing(12)
    mixed = torch.einsum("mn,dnhw->dmhw", mix, data)
    scan = scan_of(mixed, lines(), mix @ noise(12, 4000), calibration=mixed[0][:, :, 8:32])
    prepared = prepare(scan, 0, ScanSettings(coils=6))                    # whitened and compressed: both must be
    assert prepared.choices["sigma_y"]["misfit"] < 3 * prepared.choices["sigma_y"]["noise"]


def folded(tall=76, size=(64, 64), coils=8):
    """K-space of a phantom on `tall` rows, of which so many are encoded: its ends fold over, noise is added once."""
    full = mri.ifft(phantom.kspace((tall, size[1]), coils)[0], (-2, -1))
    top = tall // 2 - size[0] // 2
    images = full[:, top : top + size[0]].clone()
    images[:, size[0] - top :] += full[:, :top]
    images[:, : tall - top - size[0]] += full[:, top + size[0] :]
    return (mri.fft(images, (-2, -1)) + noise(coils, *size))[None]


def test_an_object_larger_than_the_field_of_view_gets_two_sets_of_maps_and_four_channels():
    data = folded()
    prepared = prepare(scan_of(data), 0, GIVEN)
    assert prepared.choices["coil_maps"]["sets"] == 2
    assert prepared.problem.image_shape == (4, 64, 64)
    assert prepared.support.shape == (1, 4, 64, 64)
    assert prepared.choices["sigma_y"]["misfit"] < 1.3 * SIGMA
    one = prepare(scan_of(data), 0, ScanSettings(noise="none", sets=1))
    assert one.problem.image_shape == (2, 64, 64)
    assert one.choices["sigma_y"]["misfit"] > 1.3 * prepared.choices["sigma_y"]["misfit"]     # one set cannot tell it apart


@pytest.mark.parametrize("sigma", [0.003, 0.03])
@pytest.mark.parametrize("coils", [4, 8])
def test_an_object_within_the_field_of_view_gets_one_set(sigma, coils):
    data = kspace(size=(64, 64), coils=coils, sigma=sigma)
    scan = scan_of(data)
    assert prepare(scan, 0, GIVEN).choices["coil_maps"]["sets"] == 1
    assert full_maps(scan, data[0], GIVEN).shape == (1, coils, 64, 64)
    assert prepare(scan, 0, ScanSettings(noise="none", sets=2)).problem.image_shape == (4, 64, 64)


def test_the_support_is_where_the_coils_see():
    prepared = prepare(scan_of(kspace(size=(64, 64)), noise_scan=noise(COILS, 500)), 0, ScanSettings())
    seen = prepared.problem.physics.coil_maps.square().sum((2, -1)) > 0
    assert torch.equal(prepared.support[:, :1].bool(), seen)
    assert torch.equal(prepared.support[:, :1], prepared.support[:, 1:])
    assert 0.3 < prepared.support.mean() < 0.95
    object_ = mri.combine_sets(phantom.image((64, 64)))[0, 0] > 0.1
    assert prepared.support[0, 0][object_].mean() > 0.98


# masks

def test_a_retrospective_mask_leaves_the_truth_behind():
    data = kspace(coils=8)
    prepared = prepare(scan_of(data, noise_scan=noise(8, 20_000)), 0, ScanSettings(acceleration=2.5))
    kept = (prepared.problem.y != 0).any(1).any(1)[0]
    assert prepared.choices["sampling"]["acceleration"] == pytest.approx(2.5, rel=0.1)
    assert kept.float().mean() == pytest.approx(1 / 2.5, rel=0.1)
    assert bool((kept.all(0) == kept.any(0)).all())                       # whole columns
    rss, head = mri.rss(mri.ifft(data, (-2, -1)))[0], mri.combine_sets(phantom.image(SIZE))[0, 0] > 0.1
    assert (prepared.truth - rss)[head].square().mean().sqrt() < 2 * SIGMA
    assert prepared.truth.shape == SIZE


def test_rows_undersamples_the_other_direction():
    prepared = prepare(scan_of(kspace()), 0, ScanSettings(acceleration=2.5, rows=True, noise="none"))
    kept = (prepared.problem.y != 0).any(1).any(1)[0]
    assert bool((kept.all(1) == kept.any(1)).all())
    assert 0.3 < kept.float().mean() < 0.5


@pytest.mark.parametrize("pattern", ["equispaced", "gaussian", "gaussian_points", "poisson_disc"])
@pytest.mark.parametrize("size", [SIZE, (47, 39)])
def test_every_pattern_can_be_prepared_on_small_and_odd_grids(pattern, size):
    settings = ScanSettings(acceleration=2, pattern=pattern, noise="none", center=12)
    prepared = prepare(scan_of(kspace(size=size)), 0, settings)
    assert prepared.problem.image_shape == (2, *size)
    assert prepared.choices["sampling"]["acceleration"] == pytest.approx(2, rel=0.15)
    assert bool(prepared.problem.y.isfinite().all())


def test_a_mask_over_an_undersampled_scan_or_a_trajectory_is_refused():
    with pytest.raises(InputError, match=r"operator.acceleration.*undersampled already \(\d+% is there\)"):
        prepare(scan_of(kspace(), lines()), 0, ScanSettings(acceleration=2, noise="none"))
    with pytest.raises(InputError, match="is on a trajectory"):
        prepare(radial_scan(), 0, ScanSettings(acceleration=2, noise="none"))
    with pytest.raises(InputError, match="operator:"):
        prepare(scan_of(kspace()), 0, ScanSettings(acceleration=30, noise="none"))


# trajectories

def radial_scan(side=48, coils=COILS, reach=(0, 100)):
    """reach: from and to which distance from the origin there are points."""
    points, data = radial_points(side), radial_kspace(side)[:coils]
    kept = (points.norm(dim=1) >= reach[0]) & (points.norm(dim=1) <= reach[1])
    return Scan("radial", "test", 1, coils, (side, side), (side, side),
                lambda number: RawSlice(data[:, kept], trajectory=points[kept]))


def test_a_radial_scan_becomes_a_problem_whose_least_squares_image_is_the_phantom():
    prepared = prepare(radial_scan(), 0, GIVEN)
    assert prepared.problem.image_shape == (2, 48, 48)
    assert prepared.choices["coil_maps"]["source"] == "middle of the trajectory"
    physics, y = prepared.problem.physics, prepared.problem.y
    image = mri.combine_sets(operators.least_squares(physics, y, z=0.0, gamma=1e3, iterations=60).x)[0, 0] / prepared.scale
    truth = mri.rss(mri.ifft(kspace(size=(48, 48)), (-2, -1)))[0]         # from the grid, and with its ringing
    assert float((image - truth).norm() / truth.norm()) < 0.2             # the corners of k-space are the grid's alone
    assert prepare(radial_scan(coils=1), 0, ScanSettings()).choices["coil_maps"]["source"].startswith("a single coil")


def test_a_trajectory_without_a_middle_is_refused_in_one_sentence():
    with pytest.raises(InputError, match="radial: coil maps need the middle of k-space"):
        prepare(radial_scan(reach=(20, 100)), 0, GIVEN)


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


def test_signal_in_the_border_is_not_taken_for_noise():
    spike = torch.zeros(1, *SIZE, dtype=torch.complex64)
    spike[:, 20, 17] = 10.0                             # its k-space is as strong in the corners as in the middle
    maps = mri.birdcage_maps(SIZE, COILS)
    signal = mri.fft(maps * spike, (-2, -1))
    prepared = prepare(scan_of(kspace() + signal), 0, ScanSettings())
    assert "border of k-space holds signal" in prepared.choices["noise"]
    assert prepared.choices["sigma_y"]["noise"] == 0
