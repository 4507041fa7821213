"""DAPS draws x0 given the state and y: exactly for stationary Gaussian priors, and by Langevin dynamics for any operator."""

import pytest
import torch
from deepinv.physics import Physics
from toys import OPERATORS, assert_moments_close, coloured_prior, draw, natural_prior, pose, sample

import operators
from invdiff.config import build_sampler
from invdiff.posterior import DAPS
from invdiff.posterior.likelihood import GivenData
from invdiff.problem import Problem
from invdiff.simulation import simulate


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.01, 0.05, 0.5])
def test_it_samples_the_posterior(operator, sigma_y):
    """In a few steps: each leaves the exact law at its level, but for the first, which takes noise alone for the state."""
    prior = natural_prior()
    problem = pose(operator, prior, sigma_y)
    assert_moments_close(sample(DAPS(steps=20), prior, problem, 1500), *prior.posterior(problem), discretisation=0.02)


def test_colours():
    prior = coloured_prior()
    problem = pose("inpainting", prior, 0.05)
    assert_moments_close(sample(DAPS(steps=20), prior, problem, 1500), *prior.posterior(problem), discretisation=0.02)


class Matrix(Physics):
    """A linear operator that says nothing of it."""

    def __init__(self, physics):
        super().__init__()
        self.physics, self.img_size = physics, physics.img_size

    def A(self, x, **kwargs):
        return self.physics.A(x)


def test_any_operator_by_langevin_dynamics():
    """The same posterior without the operator's transpose. The conditioning of a draw is up to 1 + var(x0) / sigma_y^2."""
    prior = natural_prior()
    problem = pose("inpainting", prior, 0.2)
    hidden = Problem(Matrix(problem.physics), problem.y, 0.2)
    samples = sample(DAPS(steps=20, langevin_steps=60), prior, hidden, 1000)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.05)


@pytest.mark.parametrize("integrator", ["dpm_solver_pp", "dpmpp_3m", "dpm_solver", "heun", "rk45"])
def test_the_flow_takes_any_integrator(integrator):
    """The last flow begins at the lowest level: there is no way to go, and no length of a step to divide by."""
    prior = natural_prior()
    problem = pose("denoising", prior, 0.2)
    names = {"name": "daps", "steps": 20, "ode_steps": 5, "integrator": {"name": integrator}}
    assert sample(build_sampler(names), prior, problem, 2).isfinite().all()


def test_their_r_does_not_ask_the_prior():
    """r = 1 takes sigma^2 for the variance of x0 given x: too much, so that the data weigh more and the samples spread more."""
    prior = natural_prior()
    problem = pose("denoising", prior, 0.2)
    ours, theirs = (sample(s, prior, problem, 500) for s in (DAPS(steps=20), DAPS(steps=20, r=1.0, ode_steps=5)))
    exact = prior.posterior(problem)[1].trace()
    assert torch.cov(ours.flatten(1).T).trace() / exact == pytest.approx(1, abs=0.1)
    assert torch.cov(theirs.flatten(1).T).trace() / exact > 1.2


def test_a_nonlinear_operator_is_inverted():
    """|x| from its square, with little noise: misfit near the noise's."""
    class Squared(Physics):
        img_size = (1, 8, 8)

        def A(self, x, **kwargs):
            return x.square()

    prior = natural_prior()
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    problem = Problem(Squared(), draw(prior).square() + 0.05 * noise, 0.05)
    samples = sample(DAPS(), prior, problem, 50)
    assert 0.6 < (problem.y - samples.square()).square().mean().sqrt() / 0.05 < 1.4


class Cubed(Physics):
    """Nearly flat around zero, and steeper and steeper beside it."""

    img_size = (1, 4, 4)

    def A(self, x, **kwargs):
        return 20 * x**3


def test_langevin_dynamics_do_not_run_away_where_the_operator_steepens():
    x = torch.full((2, 1, 4, 4), 0.8)
    problem, generator = Problem(Cubed(), Cubed().A(x), 0.05), torch.Generator().manual_seed(0)
    drawn = GivenData(problem, 300)(0.05 + 0 * x, torch.ones(1, 4, 3),
                                    lambda shape: torch.randn(2, *shape, generator=generator))
    # there the likelihood alone has a standard deviation of 0.05 / (60 * 0.8^2) = 0.0013
    assert (drawn - x).abs().max() < 5 * 0.0013


@pytest.mark.parametrize(("physics", "share"), [(operators.JPEG((1, 32, 32), 10), 1.1),
                                                (operators.Quantization((1, 32, 32), 2), 0.6)])
def test_a_made_up_gradient_does_not_heat_the_chain(physics, share):
    """Of the measurement's squared error the mean has 1 and a half, as without noise. Weighed against noise: 2.5 and 0.8."""
    prior = natural_prior(physics.img_size)
    truth = draw(prior)
    problem = simulate(physics, truth, 0.01)
    error = (sample(DAPS(steps=20), prior, problem, 4).mean(0) - truth).square().mean()
    assert error < share * (problem.y - truth).square().mean()


def test_noise_as_large_as_the_steps_is_no_rounding():
    prior = natural_prior((1, 32, 32))
    problem = simulate(operators.Quantization((1, 32, 32), 6), draw(prior), 0.05)
    assert problem.rounded() is problem
