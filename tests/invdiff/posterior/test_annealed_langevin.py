"""Annealed Langevin dynamics is exact in its limit, at any epsilon for Gaussians."""

import pytest
from deepinv.physics import Physics
from toys import OPERATORS, assert_moments_close, natural_prior, pose, sample

import operators
from invdiff.errors import InputError
from invdiff.posterior import AnnealedLangevin
from invdiff.posterior.likelihood import squared_norm
from invdiff.problem import Problem


@pytest.mark.parametrize(("operator", "sigma_y", "epsilon"), [*((o, 0.05, 0.8) for o in OPERATORS), ("blur", 0.5, 1.6)])
def test_it_samples_the_posterior_in_its_limit(operator, sigma_y, epsilon):
    """500 chains of 1200 calls. The state follows the levels late by about 2 / epsilon calls: a few per cent."""
    prior = natural_prior()
    problem = pose(operator, prior, sigma_y)
    sampler = AnnealedLangevin(steps=240, inner_steps=5, epsilon=epsilon, sigma_max=2.0)
    assert_moments_close(sample(sampler, prior, problem, 500), *prior.posterior(problem), discretisation=0.06)


class Hidden(Physics):
    """A linear operator that says nothing of it."""

    def __init__(self, physics):
        super().__init__()
        self.physics, self.img_size = physics, physics.img_size

    def A(self, x, **kwargs):
        return self.physics.A(x)


def test_any_operator_by_its_gradient():
    """A A^T = I or 0, so that the number that stands for it where an operator is not linear is exact: the same chain."""
    prior = natural_prior()
    problem = pose("inpainting", prior, 0.1)
    hidden = Problem(Hidden(problem.physics), problem.y, 0.1)
    sampler = AnnealedLangevin(steps=30)
    a, b = sample(sampler, prior, problem, 4), sample(sampler, prior, hidden, 4)
    assert (a - b).abs().max() < 1e-3


def test_the_jacobian_s_norm():
    """Of x^2 at x it is 2 max |x|, from below; of a linear operator that of A, known to be one for this blur."""
    class Squared(Physics):
        img_size = (1, 8, 8)

        def A(self, x, **kwargs):
            return x.square()

    prior = natural_prior()
    x = pose("denoising", prior, 0.0, count=2).y
    exact = 4 * x.square().flatten(1).amax(1)
    got = squared_norm(Problem(Squared(), x.square(), 0.1), x).flatten()
    assert ((got <= 1.001 * exact) & (got > 0.9 * exact)).all()
    assert float(squared_norm(pose("blur", prior, 0.1), x[:1])) == pytest.approx(1.0, rel=0.03)


def test_what_clips_and_rounds_is_refused():
    prior = natural_prior()
    with pytest.raises(InputError, match=r"noisy images, and what Quantization clips .* would work: daps"):
        sample(AnnealedLangevin(steps=2), prior, pose(operators.Quantization((1, 8, 8)), prior, 0.01), 1)
