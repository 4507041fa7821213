import pytest
import torch
from deepinv.physics import Physics
from toys import draw, natural_prior, pose, sample, white_prior

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
