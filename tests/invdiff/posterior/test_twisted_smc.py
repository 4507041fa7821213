"""Twisted sequential Monte Carlo, against closed-form posteriors and evidences."""

import math

import pytest
import torch
from gaussians import LINEAR, SPREAD, linear, log_evidence, rough_prior
from toys import assert_moments_close, coloured_prior, natural_prior, pose

import operators
from invdiff.evaluation.mixtures import SCALE, mixture_case, sliced_wasserstein
from invdiff.posterior import MomentMatching, TwistedSMC
from invdiff.posterior.twisted_smc import _Particles
from invdiff.priors.analytic import GaussianPrior, operator_matrix
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate


def run(sampler, prior, problem, count):
    *_, last = sampler.steps(prior, problem, range(count))
    return last.x0, last.info


@pytest.mark.parametrize("covariance", ["spectral", "low-rank"])
@pytest.mark.parametrize("sigma_y", [0.002, 0.04, 0.2])
@pytest.mark.parametrize(("operator", "make"), [("blur", natural_prior), ("inpainting", coloured_prior), ("mri", natural_prior),
                                                ("super-resolution", natural_prior)])
def test_three_steps_are_exact_where_the_model_is(operator, make, sigma_y, covariance):
    """A stationary Gaussian prior has its spectrum as C: every weight is 1, and the evidence is p(y), with any particles.

    What is left is the start: 40 is not infinite, worth (spread / 40)^2 of a variance; and conjugate gradients to 1e-5.
    """
    prior = natural_prior((2, 4, 6)) if operator == "mri" else make()
    problem = pose(linear("mri")[0] if operator == "mri" else operator, prior, sigma_y)
    sampler = TwistedSMC(steps=3, covariance=covariance, rank=2, cg_tolerance=1e-5, cg_iterations=200)
    samples, info = run(sampler, prior, problem, 300)
    assert info["effective_share"] > 0.98
    assert abs(info["log_evidence"] - log_evidence(prior, problem)) < 0.02
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.01)


@pytest.mark.parametrize("sigma_y", [0.01 * SPREAD, SPREAD])
@pytest.mark.parametrize("operator", LINEAR)
def test_gaussian_priors_with_the_exact_covariance(operator, sigma_y):
    """Exact where A sees, whatever the steps; beside that white, so that 30 steps cost up to 15 % of the covariance there.

    The evidence of 150 particles of which a share s counts is off by about sqrt((1 / s - 1) / 150), here under 0.03.
    """
    if (operator, sigma_y) == ("multi-coil mri", SPREAD):
        pytest.skip("seconds, for what its low noise shows as well")
    physics, size = linear(operator)
    prior = rough_prior(size)
    problem = pose(physics, prior, sigma_y)
    samples, info = run(TwistedSMC(steps=30, covariance="exact"), prior, problem, 150)
    assert info["effective_share"] > 0.9
    assert abs(info["log_evidence"] - log_evidence(prior, problem)) < 0.05
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.15)


def test_more_steps_take_the_discretisation_away():
    """The same beside the rows, at 200 steps: nothing but sampling error and 3 %."""
    physics, size = linear("random")
    prior = rough_prior(size)
    problem = pose(physics, prior, 0.2 * SPREAD)
    samples, _ = run(TwistedSMC(steps=200, covariance="exact"), prior, problem, 400)
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.03)


def test_the_evidence_along_as_many_directions_as_data():
    """Variances over four decades and gains over two: with columns solved to 1e-3 it was off by hundreds."""
    generator = torch.Generator().manual_seed(3)
    v = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    prior = GaussianPrior(torch.rand(1, 1, 12, generator=generator), (0.09 * (v * torch.logspace(-4, 0, 12)) @ v.T).float())
    rows = torch.linalg.qr(torch.randn(12, 6, generator=generator)).Q * torch.tensor([3, 1, 0.3, 0.1, 0.03, 0.01])
    physics = operators.Separable((1, 1, 12), torch.ones(1, 1), rows.T)
    problem = pose(physics, prior, 1.0)
    _, info = run(TwistedSMC(steps=100, covariance="low-rank", rank=6), prior, problem, 150)
    assert abs(info["log_evidence"] - log_evidence(prior, problem)) < 0.3
    assert info["effective_share"] > 0.5


def mixture_log_evidence(case):
    """log p(y) of a mixture by its definition, (y given component k is Gaussian)."""
    prior, problem = case.prior, case.problem
    a = operator_matrix(problem, prior.means[0])
    gram = float(prior.variance[0]) * a @ a.T + problem.sigma_y**2 * torch.eye(len(a), dtype=torch.float64)
    means = prior.means.flatten(1).double() @ a.T
    parts = torch.distributions.MultivariateNormal(means, gram).log_prob(problem.y.flatten().double())
    return float((parts + prior.weights.double().log()).logsumexp(0))


@pytest.mark.parametrize(("d", "m", "seed"), [(8, 1, 1), (8, 2, 2), (80, 1, 3)])
def test_the_mixtures_of_the_mcgdiff_paper(d, m, seed):
    """Sliced Wasserstein distance within twice the floor plus 0.4, where the prior is 10 away and MomentMatching 3 or so; and
    an evidence within 0.3, three standard errors of 1000 particles whose share falls to a half four times."""
    case = mixture_case(d, m, seed)
    generator = torch.Generator().manual_seed(0)
    exact, again = case.prior.sample_posterior(case.problem, 2000, generator)[0].flatten(1).mul(SCALE).split(1000)
    floor = sliced_wasserstein(exact, again)
    samples, info = run(TwistedSMC(steps=100, covariance="exact"), case.prior, case.problem, 1000)
    assert sliced_wasserstein(samples.flatten(1) * SCALE, exact) < 2 * floor + 0.4
    assert abs(info["log_evidence"] - mixture_log_evidence(case)) < 0.3


def test_resampling_takes_particles_in_proportion_to_their_weights():
    """Systematic: each weight's share of 1000, rounded up or down (Kitagawa 1996); the mean weight goes into the evidence."""
    particles = _Particles(4, [0], torch.device("cpu"))
    weights = torch.tensor([1.0, 2.0, 0.0, 5.0], dtype=torch.float64)
    particles.weigh(weights.log())
    assert math.isclose(particles.share(), 64 / 30 / 4)
    counts = torch.bincount(particles.resample(1000), minlength=4)
    assert ((counts - 125 * weights).abs() <= 1).all()
    assert math.isclose(particles.log_evidence, math.log(2.0))
    assert math.isclose(particles.share(), 1.0)


def test_the_population_may_be_larger_than_what_is_kept():
    prior = natural_prior()
    problem = pose("blur", prior, 0.05)
    few, _ = run(TwistedSMC(steps=4), prior, problem, 3)
    kept, _ = run(TwistedSMC(steps=4, particles=50), prior, problem, 3)
    assert few.shape == kept.shape == (3, 1, 8, 8)
    assert not torch.equal(few, kept)


def test_restore_draws_one_population_for_each_measurement_and_reports_its_evidence():
    prior = natural_prior()
    problem = pose("blur", prior, 0.05, count=2)
    result = restore(problem, prior, TwistedSMC(steps=4), samples=5, batch_size=1, device="cpu")
    infos = result.report["info"]
    assert len(infos) == 2
    for j, info in enumerate(infos):
        assert abs(info["log_evidence"] - log_evidence(prior, problem.rows(torch.tensor([j])))) < 0.05
    assert not torch.equal(result.samples[:, 0], result.samples[:, 1])


def test_different_measurements_are_no_population():
    prior = natural_prior()
    with pytest.raises(ValueError, match="one measurement together"):
        next(TwistedSMC(steps=4).steps(prior, pose("blur", prior, 0.05, count=2), [0, 1]))


def test_the_exact_covariance_is_for_measurements_of_few_values():
    size = (1, 17, 16)
    problem = Problem(operators.Denoising(size), torch.rand(1, *size), 0.1)
    with pytest.raises(ValueError, match=r"at most 256 values, got 272; spectral or low-rank would work"):
        next(TwistedSMC(covariance="exact").steps(natural_prior(), problem, [0]))


def test_the_evidence_of_a_large_measurement_is_not_given():
    prior = natural_prior()
    problem = simulate(operators.Denoising((1, 8, 8)), prior.mean[None], 0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("invdiff.posterior.twists.LARGEST", 10)
        assert run(TwistedSMC(steps=3), prior, problem, 2)[1]["log_evidence"] is None


def test_moment_matching_is_biased_on_a_mixture_and_the_population_mends_it():
    """What docs/samplers.md says of them: guidance alone puts the wrong mass on the components."""
    case = mixture_case(8, 1, 1)
    exact = case.prior.sample_posterior(case.problem, 1000, torch.Generator().manual_seed(0))[0].flatten(1) * SCALE
    guided, _ = run(MomentMatching(steps=50, covariance="exact"), case.prior, case.problem, 1000)
    assert 1.5 < sliced_wasserstein(guided.flatten(1) * SCALE, exact) < 8
