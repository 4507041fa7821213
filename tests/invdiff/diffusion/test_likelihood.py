"""The flow's likelihood against densities that are known: Gaussians, and mixtures of them."""

import math

import pytest
import torch

from invdiff.diffusion.likelihood import Exact, HeunSteps, Rademacher, log_likelihood
from invdiff.diffusion.randomness import Streams
from invdiff.diffusion.schedules import Karras
from invdiff.errors import InputError
from invdiff.priors.analytic import GaussianPrior, MixturePrior

LOW, HIGH = 0.02, 400.0         # so high that the Gaussian there is the mixture's to 4e-3 nats


def mixture():
    generator = torch.Generator().manual_seed(0)
    means = 0.5 + 0.3 * torch.randn(3, 1, 2, 2, generator=generator, dtype=torch.float64)
    return MixturePrior(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, torch.tensor([0.01, 0.02, 0.005]).double())


def draws(prior, count, sigma, seed=0):
    generator = torch.Generator().manual_seed(seed)
    k = torch.multinomial(prior.weights, count, replacement=True, generator=generator)
    std = (prior.variance[k] + sigma**2).sqrt().reshape(-1, 1, 1, 1)
    return prior.means[k] + std * torch.randn(count, *prior.means.shape[1:], generator=generator, dtype=torch.float64)


def gaussian():
    generator = torch.Generator().manual_seed(1)
    root = 0.3 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    prior = GaussianPrior(torch.rand(1, 2, 3, generator=generator, dtype=torch.float64), root @ root.T)
    law = torch.distributions.MultivariateNormal(prior.mean.flatten(), prior.cov + LOW**2 * torch.eye(6))
    return prior, law, law.sample((8,)).reshape(-1, 1, 2, 3)


@pytest.mark.parametrize(("solver", "tolerance"), [(HeunSteps(steps=400), 5e-3), (HeunSteps(steps=100), 0.05),
                                                   (HeunSteps(steps=100, schedule=Karras()), 0.05)])
def test_a_mixture_s_density_item_by_item(solver, tolerance):
    prior = mixture()
    x = draws(prior, 12, LOW)
    got = log_likelihood(prior, x, range(12), LOW, HIGH, 0.5, 0.3, Exact(), solver)
    torch.testing.assert_close(got, prior.log_prob(x, LOW), rtol=0, atol=tolerance)


def test_a_correlated_gaussian_s_density_and_the_order_of_the_solver():
    """The error falls by 4 where Heun's steps double, and what is left is the other Gaussian at sigma_max, under 1e-4."""
    prior, law, x = gaussian()
    exact, errors = law.log_prob(x.flatten(1)), []
    for steps in (30, 60, 120):
        got = log_likelihood(prior, x, range(8), LOW, HIGH, prior.mean, 0.3, Exact(), HeunSteps(steps=steps))
        errors.append(float((got - exact).abs().mean()))
    assert [math.log2(errors[i] / errors[i + 1]) for i in (0, 1)] == pytest.approx([2, 2], abs=0.2), errors
    assert errors[-1] < 0.05


def test_any_sign_gives_the_trace_of_an_isotropic_gaussian():
    """J is a multiple of the identity there, and v^T v = d."""
    prior = GaussianPrior(torch.full((1, 2, 2), 0.4, dtype=torch.float64), 0.3**2 * torch.eye(4, dtype=torch.float64))
    x = 0.4 + 0.3 * torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, std = torch.tensor([0.4, math.sqrt(0.3**2 + LOW**2)], dtype=torch.float64)
    expected = torch.distributions.Normal(mean, std).log_prob(x).flatten(1).sum(1)
    got = [log_likelihood(prior, x, range(3), LOW, 5.0, 0.4, 0.3, trace, HeunSteps(steps=400))
           for trace in (Rademacher(), Exact())]
    torch.testing.assert_close(got[0], got[1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got[0], expected, rtol=0, atol=5e-4)


@pytest.mark.parametrize("trace", [Rademacher(), Rademacher(count=4)])
def test_random_traces_are_unbiased(trace):
    """1 000 probes for one image, against the exact trace with the same steps."""
    prior, solver = mixture(), HeunSteps(steps=25)
    x = draws(prior, 1, LOW)
    exact = float(log_likelihood(prior, x, [0], LOW, 50.0, 0.5, 0.3, Exact(), solver))
    got = log_likelihood(prior, x.expand(1000, -1, -1, -1), range(1000), LOW, 50.0, 0.5, 0.3, trace, solver)
    assert float(got.std()) > 0.01
    assert float(got.mean()) == pytest.approx(exact, abs=4 * float(got.std()) / 1000**0.5)


def test_more_probes_have_less_variance():
    prior = mixture()
    x = draws(prior, 1, LOW).expand(1000, -1, -1, -1)
    spread = [float(log_likelihood(prior, x, range(1000), LOW, 50.0, 0.5, 0.3, trace, HeunSteps(steps=20)).var())
              for trace in (Rademacher(), Rademacher(count=4))]
    assert spread[1] == pytest.approx(spread[0] / 4, rel=0.3)           # chi^2-like tails: 2.5 standard errors


def test_probes_do_not_know_the_noise_that_came_from_the_same_seeds():
    """With probes that are the signs of the image's own noise the mean is off by many standard errors."""
    prior, n = mixture(), 1500
    x0 = draws(prior, n, 0.0)
    x = x0 + 0.1 * Streams(range(n)).normal((1, 2, 2)).double()
    got = log_likelihood(prior, x, range(n), 0.1, 50.0, 0.5, 0.3, Rademacher(), HeunSteps(steps=40))
    apart = got - prior.log_prob(x, 0.1)
    assert float(apart.mean()) == pytest.approx(0, abs=4 * float(apart.std()) / n**0.5 + 0.005)


def test_an_item_s_result_does_not_depend_on_its_batch():
    prior, solver = mixture(), HeunSteps(steps=8)
    x = draws(prior, 5, LOW)
    seeds = [7, 0, 3, 12, 5]
    together = log_likelihood(prior, x, seeds, LOW, HIGH, 0.5, 0.3, Rademacher(count=2), solver)
    for i in (0, 3):
        alone = log_likelihood(prior, x[i:i + 1], seeds[i:i + 1], LOW, HIGH, 0.5, 0.3, Rademacher(count=2), solver)
        torch.testing.assert_close(alone, together[i:i + 1], rtol=1e-9, atol=1e-9)


def test_single_precision_and_no_grad_are_fine():
    prior = mixture()
    x = draws(prior, 4, LOW)
    exact = log_likelihood(prior, x, range(4), LOW, 40.0, 0.5, 0.3, Exact(), HeunSteps(steps=50))
    with torch.no_grad():
        got = log_likelihood(prior.float(), x.float(), range(4), LOW, 40.0, 0.5, 0.3, Exact(), HeunSteps(steps=50))
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, exact, rtol=1e-3, atol=1e-3)


def test_a_wrong_denoiser_has_a_density_that_sums_to_one():
    """No images have this denoiser: the flow's density in one dimension, integrated over a grid."""
    def wrong(x, sigma):
        sigma = torch.as_tensor(sigma).reshape(-1, 1, 1, 1)
        return 0.2 * torch.tanh(3 * x) / (1 + sigma) + 0.5 * x / (1 + sigma**2)

    grid = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    p = log_likelihood(wrong, grid.reshape(-1, 1, 1, 1), range(1201), 0.05, 30.0, 0.0, 0.5, Exact(), HeunSteps(steps=100)).exp()
    assert float(torch.trapezoid(p, grid)) == pytest.approx(1, abs=2e-3)


def test_bad_calls_are_refused():
    prior = mixture()
    x = draws(prior, 2, LOW)
    with pytest.raises(InputError, match="seeds: expected 2, one for each image, got 3"):
        log_likelihood(prior, x, range(3), LOW, HIGH)
    with pytest.raises(InputError, match=r"expected 0 < sigma_min < sigma_max, got 2\.0 and 1\.0"):
        log_likelihood(prior, x, range(2), 2.0, 1.0)
