import numpy as np
import pytest
import torch
from deepinv.physics import BlurFFT, DecomposablePhysics, LinearPhysics, MultiCoilMRI, Physics, PoissonNoise, stack
from deepinv.utils import TensorList

import operators
from invdiff.priors.analytic import GaussianPrior
from invdiff.problem import Problem, require
from invdiff.simulation import simulate

SIZE = (1, 6, 8)


def inpainting(keep=0.5):
    return operators.Inpainting(SIZE, operators.random_mask(SIZE, keep))


@pytest.mark.parametrize("sigma_y", [-0.1, float("nan"), float("inf"), None, "0.1"])
def test_a_bad_noise_level_is_refused(sigma_y):
    with pytest.raises(ValueError, match=rf"sigma_y: expected a noise level >= 0 in the measurement's units, got {sigma_y!r}"):
        Problem(inpainting(), torch.zeros(1, *SIZE), sigma_y)


def test_a_noise_level_may_be_a_tensor_but_is_one():
    y = torch.zeros(2, *SIZE)
    assert Problem(inpainting(), y, torch.tensor([0.5])).sigma_y == 0.5
    with pytest.raises(ValueError, match=r"sigma_y: expected one noise level, got 2; .* as Problem\(physics, y\[j : j \+ 1\],"):
        Problem(inpainting(), y, torch.tensor([0.5, 0.25]))


def test_a_measurement_is_a_tensor():
    with pytest.raises(ValueError, match=r"y: expected a tensor \(B, ...\), got ndarray"):
        Problem(inpainting(), np.zeros((1, *SIZE)), 0.1)
    with pytest.raises(ValueError, match=r"y: expected a tensor \(B, ...\), got list"):
        Problem(inpainting(), [torch.zeros(1, *SIZE)], 0.1)


def test_a_stack_of_deepinv_s_is_one_operator_and_its_noise_is_weighed():
    """The posterior of measurements with noise of their own, written down for both: C - C A^T (A C A^T + R)^-1 A C."""
    root = torch.randn(48, 48, generator=torch.Generator().manual_seed(1)) / 20
    prior = GaussianPrior(torch.full(SIZE, 0.4), root @ root.T)
    parts, levels = (operators.GaussianBlur(SIZE, sigma=0.4), inpainting()), (0.05, 0.2)
    x = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0))
    problem = simulate(stack(*parts), x, levels)
    measured = problem.physics.parts.split(problem.y)
    again = Problem(stack(*parts), TensorList(measured), levels)
    torch.testing.assert_close(again.y, problem.y)
    assert again.sigma_y == 0.05
    assert torch.equal(Problem(stack(*parts), TensorList(measured), torch.tensor(levels)).y, again.y)
    assert again.image_shape == SIZE

    eye = torch.eye(48).reshape(48, *SIZE)
    matrix = torch.cat([part.A(eye).flatten(1).T for part in parts]).double()
    noise = torch.cat([torch.full((48,), level**2, dtype=torch.float64) for level in levels]).diag()
    cov = prior.cov.double()
    gain = cov @ matrix.T @ torch.linalg.inv(matrix @ cov @ matrix.T + noise)
    off = torch.cat([y.flatten(1) for y in measured], 1).double() - 0.4 * matrix.sum(1)
    mean, spread = prior.posterior(problem)
    torch.testing.assert_close(mean.flatten(1), 0.4 + off @ gain.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(spread, cov - gain @ matrix @ cov, rtol=0, atol=1e-6)


def test_deepinv_s_coils_may_be_stacked_before_they_are_called():
    mask = torch.ones(1, 1, 6, 8)
    maps = torch.ones(1, 2, 6, 8, dtype=torch.complex64)
    scans = [MultiCoilMRI(mask=mask, coil_maps=maps, img_size=(6, 8)) for _ in range(2)]
    y = [torch.zeros(1, 2, 2, 6, 8)] * 2
    assert Problem(stack(*scans), y, 0.1).image_shape == (2, 6, 8)


def test_a_stack_s_noise_levels_are_all_zero_or_none():
    parts, y = stack(inpainting(), inpainting()), TensorList([torch.zeros(1, *SIZE)] * 2)
    assert Problem(parts, y, (0, 0)).sigma_y == 0
    assert Problem(parts, y, 0.3).sigma_y == 0.3
    with pytest.raises(ValueError, match=r"sigma_y: expected levels that are all 0, or all larger, got \[0.0, 0.1\]"):
        Problem(parts, y, (0, 0.1))
    with pytest.raises(ValueError, match="noise: expected one level for each of 2 operators, got 3"):
        Problem(parts, y, (0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="has PoissonNoise, and simulate adds"):
        simulate(stack(inpainting(), operators.Denoising(SIZE, noise_model=PoissonNoise())), torch.ones(1, *SIZE), 0.1)


def test_an_estimate_does_not_depend_on_its_neighbours():
    """deepinv's iterations end for all of a batch at once, ours for each; and a step of gradients is not of a batch either."""
    class Rows(LinearPhysics):
        matrix = torch.randn(24, 48, generator=torch.Generator().manual_seed(0)) / 7

        def A(self, x, **kwargs):
            return x.flatten(1) @ self.matrix.T

        def A_adjoint(self, y, **kwargs):
            return (y @ self.matrix).reshape(-1, *SIZE)

    class Squared(Physics):
        img_size = SIZE

        def A(self, x, **kwargs):
            return x.square()

    x = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 0.01]).reshape(2, 1, 1, 1)
    linear, squared = simulate(Rows(img_size=SIZE), x, 0.0), simulate(Squared(), x, 0.0)
    assert torch.equal(linear.estimate(), operators.least_squares(linear.physics, linear.y).x)
    alone = torch.cat([squared.rows(torch.tensor([j])).estimate() for j in range(2)])
    torch.testing.assert_close(squared.estimate(), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gain", [0.3, 30.0])
def test_an_estimate_without_a_pseudo_inverse(gain):
    """By gradients, whatever the operator's scale; in closed form where there is one."""
    class Bent(Physics):
        img_size = SIZE

        def A(self, x, **kwargs):
            return gain * x.clamp_min(0) ** 1.5

    x = 0.2 + 0.6 * torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0))
    found = simulate(Bent(), x, 0.0).estimate()
    assert (found - x).square().mean() < 0.05 * (0.5 - x).square().mean()
    known = simulate(inpainting(), x, 0.0)
    assert torch.equal(known.estimate(), known.physics.A_dagger(known.y))


def test_there_is_no_default_noise_level_and_zero_is_legal():
    with pytest.raises(TypeError, match="sigma_y"):
        Problem(inpainting(), torch.zeros(1, *SIZE))
    assert Problem(inpainting(), torch.zeros(1, *SIZE), 0).sigma_y == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_counted(value):
    y = torch.zeros(1, *SIZE)
    y[0, 0, :2, 3] = value
    with pytest.raises(ValueError, match="y: 2 of 48 values are NaN or infinite"):
        Problem(inpainting(), y, 0.1)


def test_a_measurement_of_another_shape_is_refused():
    physics = operators.SuperResolution(SIZE, 2)
    with pytest.raises(ValueError, match=r"y: expected \(B, \*\(1, 3, 4\)\), got \(1, 1, 6, 8\)"):
        Problem(physics, torch.zeros(1, *SIZE), 0.1)
    with pytest.raises(ValueError, match=r"got \(1, 3, 4\)"):
        Problem(physics, torch.zeros(1, 3, 4), 0.1)
    with pytest.raises(ValueError, match=r"y: expected \(B, ...\), got \(5,\); one number for each image is to be \(B, 1\)"):
        Problem(Physics(), torch.zeros(5), 0.1)


def test_the_image_shape_is_known_or_found_or_asked_for():
    problem = Problem(operators.SuperResolution(SIZE, 2), torch.zeros(2, 1, 3, 4), 0.1)
    assert (problem.image_shape, problem.size) == (SIZE, SIZE[1:])
    rows = LinearPhysics(A=lambda x, **kw: x[..., ::2, :], A_adjoint=lambda y, **kw: torch.cat([y, y], -2))
    assert Problem(rows, torch.zeros(2, 1, 3, 8), 0.1).image_shape == SIZE
    with pytest.raises(ValueError, match=r"Physics: img_size is not set; expected \(C, H, W\)"):
        _ = Problem(Physics(), torch.zeros(1, *SIZE), 0.1).image_shape
    with pytest.warns(UserWarning, match="composing"):
        product = operators.Quantization((1, 3, 4)) * operators.SuperResolution(SIZE, 2)
    assert Problem(product, torch.zeros(2, 1, 3, 4), 0.1).image_shape == SIZE


def test_an_image_shape_that_took_the_operator_is_kept():
    asked = []

    def A_adjoint(y, **kwargs):
        asked.append(len(y))
        return torch.cat([y, y], -2)

    problem = Problem(LinearPhysics(A=lambda x, **kw: x[..., ::2, :], A_adjoint=A_adjoint), torch.zeros(2, 1, 3, 8), 0.1)
    assert problem.image_shape == SIZE
    for same in (problem.to("cpu"), problem.rows(torch.tensor([1])), problem.of(problem.y + 1), problem.measured()):
        assert same.image_shape == SIZE
    assert asked == [2]


def test_observed_is_where_the_operator_reaches():
    physics = inpainting()
    problem = Problem(physics, torch.zeros(2, *SIZE), 0.1)
    assert torch.equal(problem.observed().expand(2, *SIZE), (physics.mask > 0).expand(2, *SIZE))
    masks = torch.stack([operators.random_mask(SIZE, 0.5, s) for s in (0, 1)])
    assert torch.equal(Problem(operators.Inpainting(SIZE, masks), torch.zeros(2, *SIZE), 0.1).observed(), masks)
    assert Problem(operators.SuperResolution(SIZE, 2), torch.zeros(1, 1, 3, 4), 0.1).observed().all()


@pytest.mark.parametrize("bend", [lambda x: (x - 0.9).clamp_min(0), lambda x: (0.1 - x).clamp_min(0)])
def test_what_is_zero_for_some_images_alone_is_observed(bend):
    """A sensor with a threshold; what it masks is not."""
    class Sensor(Physics):
        img_size = SIZE

        def A(self, x, **kwargs):
            return bend(x) * (torch.arange(8) % 2)

    assert torch.equal(Problem(Sensor(), torch.zeros(1, *SIZE), 0.1).observed(), (torch.arange(8) % 2 == 1).expand(1, *SIZE))


def test_channels_are_told_apart_once():
    """Whether all have the same done to them; whatever measurement it is asked of."""
    colour, asked = (3, 6, 8), []

    class Gains(LinearPhysics):
        gains = torch.ones(3, 1, 1)

        def A(self, x, **kwargs):
            asked.append(len(x))
            return self.gains * x

    problem = Problem(Gains(img_size=colour), torch.ones(2, *colour), 0.1)
    assert problem.alike
    assert problem.rows(torch.tensor([1])).alike
    assert asked == [2, 2]
    problem.physics.gains = torch.tensor([1.0, 1.0, 1.1])[:, None, None]
    assert not Problem(problem.physics, problem.y, 0.1).alike
    assert not Problem(operators.Colorization(colour), torch.ones(1, 1, 6, 8), 0.1).alike


def test_noise_of_another_kind_is_not_simulated():
    """An operator has it for `physics(x)`. The level of Gaussian noise is what is said."""
    x = torch.rand(1, *SIZE)
    with pytest.raises(ValueError, match="noise_model: Denoising has PoissonNoise, and simulate adds white Gaussian noise"):
        simulate(operators.Denoising(SIZE, noise_model=operators.PoissonNoise(0.1)), x, 0.1)
    known = operators.Denoising(SIZE, noise_model=operators.GaussianNoise(0.5))
    assert torch.equal(simulate(known, x, 0.1).y, simulate(operators.Denoising(SIZE), x, 0.1).y)


def test_simulated_noise_is_white_of_its_level_and_only_where_something_is_measured():
    """8000 values or so: 4 standard errors."""
    size, sigma_y = (1, 100, 160), 0.3
    mask = operators.random_mask(size, 0.5)
    physics, x = operators.Inpainting(size, mask), torch.rand(1, *size)
    problem = simulate(physics, x, sigma_y)
    noise = (problem.y - physics.A(x)) / sigma_y
    assert (problem.y[0][~mask] == 0).all()
    seen = noise[0][mask]
    assert abs(float(seen.mean())) < 4 / len(seen) ** 0.5
    assert abs(float(seen.var()) - 1) < 4 * (2 / len(seen)) ** 0.5
    assert problem.sigma_y == sigma_y


def test_simulation_follows_its_seed():
    physics, x = operators.GaussianBlur(SIZE, sigma=0.4), torch.rand(2, *SIZE)
    zero, again, one = (simulate(physics, x, 0.1, seed=s).y for s in (0, 0, 1))
    assert torch.equal(zero, again)
    assert not torch.equal(zero, one)
    assert not torch.equal(zero[0] - physics.A(x)[0], zero[1] - physics.A(x)[1])
    assert torch.equal(simulate(physics, x, 0.0).y, physics.A(x))


def test_operator_calls_are_counted_over_all_rows():
    problem = Problem(operators.Denoising(SIZE), torch.rand(3, *SIZE), 0.1)
    part = problem.rows(torch.tensor([2, 0]))
    np.testing.assert_array_equal(part.y, problem.y[[2, 0]])
    part.A_adjoint(part.A(part.y))
    problem.to("cpu").A(problem.y)
    assert problem.calls.operator == part.calls.operator == 7
    assert Problem(problem.physics, problem.y, 0.1).calls.operator == 0


def test_double_precision_is_taken_and_left_as_it_was():
    """Samplers work in float32: on a copy of an operator that does not."""
    physics = operators.GaussianBlur(SIZE, sigma=0.4).to(torch.float64)
    problem = simulate(physics, torch.rand(2, *SIZE, dtype=torch.float64), 0.1)
    single = problem.to("cpu")
    assert single.y.dtype == single.A(single.y).dtype == torch.float32
    torch.testing.assert_close(single.A(single.y), problem.A(problem.y).float())
    assert problem.y.dtype == physics.A(problem.y).dtype == torch.float64
    assert single.to("cpu").physics is single.physics
    foreign = LinearPhysics(A=lambda x, **kwargs: x)
    foreign.register_buffer("maps", torch.ones(2, dtype=torch.complex128))
    assert Problem(foreign, problem.y, 0.1).to("cpu").physics.maps.dtype == torch.complex64
    assert foreign.maps.dtype == torch.complex128
    with pytest.raises(ValueError, match=r"y: expected float32, with complex values as two channels, got torch\.complex64"):
        Problem(physics, torch.zeros(1, *SIZE, dtype=torch.complex64), 0.1)


def test_requirements_name_the_operator_and_the_alternatives():
    linear = LinearPhysics(A=lambda x: x)
    assert require(linear, LinearPhysics, "X", "dps") is linear
    assert isinstance(require(BlurFFT(SIZE, torch.ones(1, 1, 1, 1)), DecomposablePhysics, "X", "dps"), BlurFFT)
    with pytest.raises(ValueError, match="X needs an operator with an SVD, and LinearPhysics is none; these would work: dps"):
        require(linear, DecomposablePhysics, "X", "dps")
    with pytest.raises(ValueError, match="X needs a linear operator, and Physics is none; these would work: dps"):
        require(Physics(), LinearPhysics, "X", "dps")
