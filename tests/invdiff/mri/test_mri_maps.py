"""How a scan is prepared: coil maps, masks, trajectories."""

import pytest
import torch
from mri_scans import COILS, SIGMA, SIZE, folded, kspace, lines, noise, radial_kspace, radial_points, scan_of

import operators
from invdiff.errors import InputError
from invdiff.io.scans.scan import RawSlice, Scan
from invdiff.mri.coil_maps import cartesian_maps, full_maps
from invdiff.mri.preparing import prepare
from invdiff.mri.settings import ScanSettings
from operators import mri
from operators.mri import phantom

GIVEN = ScanSettings(noise="none")


def mixing(coils=COILS, seed=1):
    """A well-conditioned mixture of coils, as of cables that couple."""
    random = torch.randn(coils, coils, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    return torch.eye(coils) + 0.25 * random


# coil maps

@pytest.mark.parametrize(("center", "region"), [(12, [48, 12]), (13, [44, 13]), (18, [32, 18]), (40, [24, 24])])
def test_the_calibration_region_is_what_the_mask_keeps_whole_and_longer_where_it_is_narrow(center, region):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, SIZE[1] // 2 - center // 2 :][:, :center] = True
    mask[:, ::3] = True
    mask[:, 20 - center // 2 - 1 : 20 - center // 2] = False
    mask[:, 20 - center // 2 + center : 20 - center // 2 + center + 1] = False
    prepared = prepare(scan_of(kspace(), mask), 0, GIVEN)
    assert prepared.choices["coil_maps"]["region"] == region
    assert prepared.choices["coil_maps"]["source"] == "centre of k-space"


def test_maps_are_the_phantoms():
    size = (64, 64)
    prepared = prepare(scan_of(kspace(size=size, coils=8)), 0, GIVEN)
    found, true = (torch.view_as_complex(prepared.problem.physics.coil_maps.contiguous())[0, 0], phantom.maps(size, 8)[0])
    object_ = mri.combine_sets(phantom.image(size))[0, 0] > 0.1
    overlap = (found.conj() * true).sum(0).abs() / (found.norm(dim=0) * true.norm(dim=0)).clamp(min=1e-6)
    assert overlap[object_].quantile(0.02) > 0.98


@pytest.mark.parametrize("coils", [8, 16])
def test_twelve_lines_in_the_middle_tell_the_maps_nearly_as_well_as_all(coils):
    """A kernel as wide as for many lines leaves twice as much of the coil images unexplained as here."""
    data = kspace(size=(64, 64), coils=coils, sigma=3e-4)
    images = mri.ifft(data[0], (-2, -1))

    def left(mask):
        maps = cartesian_maps(scan_of(data, mask), 0, data[0] * mask, mask, None, ScanSettings()).maps[0]
        return (images - maps * (maps.conj() * images).sum(0)).norm().square()

    assert left(lines((64, 64), 2.5, 12)) < 1.7 * left(torch.ones(64, 64, dtype=torch.bool))


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
    assert prepared.choices["coil_maps"]["region"] == [28, 20]
    whole = prepare(scan_of(data, noise_scan=noise(COILS, 500)), 0, ScanSettings(calib=(28, 20)))
    maps = [p.problem.physics.coil_maps for p in (prepared, whole)]
    assert (maps[0] - maps[1]).abs().mean() < 1e-3


def test_calibration_lines_may_reach_further_than_the_image():
    data = phantom.kspace((60, SIZE[1]), COILS)                       # k-space of the same object, as densely sampled
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, ::2] = True
    scan = scan_of(kspace(), mask, calibration=data[0][:, :, 16:24])
    assert prepare(scan, 0, GIVEN).choices["coil_maps"]["region"] == [48, 8]


def test_calibration_lines_are_mixed_as_the_image_is():
    data, mix = kspace(coils=12), mixing(12)
    mixed = torch.einsum("mn,dnhw->dmhw", mix, data)
    scan = scan_of(mixed, lines(), mix @ noise(12, 4000), calibration=mixed[0][:, :, 8:32])
    prepared = prepare(scan, 0, ScanSettings(coils=6))                    # whitened and compressed: both must be
    assert prepared.choices["sigma_y"]["misfit"] < 3 * prepared.choices["sigma_y"]["noise"]


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
    assert full_maps(scan, data[0], GIVEN).maps.shape == (1, coils, 64, 64)
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
    with pytest.raises(InputError, match=r"operator.acceleration=30"):
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


