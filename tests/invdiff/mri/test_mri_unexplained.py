"""What coil maps leave of k-space: the noise level, where it is larger, and the covariance of the noise."""

import pytest
import torch
from mri_scans import COILS, SIGMA, kspace, lines, mixing, noise, radial_kspace, radial_points, scan_of

import operators
from invdiff.errors import InputError
from invdiff.mri.preparing import _seen, _whitening, prepare
from invdiff.mri.settings import ScanSettings
from invdiff.mri.unexplained import remains
from operators import mri
from operators.mri import phantom

# its level

def test_the_misfit_is_the_noise_level_with_true_maps_and_more_with_wrong_ones():
    size = (64, 64)
    data, maps = phantom.kspace(size, 8, sigma=0.02), phantom.maps(size, 8)
    mask = lines(size)

    def misfit(maps):
        physics = operators.MultiCoilMRI(mask, maps)
        y = mri.to_channels(data * mask)
        return remains(physics, y).level()

    assert misfit(maps) == pytest.approx(0.02, rel=0.05)
    assert misfit(maps.roll(6, -1)) > 1.3 * 0.02
    assert misfit(maps.roll(1, 1)) > misfit(maps)


def test_k_space_that_the_maps_explain_less_well_than_the_rest_counts_less():
    size = (64, 64)
    places = torch.stack(torch.meshgrid(*[torch.arange(64.0) - 32] * 2, indexing="ij"))
    off = (places.norm(dim=0) > 6) & (places.norm(dim=0) < 18)            # beyond what the maps are estimated from
    clean, scan = kspace(size=size, coils=8), noise(8, 4000)
    data = clean + noise(1, 8, *size, sigma=4 * SIGMA, seed=9) * off
    prepared = prepare(scan_of(data, lines(size), scan), 0, ScanSettings())
    problem, level = prepared.weighted, prepared.choices["sigma_y"]
    weights = problem.physics.weights[0, 0]
    assert level["used"] == pytest.approx(SIGMA, rel=0.05)
    assert level["largest"] == pytest.approx(17**0.5 * SIGMA, rel=0.1)    # of independent noise, 4 SIGMA and SIGMA
    assert weights[off].mean() < 1.3 * weights.min() < 0.4
    assert weights[places.norm(dim=0) > 22].min() > 0.95
    torch.testing.assert_close(problem.y, prepared.problem.y * weights)
    maps = torch.view_as_complex(problem.physics.coil_maps[0, 0].contiguous())
    image = (maps.conj() * mri.ifft(phantom.kspace(size, 8)[0], (-2, -1))).sum(0)           # without noise
    left = problem.y - problem.A(torch.stack([image.real, image.imag])[None] * prepared.scale)
    assert float(left[problem.observed()].std()) == pytest.approx(problem.sigma_y, rel=0.1)


def test_no_place_counts_for_less_than_conjugate_gradients_can_solve_for():
    """Of hardly any noise, errors of the maps may be two hundred times as large; what is left undone with such weights is the
    brightness of the image."""
    size = (64, 64)
    places = torch.stack(torch.meshgrid(*[torch.arange(64.0) - 32] * 2, indexing="ij"))
    off = (places.norm(dim=0) > 6) & (places.norm(dim=0) < 18)
    data = kspace(size=size, coils=8) + noise(1, 8, *size, sigma=200 * SIGMA, seed=9) * off
    prepared = prepare(scan_of(data, lines(size), noise(8, 4000)), 0, ScanSettings())
    level, weights = prepared.choices["sigma_y"], prepared.weighted.physics.weights
    assert level["largest"] == pytest.approx(200 * SIGMA, rel=0.1)
    assert level["used"] == pytest.approx(level["largest"] / 6)
    assert float(weights.min()) == pytest.approx(1 / 6)


def test_where_the_maps_explain_k_space_evenly_all_of_it_counts_alike():
    data, mask, scan = kspace(size=(64, 64), coils=8), lines((64, 64)), noise(8, 4000)
    for prepared in (prepare(scan_of(data, mask, scan), 0, ScanSettings()),
                     prepare(scan_of(data, mask, scan), 0, ScanSettings(), sigma_y=SIGMA)):
        assert prepared.weighted is prepared.problem
        assert "largest" not in prepared.choices["sigma_y"]


# its covariance

EVERYTHING = torch.ones(96, 96, dtype=torch.bool)
MASKS = pytest.mark.parametrize("mask", [EVERYTHING, lines((96, 96), 3.0)])


def scanned(mix, mask=EVERYTHING):
    """A slice of a phantom in as many coils as `mix` (N, N) has, with noise of SIGMA times `mix`."""
    data = phantom.kspace((96, 96), len(mix))[0] + (mix @ noise(len(mix), 96 * 96)).unflatten(1, (96, 96))
    return scan_of(data[None], mask)


def spread(covariance):
    values = torch.linalg.eigvalsh(covariance)
    return float(values[-1] / values[0])


@MASKS
def test_the_covariance_of_white_noise_is_found_to_what_the_samples_tell(mask):
    physics = operators.MultiCoilMRI(mask, phantom.maps((96, 96), 8))
    y = mri.to_channels(scanned(torch.eye(8) + 0j, mask).read(0).kspace[None])
    found = remains(physics, y).covariance()
    places = int(mask.sum()) * 0.56 / 2                                   # of the outer part, half of it unexplained
    assert (found / (2 * SIGMA**2) - torch.eye(8)).abs().max() < 5 * places**-0.5


@MASKS
@pytest.mark.parametrize("strength", [0.1, 0.25])
def test_noise_that_coils_share_becomes_white(mask, strength):
    mix, scan = mixing(8, strength), scanned(mixing(8, strength), mask)
    whitening = _whitening(scan, 0, scan.read(0), mask, ScanSettings(), None)
    white = whitening.matrix @ mix
    assert spread(mix @ mix.mH) > 3
    assert spread(white @ white.mH) < spread(mix @ mix.mH) ** 0.5         # in two passes
    assert whitening.sigma == pytest.approx(SIGMA * float(white.abs().square().sum() / 8) ** 0.5, rel=0.15)


@pytest.mark.parametrize("acceleration", [None, 3])
def test_signal_in_the_border_of_k_space_is_no_noise(acceleration):
    spike = torch.zeros(1, 96, 96, dtype=torch.complex64)
    spike[:, 50, 41] = 10.0                             # its k-space is as strong in the corners as in the middle
    signal = mri.fft(mri.birdcage_maps((96, 96), 8) * spike, (-2, -1))
    scan = scan_of(phantom.kspace((96, 96), 8, sigma=SIGMA) + signal)
    choices = prepare(scan, 0, ScanSettings(acceleration=acceleration)).choices
    assert choices["noise"] == "residual of the coil maps"
    assert choices["sigma_y"]["noise"] == pytest.approx(SIGMA, rel=0.1)
    assert prepare(scan, 0, ScanSettings(noise="border")).choices["sigma_y"]["noise"] > 2 * SIGMA


def test_more_coils_than_are_used_are_whitened_all():
    mix = mixing(20, 0.04) * torch.linspace(0.7, 1.5, 20)[:, None]
    scan = scanned(mix)
    prepared = prepare(scan, 0, ScanSettings())
    assert prepared.choices["noise"] == "residual of the coil maps"
    assert (prepared.choices["coils"]["given"], prepared.choices["coils"]["used"]) == (20, 16)
    raw = scan.read(0)
    whitening = _whitening(scan, 0, raw, EVERYTHING, ScanSettings(), None)
    white = _seen(scan, 0, raw, EVERYTHING, whitening, ScanSettings()).matrix @ whitening.matrix @ mix
    assert spread(white @ white.mH) < spread(mix @ mix.mH) ** 0.5


def test_points_on_a_trajectory_tell_the_noise_too():
    pytest.importorskip("mrinufft")
    from invdiff.io.scans.scan import RawSlice, Scan
    raw = RawSlice(radial_kspace(), None, radial_points())
    scan = Scan("radial", "test", 1, COILS, (48, 48), (48, 48), lambda number: raw, None)
    choices = prepare(scan, 0, ScanSettings()).choices
    assert choices["noise"] == "residual of the coil maps"
    assert choices["sigma_y"]["noise"] == pytest.approx(SIGMA, rel=0.15)


def test_where_the_maps_explain_anything_the_border_is_looked_at_and_a_wish_is_refused():
    assert prepare(scan_of(kspace(coils=1, size=(96, 96))), 0, ScanSettings()).choices["noise"] == "border of k-space"
    with pytest.raises(InputError, match=r"tells no covariance of the noise; expected operator.noise=border or none"):
        prepare(scan_of(kspace(coils=1)), 0, ScanSettings(noise="residual"))
