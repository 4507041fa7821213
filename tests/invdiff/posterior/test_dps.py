import pytest
import torch
from deepinv.physics import Physics
from toys import draw, natural_prior, pose, sample, tweedie, white_prior

import operators
from invdiff.diffusion.integrators import DDIM
from invdiff.diffusion.schedules import Karras
from invdiff.posterior import DPS


class Squared(Physics):
    """y = x^2, an operator that is not linear."""

    def __init__(self, size):
        super().__init__()
        self.img_size = size

    def A(self, x, **kwargs):
        return x.square()


def misfit(problem, samples):
    return float((problem.y - problem.physics.A(samples)).square().mean().sqrt())


@pytest.mark.parametrize("operator", ["blur", "inpainting", "super-resolution", Squared((1, 8, 8))], ids=str)
def test_it_lowers_the_misfit_of_any_differentiable_operator(operator):
    """Biased: the misfit tends neither to sigma_y nor to zero; it is well below the prior's, and lower for more strength."""
    prior = natural_prior()
    problem = pose(operator, prior, 0.02)
    weak, strong = (misfit(problem, sample(DPS(steps=100, strength=s), prior, problem, 50)) for s in (1e-3, 4.0))
    assert weak == pytest.approx(misfit(problem, draw(prior, 50, seed=3)), rel=0.25)        # hardly guided
    assert strong < 0.6 * weak


def test_a_step_is_an_ancestral_one_and_a_pull_along_the_gradient():
    """Algorithm 1 with the paper's units: on [-1, 1] and in the variance-preserving frame its step is zeta grad |r|."""
    prior = white_prior(std=0.2)
    problem = pose("inpainting", prior, 0.05)
    sampler = DPS(steps=3, strength=0.7, schedule=Karras(), sigma_max=2.0, sigma_min=0.1, integrator=DDIM())
    first, *_ = sampler.steps(prior, problem, [0])
    sigma, after = 2.0, first.sigma
    gain = 0.2**2 / (0.2**2 + sigma**2)
    x = prior.mean + (first.x0 - prior.mean) / gain
    r = problem.y - problem.physics.A(first.x0)
    gradient = -gain * problem.physics.A_adjoint(r) / r.norm()                  # of |y - A D(x)| by x, on [0, 1]
    # u = 2 x - 1 in [-1, 1] and t = u sqrt(alpha_bar): dx = dt / (2 sqrt(alpha_bar_after)), and the misfit there is
    # 2 |r| with d/dt = d/dx / (2 sqrt(alpha_bar))
    root = [(1 + 4 * s**2) ** 0.5 for s in (sigma, after)]                      # 1 / sqrt(alpha_bar)
    length = 0.7 * (1000 / 3) * (64 / (3 * 256 * 256)) ** 0.5 * (root[1] / 2) * 2 * (root[0] / 2)
    expected = first.x0 + after / sigma * (x - first.x0) - length * gradient
    torch.testing.assert_close(first.x, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("sigma_y", [0.01, 0.1, 1.0])
def test_the_default_pull_is_exact_where_the_residual_has_one_component(sigma_y):
    """y is the sum of the pixels, up to a factor, of any stationary prior: E[x0 | x, y] for every level and sigma_y."""
    prior = natural_prior()
    problem = pose(operators.SuperResolution((1, 8, 8), 8), prior, sigma_y)
    for sigma in (2.0, 0.3, 0.05):
        x = draw(prior, 3, 5) + sigma * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(7))
        rule = DPS().posterior_denoiser(prior, problem.rows(torch.zeros(3, dtype=torch.long)))
        exact = tweedie(prior, problem, x, sigma)
        assert (rule(x, sigma) - exact).norm() < 2e-3 * (exact - prior(x, sigma)).norm() + 1e-5


def test_the_default_pull_divides_by_the_expected_residual():
    """sigma^2 J_D^T u / (sigma_y^2 + sigma^2 u^T J_D u / |r|^2) with u = A^T r, by dense algebra."""
    prior, sigma, sigma_y = natural_prior(), 0.3, 0.05
    problem = pose("blur", prior, sigma_y)
    x = draw(prior, 1, 5) + sigma * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    x0 = prior(x, sigma)
    r = problem.y - problem.physics.A(x0)
    u = problem.physics.A_adjoint(r).flatten().double()
    gain = prior.cov.double() @ torch.linalg.inv(prior.cov.double() + sigma**2 * torch.eye(64))
    error = sigma**2 * (u @ gain @ u) / r.double().square().sum()
    expected = x0.flatten() + sigma**2 * gain @ u / (sigma_y**2 + error)
    got = DPS().posterior_denoiser(prior, problem)(x, sigma).flatten().double()
    assert (got - expected).norm() < 1e-3 * (expected - x0.flatten()).norm()


@pytest.mark.parametrize("operator", ["blur", "inpainting", "super-resolution", Squared((1, 8, 8))], ids=str)
@pytest.mark.parametrize("steps", [20, 200])
def test_by_default_the_misfit_is_the_noise_s_in_any_number_of_steps(operator, steps):
    """Measured 0.9 to 1.3 sigma_y."""
    prior = natural_prior()
    problem = pose(operator, prior, 0.05)
    seen = problem.observed().float().mean().sqrt()
    assert 0.7 < misfit(problem, sample(DPS(steps=steps), prior, problem, 50)) / (0.05 * float(seen)) < 1.5
