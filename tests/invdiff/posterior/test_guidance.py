"""Guidance rules on Gaussian priors, where E[x0 | x, y] and the posterior are known."""

import pytest
import torch
from toys import (
    OPERATORS,
    Steep,
    assert_moments_close,
    coloured_prior,
    draw,
    natural_prior,
    pose,
    sample,
    tweedie,
    white_prior,
)

from invdiff.diffusion.integrators import DDIM, DPMSolverPP, Heun
from invdiff.posterior import DiffPIR, MomentMatching, PiGDM

EXACT_CG = {"cg_tolerance": 1e-5, "cg_iterations": 200}
FLOW = DPMSolverPP(eta=0.0)


def noisy_states(prior, sigma, count=3):
    generator = torch.Generator().manual_seed(7)
    return draw(prior, count, 5) + sigma * torch.randn(count, *prior.mean.shape, generator=generator)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.0, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("make", [natural_prior, coloured_prior], ids=["natural", "coloured"])
def test_moment_matching_is_tweedie_with_a_measurement(operator, sigma_y, make):
    """E[x0 | x, y], exactly, for any stationary Gaussian prior and any noise level; in float32."""
    prior = make()
    problem = pose(operator, prior, sigma_y)
    if sigma_y == 0 and operator == "blur":
        pytest.skip("float32 decides what is left of the smallest singular values")
    rule = MomentMatching(**EXACT_CG).posterior_denoiser(prior, problem.rows(torch.zeros(3, dtype=torch.long)))
    for sigma in (5.0, 0.5, 0.1, 0.02):
        x = noisy_states(prior, sigma)
        exact = tweedie(prior, problem, x, sigma)
        moved = (exact - prior(x, sigma)).norm()
        assert moved > 1e-3
        assert (rule(x, sigma) - exact).norm() < 2e-3 * moved + 1e-4


@pytest.mark.parametrize("operator", OPERATORS)
def test_pigdm_moves_no_further_than_the_largest_power_allows(operator):
    """A white prior's correction is as long as that; a Jacobian that is too large must not lengthen it."""
    prior = white_prior()
    problem = pose(operator, prior, 0.05).rows(torch.zeros(3, dtype=torch.long))
    rules = [PiGDM().posterior_denoiser(one, problem) for one in (prior, Steep(prior, 300.0))]
    for sigma in (5.0, 0.1):
        x = noisy_states(prior, sigma)
        plain, steep = (rule(x, sigma) for rule in rules)
        torch.testing.assert_close(steep, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.01, 0.05, 0.5])
def test_pigdm_is_tweedie_with_a_measurement_for_a_white_prior(operator, sigma_y):
    prior = white_prior()
    problem = pose(operator, prior, sigma_y)
    rule = PiGDM().posterior_denoiser(prior, problem.rows(torch.zeros(3, dtype=torch.long)))
    for sigma in (5.0, 0.5, 0.1, 0.02):
        x = noisy_states(prior, sigma)
        exact = tweedie(prior, problem, x, sigma)
        assert (rule(x, sigma) - exact).norm() < 2e-3 * (exact - prior(x, sigma)).norm() + 1e-4


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.0, 0.05])
def test_pigdm_moves_along_the_jacobian_of_the_prior(operator, sigma_y):
    """sigma^2 dD/dx^T A^T (r^2 A A^T + sigma_y^2 I)^-1 (y - A D) by dense algebra; sigma^2 dD/dx = Cov[x0 | x]."""
    prior, sigma = natural_prior(), 0.3
    problem = pose(operator, prior, sigma_y)
    n = prior.mean.numel()
    a = problem.physics.A(torch.eye(n).reshape(n, *prior.mean.shape)).flatten(1).double().T
    cov = prior.cov.double()
    error = cov - cov @ torch.linalg.inv(cov + sigma**2 * torch.eye(n)) @ cov
    variance = float(torch.linalg.eigvalsh(error).max())
    x = noisy_states(prior, sigma, 1)
    x0 = prior(x, sigma)
    residual = (problem.y - problem.physics.A(x0)).double().flatten()
    gram = variance * a @ a.T + max(sigma_y, 1e-6) ** 2 * torch.eye(len(a))
    expected = x0.double().flatten() + error @ a.T @ torch.linalg.solve(gram, residual)
    got = PiGDM().posterior_denoiser(prior, problem)(x, sigma).double().flatten()
    assert (got - expected).norm() < 2e-3 * (expected - x0.flatten()).norm()


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.05, 0.5])
def test_diffpir_takes_the_proximal_step_of_its_paper(operator, sigma_y):
    """argmin |y - A x|^2 / (2 sigma_y^2) + strength |x - D|^2 / (2 sigma^2) (Zhu et al. 2023, Eq. 13), by its gradient."""
    prior, sigma, strength = natural_prior(), 0.3, 4.0
    problem = pose(operator, prior, sigma_y)
    x = noisy_states(prior, sigma, 1)
    got = DiffPIR(strength=strength).posterior_denoiser(prior, problem)(x, sigma)
    pull = problem.physics.A_adjoint(problem.y - problem.physics.A(got)) / sigma_y**2
    hold = strength * (prior(x, sigma) - got) / sigma**2
    assert pull.norm() > 0.01
    assert (pull + hold).norm() < 2e-3 * pull.norm()


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.01, 0.05, 0.5])
def test_moment_matching_samples_the_posterior(operator, sigma_y):
    """Mean and covariance of 2000 chains along the flow; 40 steps and an end at 0.002 cost up to 4 % of a variance."""
    prior = natural_prior()
    problem = pose(operator, prior, sigma_y)
    samples = sample(MomentMatching(steps=40, sigma_min=0.002, integrator=FLOW, **EXACT_CG), prior, problem, 2000)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.04)


@pytest.mark.parametrize(("integrator", "steps", "discretisation"), [(DPMSolverPP(eta=1), 60, 0.04), (Heun(), 30, 0.04),
                                                                     (DDIM(), 120, 0.06), (DDIM(eta=1), 120, 0.12)], ids=repr)
def test_every_integrator_samples_the_posterior(integrator, steps, discretisation):
    """The second-order ones in few steps, Euler and ancestral steps to first order."""
    prior = natural_prior()
    problem = pose("super-resolution", prior, 0.05)
    samples = sample(MomentMatching(steps=steps, sigma_min=0.003, integrator=integrator), prior, problem, 1500)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=discretisation)


def test_the_defaults_sample_the_posterior():
    """30 steps, loose CG, the default ends: within 10 %, inpainting being the hardest."""
    prior = natural_prior()
    problem = pose("inpainting", prior, 0.05)
    assert_moments_close(sample(MomentMatching(), prior, problem, 2000), *prior.posterior(problem), discretisation=0.1)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("covariance", ["local", "low-rank"])
def test_the_spread_is_right_below_the_last_level(operator, covariance):
    """Data better than sigma_min, 0.01: without a draw at the end, a fifth of the variance where they are seen."""
    prior = natural_prior()
    problem = pose(operator, prior, 0.005)
    samples = sample(MomentMatching(covariance=covariance), prior, problem, 2000)
    mean, cov = prior.posterior(problem)
    assert_moments_close(samples, mean, cov, discretisation=0.1)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (samples.flatten(1) - mean.flatten()).T, upper=False)
    assert whitened.square().mean().item() == pytest.approx(1.0, abs=0.03)       # standard error 0.004


def test_one_step_ends_where_it_begins():
    """At sigma_max, which has next to nothing of the image: all but the data's part of a sample is in the draw."""
    prior = natural_prior()
    problem = pose("inpainting", prior, 0.05)
    mean, cov = prior.posterior(problem)
    samples = sample(MomentMatching(steps=1, cg_tolerance=1e-4, cg_iterations=100), prior, problem, 1000)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (samples.flatten(1) - mean.flatten()).T, upper=False)
    assert whitened.square().mean().item() == pytest.approx(1.0, abs=0.15)


def test_opposite_noise_leaves_the_mean_of_a_pair_as_it_is():
    """What is drawn at the end of one is drawn with the other sign at the end of the other."""
    prior = natural_prior()
    problem = pose("inpainting", prior, 0.005)
    exact = {"cg_tolerance": 1e-6, "cg_iterations": 200}
    sampler, bare = MomentMatching(**exact), MomentMatching(**exact)
    object.__setattr__(bare, "remainder", lambda prior, problem, x0, sigma, draw: torch.zeros_like(x0))
    pairs = [list(s.steps(prior, problem, [3, ~3]))[-1].x0 for s in (sampler, bare)]
    assert (pairs[0] - pairs[1]).abs().max() > 1e-3
    torch.testing.assert_close(pairs[0].mean(0), pairs[1].mean(0), rtol=0, atol=1e-4)


def test_moment_matching_samples_colours():
    prior = coloured_prior()
    problem = pose("inpainting", prior, 0.05)
    samples = sample(MomentMatching(steps=40, sigma_min=0.002, integrator=FLOW, **EXACT_CG), prior, problem, 2000)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.04)


def test_moment_matching_obeys_a_noiseless_measurement():
    """sigma_y = 0: y is reproduced, and what was not seen has the prior's conditional moments."""
    prior = natural_prior()
    problem = pose("inpainting", prior, 0.0)
    samples = sample(MomentMatching(steps=40, sigma_min=0.002, integrator=FLOW, **EXACT_CG), prior, problem, 2000)
    assert (problem.physics.A(samples) - problem.y).abs().max() < 1e-3
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.04)


@pytest.mark.parametrize("operator", OPERATORS)
def test_pigdm_samples_the_posterior_of_a_white_prior(operator):
    prior = white_prior()
    problem = pose(operator, prior, 0.05)
    samples = sample(PiGDM(steps=40, sigma_min=0.002, integrator=FLOW), prior, problem, 2000)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.04)


@pytest.mark.parametrize("operator", OPERATORS)
def test_diffpir_is_tweedie_with_a_measurement_for_a_white_prior(operator):
    """The error of its prior is white, and its power is the variance that the rule takes."""
    prior = white_prior()
    problem = pose(operator, prior, 0.05)
    for sigma in (5.0, 0.5, 0.1, 0.02):
        x = noisy_states(prior, sigma, 1)
        exact = tweedie(prior, problem, x, sigma)
        got = DiffPIR().posterior_denoiser(prior, problem)(x, sigma)
        assert (got - exact).norm() < 2e-3 * (exact - prior(x, sigma)).norm() + 1e-4


@pytest.mark.parametrize("operator", OPERATORS)
def test_diffpir_ends_near_the_noise(operator):
    """Biased: its own misfit is neither the noise's nor zero."""
    prior = natural_prior()
    problem = pose(operator, prior, 0.05)
    samples = sample(DiffPIR(steps=60), prior, problem, 200)
    seen = problem.observed().expand_as(problem.y)
    residual = (problem.y - problem.physics.A(samples))[:, seen[0]].square().mean().sqrt()
    assert 0.5 < residual / 0.05 < 2.5
    prior_residual = (problem.y - problem.physics.A(draw(prior, 200)))[:, seen[0]].square().mean().sqrt()
    assert residual < 0.7 * prior_residual
