"""The three parts of a restoration against dense algebra."""

import pytest
import torch
from deepinv.physics import LinearPhysics

import operators
from invdiff.errors import InputError
from invdiff.evaluation.damped import damped_least_squares
from invdiff.evaluation.provenance import SPREAD, Provenance, prior_shift, provenance
from invdiff.priors.analytic import GaussianPrior
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate
from operators.mri import birdcage_maps, phantom, sampling


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def random_physics():
    """No SVD, no img_size: a matrix (40, 72) of anybody's."""
    matrix = torch.randn(40, 72, generator=torch.Generator().manual_seed(5)) / 8
    return LinearPhysics(A=lambda x, **_: x.flatten(1) @ matrix.T, A_adjoint=lambda y, **_: (y @ matrix).reshape(-1, 1, 8, 9))


def coils():
    """Maps with nothing smooth about them: well conditioned."""
    parts = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(2)) / 2
    return operators.MultiCoilMRI(sampling.gaussian_points((8, 8), 2, calib=2), torch.complex(*parts))


SHARP = torch.tensor([[0.0, 0.1, 0.05], [0.1, 0.6, 0.0], [0.15, 0.0, 0.0]])       # no symmetry, easy to invert
CASES = {       # name: (image size, operator)
    "inpainting": ((3, 8, 9), lambda: operators.Inpainting((3, 8, 9), rand(3, 8, 9) < 0.5)),
    "blur": ((1, 8, 9), lambda: operators.GaussianBlur((1, 8, 9), sigma=0.5)),
    "padded blur": ((1, 8, 9), lambda: operators.blur((1, 8, 9), SHARP, boundary="replicate")),
    "super-resolution": ((1, 8, 8), lambda: operators.SuperResolution((1, 8, 8), 2)),
    "sensing": ((1, 8, 8), lambda: operators.CompressedSensing((1, 8, 8), rate=0.4)),
    "gaussian sensing": ((1, 8, 8), lambda: operators.GaussianSensing((1, 8, 8), rate=0.3)),
    "mri": ((2, 8, 8), lambda: operators.MRI((2, 8, 8), sampling.gaussian_points((8, 8), 2, calib=2))),
    "multi-coil mri": ((2, 8, 8), coils),
    "denoising": ((1, 8, 8), lambda: operators.Denoising((1, 8, 8))),
    "another's": ((1, 8, 9), random_physics),
}


def case(name, sigma_y, batch=2):
    size, make = CASES[name]
    return simulate(make(), rand(batch, *size), sigma_y), rand(batch, *size, seed=1)


def dense(problem, size):
    n = size[0] * size[1] * size[2]
    return torch.cat([problem.physics.A(e[None]).flatten(1) for e in torch.eye(n).reshape(n, *size)]).double().T


def relative(x, size):
    return float(x.double().norm() / size.double().norm())


@pytest.mark.parametrize("sigma_y", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("name", CASES)
def test_the_parts_are_those_of_dense_algebra(name, sigma_y):
    problem, x = case(name, sigma_y)
    got = provenance(problem, x, probes=1)
    a = dense(problem, x.shape[1:])
    u, s, vt = torch.linalg.svd(a, full_matrices=False)
    kept = s > 1e-5 * s[0]
    gain = torch.where(kept, s / (s.square() + (sigma_y / SPREAD) ** 2), 0)
    units = torch.eye(x.shape[1]).repeat_interleave(x[0, 0].numel(), 1).double()                  # flat images, (C, n)
    flat = torch.zeros_like(x.flatten(1), dtype=torch.float64)
    for of in ([units] if len(units) <= 2 else [units.sum(0, keepdim=True), units]):                # all alike first
        level = torch.linalg.pinv(of @ a.T @ a @ of.T + (sigma_y / SPREAD) ** 2 * torch.eye(len(of)), rtol=1e-6)
        flat = flat + (problem.y.flatten(1).double() - flat @ a.T) @ a @ of.T @ level.T @ of
    data = flat + (problem.y.flatten(1).double() - flat @ a.T) @ u * gain @ vt
    rest = x.flatten(1).double() - flat
    filled = rest - rest @ vt.T * (gain * s) @ vt
    accuracy = 1e-5 * float((s[0] / s[kept].min()).clamp(1, 100))       # inverting s costs digits
    assert relative(got.data.flatten(1) - data, data) < accuracy
    assert relative(got.prior.flatten(1) - filled, x) < accuracy


@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
@pytest.mark.parametrize("name", CASES)
def test_the_parts_add_up_and_the_data_s_own_does_not_know_the_restoration(name, sigma_y):
    problem, x = case(name, sigma_y)
    got = provenance(problem, x, probes=1)
    assert {part.dtype for part in (got.data, got.denoised, got.prior, got.measured)} == {torch.float32}
    assert relative(got.data + got.denoised + got.prior - x, x) < 1e-5
    torch.testing.assert_close(provenance(problem, 1 - x, probes=1).data, got.data, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_without_noise_the_operator_does_not_see_what_the_prior_filled_in(name):
    problem, x = case(name, 0.0)
    got = provenance(problem, x, probes=1)
    assert relative(problem.A(got.prior), problem.A(x)) < 1e-5
    truth = provenance(problem, got.data + got.prior, probes=1)         # agrees with y: nothing to denoise
    assert relative(truth.denoised, x) < 1e-4


def resolution(problem, size):
    """The diagonal of R, mean over channels, (H, W)."""
    a = dense(problem, size)
    gram = a.T @ a
    damped = gram + (problem.sigma_y / SPREAD) ** 2 * torch.eye(len(gram))
    return torch.linalg.solve(damped, gram).diagonal().reshape(size).mean(0)


@pytest.mark.parametrize("sigma_y", [0.02, 0.5])
@pytest.mark.parametrize("name", ["denoising", "inpainting", "blur", "super-resolution"])
def test_brightness_is_not_filled_in(name, sigma_y):
    """Of a flat image nothing is but by chance: its level is known as well as the measured values are many. And a brighter
    image is as one that is not."""
    size, make = CASES[name]
    flat = torch.full((1, *size), 0.8)
    problem = Problem(make(), make().A(flat), sigma_y)
    noise, seen = (sigma_y / SPREAD) ** 2, problem.A(torch.ones_like(flat)).square().sum((2, 3)).min()
    unsure = noise / (noise + float(seen))
    assert provenance(problem, flat, probes=1).prior.abs().max() < 0.8 * unsure + 1e-5
    other, x = case(name, sigma_y, batch=1)
    brighter = Problem(other.physics, other.y + other.physics.A(torch.full_like(x, 10.0)), sigma_y)
    moved = provenance(brighter, x + 10, probes=1).prior - provenance(other, x, probes=1).prior
    assert moved.abs().max() < 10 * unsure + 1e-4


def test_no_colour_is_made_up_where_none_is_seen():
    """Of a grey image whose colours are not measured, nothing is filled in; and many channels cost no more than they must."""
    physics = operators.Colorization((3, 8, 8))
    flat = torch.full((1, 3, 8, 8), 0.6)
    got = provenance(Problem(physics, physics.A(flat), 0.0), flat, probes=1)
    assert got.prior.abs().max() < 1e-4
    torch.testing.assert_close(got.data, flat, rtol=0, atol=1e-4)


def test_a_mask_is_measured_where_it_says_and_two_probes_tell():
    problem, x = case("inpainting", 0.05)
    before = problem.calls.operator
    got = provenance(problem, x).measured
    assert problem.calls.operator - before <= (6 + 3) * len(x)            # flat images; x and two probes
    torch.testing.assert_close(got[0, 0].double(), resolution(problem, x.shape[1:]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["blur", "super-resolution", "sensing", "multi-coil mri", "another's"])
def test_how_much_is_measured_is_right_within_the_noise_of_the_probes(name):
    problem, x = case(name, 0.05)
    exact = resolution(problem, x.shape[1:])
    got = provenance(problem, x, probes=64, seed=3).measured
    assert got.shape == (2, 1, *x.shape[-2:])
    assert abs(float(got.mean() - exact.mean())) < 0.03
    assert float((got[0, 0] - exact).square().mean().sqrt()) < 0.07


def test_the_window_takes_noise_away_and_keeps_edges():
    """Half of the image a blur, half of it a mask: the window works on the first and leaves the second alone."""
    size, mask = (1, 32, 32), (rand(1, 1, 32, 32) < 0.5).float()
    blur = operators.GaussianBlur(size, sigma=1.0)
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1

    def both(x, **_):
        return torch.cat([blur.A(x * left), x * mask * (1 - left)], 1)

    physics = LinearPhysics(A=both, A_adjoint=lambda y, **_: left * blur.A_adjoint(y[:, :1]) + (1 - left) * mask * y[:, 1:])
    problem = Problem(physics, torch.zeros(1, 2, 32, 32), 0.05)
    got, exact = provenance(problem, torch.zeros(1, *size)).measured[0, 0], resolution(problem, size)
    torch.testing.assert_close(got[:, 16:].double(), exact[:, 16:], rtol=0, atol=1e-4)
    assert float((got[:, 3:13] - exact[:, 3:13]).square().mean().sqrt()) < 0.05


def test_each_measurement_has_a_mask_of_its_own_and_batches_do_not_matter():
    masks = rand(3, 1, 8, 8) < 0.5
    physics = operators.Inpainting((1, 8, 8), masks)
    problem, x = simulate(physics, rand(3, 1, 8, 8), 0.1), rand(3, 1, 8, 8, seed=1)
    got = provenance(problem, x)
    torch.testing.assert_close(got.measured > 0.5, masks)
    alone = provenance(Problem(operators.Inpainting((1, 8, 8), masks[1]), problem.y[1:2], 0.1), x[1:2])
    for name in ("data", "denoised", "prior", "measured"):
        torch.testing.assert_close(getattr(got, name)[1:2], getattr(alone, name))


def test_the_head_of_a_scan_is_filled_in_where_k_space_is_empty():
    truth = phantom.image((32, 32))
    physics = operators.MultiCoilMRI(sampling.gaussian_points((32, 32), 3, calib=6), birdcage_maps((32, 32), 4))
    got = provenance(simulate(physics, truth, 0.01), truth, probes=4)
    assert 0.4 < got.shares["measured"] < 0.9
    assert got.shares["prior"] < 0.1
    assert got.measured.std() > 0.02            # coils see some places better than others


def test_where_no_coil_sees_nothing_is_filled_in():
    """Fully sampled within a disc: all of that is measured."""
    disc = torch.stack(torch.meshgrid(*[torch.arange(24) - 12.0] * 2, indexing="ij")).norm(dim=0) < 10
    physics = operators.MultiCoilMRI(torch.ones(24, 24), birdcage_maps((24, 24), 4) * disc)
    support = disc.expand(1, 2, 24, 24).float()
    truth = torch.rand(1, 2, 24, 24, generator=torch.Generator().manual_seed(0)) * support
    whole = provenance(simulate(physics, truth, 0.0), truth, probes=4)
    maps, counted = whole.within(support)
    assert counted.shares["measured"] == pytest.approx(1, abs=0.02)
    assert counted.shares["prior"] < 1e-3
    assert whole.shares["measured"] < 0.6
    assert whole.shares["prior"] > 0.1                  # the flat image, where nothing is
    assert maps.prior.shape == truth.shape
    assert not (maps.data * (1 - support)).any()


def test_of_two_sets_of_maps_that_count_apart_each_has_its_own_pixels():
    support = torch.zeros(1, 4, 4, 4)
    support[:, :2, :, :3] = support[:, 2:, :, :1] = 1
    whole = Provenance(support, 0 * support, support, support.mean(1, keepdim=True))
    maps, counted = whole.within(support)
    assert torch.equal(maps.measured, support[:, :1])
    assert counted.measured.shape == (1, 1, 1, 12)
    assert counted.shares["measured"] == 1


def test_shares_and_words():
    flat = torch.full((1, 1, 4, 4), 0.5)
    ripple = torch.tensor([0.1, -0.1]).repeat(8).reshape(1, 1, 4, 4)
    got = Provenance(flat + ripple, ripple / 10, 3 * ripple, torch.full((1, 1, 4, 4), 0.71))
    assert got.shares == pytest.approx({"measured": 0.71, "data": 0.1, "denoised": 0.01, "prior": 0.3}, rel=1e-5)
    assert got.words() == ("The measurement fixes 71 % of the pixels' freedom, with details of 0.10 rms; the prior filled in "
                           "details of 0.30 rms and changed what was measured by 0.01 rms.")
    nothing = Provenance(flat, 0 * flat, 0 * flat, flat * 2).words()
    assert "100 %" in nothing
    assert "filled in nothing" in nothing


def test_another_prior_moves_what_the_data_do_not_fix():
    from invdiff.posterior import PiGDM

    size = (1, 4, 4)
    mask = torch.arange(16).reshape(1, 4, 4) % 2 == 0
    prior = GaussianPrior(torch.full(size, 0.5), 0.01 * torch.eye(16))
    brighter = GaussianPrior(torch.full(size, 0.7), 0.01 * torch.eye(16))
    problem = Problem(operators.Inpainting(size, mask), (mask * 0.5)[None], 1e-3)

    def draw(prior, seed=1):
        return restore(problem, prior, PiGDM(steps=20), samples=16, seed=seed, batch_size=16).samples

    shifts = prior_shift(draw(prior, 0), {"brighter": brighter, "same": prior}, draw)
    torch.testing.assert_close(shifts["brighter"].map[0, mask], torch.zeros(8), rtol=0, atol=0.02)
    assert shifts["brighter"].map[0, ~mask].mean() == pytest.approx(0.2, abs=0.03)
    assert shifts["brighter"].rms > 3 * shifts["brighter"].expected
    assert shifts["same"].rms == pytest.approx(shifts["same"].expected, rel=0.6)
    assert prior_shift(torch.zeros(1, 1, *size), {"a": prior}, lambda _: torch.ones(1, 1, *size))["a"].expected is None
    with pytest.raises(InputError, match="a: expected samples"):
        prior_shift(torch.zeros(1, 2, *size), {"a": prior}, lambda _: torch.ones(1, 2, 1, 4, 5))


def test_refusals():
    x = rand(1, 1, 8, 8)
    nonlinear = simulate(operators.HighDynamicRange((1, 8, 8)), x, 0.1)
    with pytest.raises(InputError, match="HighDynamicRange is not linear"):
        provenance(nonlinear, x)
    problem = simulate(operators.Denoising((1, 8, 8)), x, 0.1)
    with pytest.raises(InputError, match="expected restorations"):
        provenance(problem, x[0])
    with pytest.raises(InputError, match="probes >= 1"):
        provenance(problem, x, probes=0)
    with pytest.raises(InputError, match="spread > 0"):
        provenance(problem, x, spread=0.0)


@pytest.mark.parametrize("boundary", ["valid", "replicate"])
def test_what_is_nearly_a_circular_filter_takes_few_iterations(boundary):
    """Out of focus, and so little noise that plain conjugate gradients take 500."""
    size, noise = (1, 40, 44), 0.0008
    physics = operators.blur(size, operators.disc_kernel(3.0), boundary)
    problem = simulate(physics, rand(1, *size), noise)
    exact, before = resolution(problem, size), problem.calls.operator
    got = provenance(problem, rand(1, *size, seed=1), effort=200)
    assert problem.calls.operator - before < (1000 if boundary == "valid" else 3500)        # plain CG: 10000 and 11000
    assert float(got.measured.mean()) == pytest.approx(float(exact.mean()), abs=0.015)


def test_probes_that_cost_much_are_few():
    physics = operators.blur((1, 24, 24), operators.disc_kernel(2.0), "valid")
    problem, x = simulate(physics, rand(1, 1, 24, 24), 0.001), rand(1, 1, 24, 24)
    four, many = (provenance(problem, x, probes=probes).measured for probes in (4, 16))
    assert torch.equal(provenance(problem, x, effort=1).measured, four)
    assert torch.equal(provenance(problem, x, effort=10**6).measured, many)
    assert not torch.equal(four, many)


@pytest.mark.parametrize("boundary", ["valid", "replicate", "zero"])
def test_without_noise_what_is_pulled_back_explains_a_rounded_measurement(boundary):
    physics = operators.blur((1, 48, 48), operators.disc_kernel(2.2), boundary)
    y = (physics.A(rand(1, 1, 48, 48)) * 255).round() / 255
    x = damped_least_squares(Problem(physics, y, 0.0), y, 0.0, 1e-5).x
    assert float((y - physics.A(x)).norm() / y.norm()) < 3e-3
