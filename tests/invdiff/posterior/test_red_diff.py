"""RED-diff on Gaussian priors, where its iteration is a recursion of a mean and a covariance."""

from itertools import pairwise

import pytest
import torch
from toys import OPERATORS, assert_moments_close, natural_prior, pose, sample

from invdiff.posterior import REDDiff
from invdiff.posterior.likelihood import squared_norm


def recursion(sampler, prior, problem):
    """Mean (n,) and covariance (n, n) of mu over chains, by dense algebra in float64."""
    n = prior.mean.numel()
    a = problem.physics.A(torch.eye(n).reshape(n, *prior.mean.shape)).flatten(1).double().T
    cov, mean, eye = prior.cov.double(), prior.mean.double().flatten(), torch.eye(n, dtype=torch.float64)
    norm = float(squared_norm(problem, prior.mean[None]))
    sigmas = sampler.schedule(sampler.num_steps, sampler.sigma_min, sampler.sigma_max).tolist()
    gain = cov @ torch.linalg.inv(cov + sigmas[0] ** 2 * eye)
    m, v = mean - gain @ mean, sigmas[0] ** 2 * gain @ gain.T
    for sigma, _ in pairwise(sigmas):
        gain = cov @ torch.linalg.inv(cov + sigma**2 * eye)
        error = sigma**2 * gain
        weight = error @ a.T / (problem.sigma_y**2 + float(torch.linalg.eigvalsh(error).max()) * norm)
        slope = eye + sampler.lr * (gain - eye - weight @ a)
        m = slope @ m + sampler.lr * (mean - gain @ mean + weight @ problem.y.double().flatten())
        v = slope @ v @ slope.T + (sampler.lr * sigma) ** 2 * gain @ gain.T
    return m, v


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("lr", [0.3, 1.0])
def test_it_is_the_recursion_of_its_equation(operator, lr):
    prior, sampler = natural_prior(), REDDiff(steps=25, lr=lr)
    problem = pose(operator, prior, 0.05)
    assert_moments_close(sample(sampler, prior, problem, 1500), *recursion(sampler, prior, problem), discretisation=0.002)


@pytest.mark.parametrize("operator", OPERATORS)
def test_in_the_limit_it_is_the_posterior_mean(operator):
    """The most likely image, for a Gaussian: small steps, many of them. By the recursion, which the test above holds to."""
    prior = natural_prior()
    problem = pose(operator, prior, 0.2)
    m, v = recursion(REDDiff(steps=3000, lr=0.05, sigma_min=0.02), prior, problem)
    mean, cov = prior.posterior(problem)
    assert (m - mean.flatten()).norm() < 0.05 * cov.trace().sqrt()
    assert v.trace() < 0.05 * cov.trace()
