"""The analytic phantom: against numerical integrals, and against the grid it knows nothing of."""

import math

import numpy as np
import pytest
import torch

from operators.mri import fft, ifft, phantom, rss, to_complex
from operators.mri.coils import birdcage_maps
from operators.mri.phantom import HEAD, Ellipse

TILTED = Ellipse(0.7, (-0.2, 0.3), (0.35, 0.15), 35.0)


def nodes(ellipse, radial=60, around=240):
    """Positions (y, x) in an ellipse and weights of a quadrature that is exact to rounding for smooth functions."""
    r, w = np.polynomial.legendre.leggauss(radial)
    r, w = (r + 1) / 2, w / 2
    angle = 2 * math.pi * np.arange(around) / around
    down, along = ellipse.axes[0] * np.outer(r, np.cos(angle)), ellipse.axes[1] * np.outer(r, np.sin(angle))
    turn = math.radians(ellipse.angle)    # the long axis points from y towards x
    y = ellipse.centre[0] + math.cos(turn) * down - math.sin(turn) * along
    x = ellipse.centre[1] + math.sin(turn) * down + math.cos(turn) * along
    weight = np.broadcast_to((w * r)[:, None], y.shape) * ellipse.axes[0] * ellipse.axes[1] * 2 * math.pi / around
    return y, x, weight


def birdcage(y, x, coil, coils):
    """The sensitivity written down again, of wires at a radius of 1.5, with its root sum of squares over coils."""
    everyone = []
    for n in range(coils):
        angle = 2 * math.pi * n / coils
        dy, dx = y - 1.5 * math.sin(angle), x - 1.5 * math.cos(angle)
        everyone.append(np.exp(1j * (np.arctan2(dx, -dy) - angle)) / np.hypot(dx, dy))
    return everyone[coil] / np.sqrt(sum(abs(s) ** 2 for s in everyone))


def test_spectrum_at_the_origin_is_the_area_and_elsewhere_the_integral():
    y, x, weight = nodes(TILTED)
    zero = torch.zeros((), dtype=torch.float64)
    assert phantom.spectrum(zero, zero, [TILTED]).item() == pytest.approx(0.7 * math.pi * 0.35 * 0.15, rel=1e-12)
    for ky, kx in ((1.0, 0.0), (-7.5, 3.0), (20.3, -31.7), (0.0, 40.5)):
        want = 0.7 * (weight * np.exp(-1j * math.pi * (ky * y + kx * x))).sum()
        got = phantom.spectrum(*torch.tensor([ky, kx], dtype=torch.float64), [TILTED]).item()
        assert abs(got - want) < 5e-8    # torch's J1 is right to 5e-7, worst near r = 5


@pytest.mark.parametrize("coils", [1, 4, 8])
def test_a_coil_sees_the_object_through_a_birdcage_sensitivity(coils):
    y, x, weight = nodes(TILTED)
    points = torch.tensor([[0.0, 0.0], [1.0, -2.0], [-7.5, 3.0], [20.3, -31.7], [-60.0, 60.0]], dtype=torch.float64)
    got = phantom.kspace((128, 96), coils, [TILTED], trajectory=points, phase=False)[0]
    scale = math.sqrt(128 * 96) / 4
    for n in range(coils):
        seen = 0.7 * scale * weight * birdcage(y, x, n, coils)
        want = [(seen * np.exp(-1j * math.pi * (ky * y + kx * x))).sum() for ky, kx in points.tolist()]
        assert abs(got[n].numpy() - want).max() < 1e-3 * abs(seen.sum())


@pytest.mark.parametrize("shape", [(32, 32), (33, 20), (17, 31), (1, 9)])
def test_the_grid_and_a_trajectory_through_it_agree(shape):
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij"), dim=-1)
    on_grid = phantom.kspace(shape, coils=3)
    along = phantom.kspace(shape, coils=3, trajectory=grid)
    assert on_grid.dtype == along.dtype == torch.complex64
    torch.testing.assert_close(along.reshape(on_grid.shape), on_grid, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(128, 128), (129, 97)])
def test_coil_images_are_the_image_times_the_maps(shape):
    smooth = [e for e in HEAD if min(e.axes) > 0.1]
    for phase in (True, False):
        kspace = phantom.kspace(shape, 4, smooth, phase=phase)
        want = phantom.maps(shape, 4, phase) * to_complex(phantom.image(shape, smooth, phase))[:, None]
        got = ifft(kspace, (-2, -1))
        assert (got - want).norm() < 0.08 * want.norm()    # ringing: 0.05 at 128 x 128, 0.063 at 129 x 97
        middle = (..., *(slice(n // 2 - 4, n // 2 + 5) for n in shape))    # where the edge of k-space is far
        assert (fft(want, (-2, -1)) - kspace)[middle].abs().max() < 2e-3 * kspace.abs().max()


def test_energy_is_the_integral_of_the_square_as_the_grid_grows():
    """Parseval: the k-space energy over the number of pixels tends to the mean square of the object."""
    exact = 0.7**2 * math.pi * 0.35 * 0.15 / 4
    errors = []
    for n in (32, 64, 128):
        x = ifft(phantom.kspace((n, n), 4, [TILTED]), (-2, -1)) / rss(phantom.maps((n, n), 4))[:, None]
        errors.append(1 - x.abs().square().sum().item() / n**2 / exact)
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.5 * errors[2] > 0
    assert errors[2] < 0.02


def test_maps_are_birdcage_maps_and_know_nothing_of_the_phase():
    want = birdcage_maps((64, 64), 8)
    u = torch.arange(-32, 32) / 32
    inside = (u[:, None] / 0.92) ** 2 + (u / 0.74) ** 2 <= 1
    for phase in (True, False):
        error = (phantom.maps((64, 64), 8, phase) - want).abs()
        assert error.max() < 0.06           # in a corner, at a wire
        assert error[..., inside].max() < 5e-3
        assert error[..., inside].square().mean().sqrt() < 1e-3


def test_image_is_a_head_that_peaks_at_one_and_keeps_its_mean_at_any_size():
    fine = to_complex(phantom.image((512, 512), supersample=4)).abs()
    assert fine.max().item() == pytest.approx(1, abs=1e-6)
    coarse = to_complex(phantom.image((63, 64))).abs()
    area = sum(e.intensity * math.pi * e.axes[0] * e.axes[1] for e in HEAD) / 4
    assert fine.mean().item() == pytest.approx(area, rel=1e-3)
    assert coarse.mean().item() == pytest.approx(area, rel=5e-3)
    assert coarse[:, 0].max() == 0
    assert phantom.image((9, 9), phase=False)[:, 1].abs().max() == 0
    assert phantom.image((64, 64))[:, 1].abs().max() > 0.1


def test_noise_has_the_stated_deviation_and_follows_the_seed():
    clean, noisy = phantom.kspace((64, 64), 4), phantom.kspace((64, 64), 4, sigma=0.5, seed=0)
    noise = torch.view_as_real(noisy - clean)
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert noise[..., 0].std().item() == pytest.approx(0.5, rel=0.02)
    torch.testing.assert_close(phantom.kspace((64, 64), 4, sigma=0.5, seed=0), noisy, rtol=0, atol=0)
    assert not torch.equal(phantom.kspace((64, 64), 4, sigma=0.5, seed=1), noisy)
    assert phantom.kspace((8, 8), 2, trajectory=torch.ones(5, 2), sigma=0.1).shape == (1, 2, 5)


@pytest.mark.parametrize(("arguments", "name"), [
    ({"shape": (8,)}, "shape"), ({"shape": (8, 0)}, "shape"), ({"coils": 0}, "coils"), ({"sigma": -1}, "sigma"),
    ({"sigma": math.nan}, "sigma"), ({"seed": -1}, "seed"), ({"trajectory": torch.ones(3)}, "trajectory"),
    ({"trajectory": torch.ones(3, 3)}, "trajectory"), ({"trajectory": torch.full((3, 2), math.inf)}, "trajectory"),
])
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        phantom.kspace(**{"shape": (8, 8), **arguments})


@pytest.mark.parametrize("axes", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0,)])
def test_an_ellipse_has_two_positive_axes(axes):
    with pytest.raises(ValueError, match=r"^Ellipse: expected"):
        Ellipse(1.0, (0.0, 0.0), axes)
