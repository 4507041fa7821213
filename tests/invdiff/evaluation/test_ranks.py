"""Ranks of the truth among posterior samples are uniform for exact samplers, and not for others (Talts et al. 2018)."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from deepinv.models import Denoiser
from scipy.stats import chisquare

import operators
from invdiff.benchmark.exact import draw_gaussian, gaussian_prior
from invdiff.diffusion.randomness import stream_seed
from invdiff.evaluation.ranks import expected_coverage, tarp_ranks
from invdiff.posterior import AnnealedLangevin, MomentMatching, PiGDM, TwistedSMC
from invdiff.priors.analytic import MixturePrior
from invdiff.simulation import simulate

SIZE = (1, 3, 3)
SAMPLES = 9
TOGETHER = 20_000                               # chains
SPREAD = 0.05                                   # of each component of the mixture
BLUR = operators.Blur(SIZE, torch.tensor([[0.0, 0.3, 0.1], [0.1, 0.4, 0.1], [0.0, 0.0, 0.0]]))
LINE = operators.Separable((1, 1, 2), torch.ones(1, 1), torch.tensor([[0.8, 0.6]]))


def statistics(x):
    """The first and the last pixel, the sum, and the energy."""
    flat = x.flatten(1)
    return torch.stack([flat[:, 0], flat[:, -1], flat.sum(1), (flat - 0.5).square().sum(1)], 1)


def gaussian(kind):
    prior = gaussian_prior(kind, SIZE)
    return prior, lambda n, generator: draw_gaussian(prior.mean, prior.cov, n, generator).float().reshape(n, *SIZE), BLUR


def mixture():
    means = 0.5 + torch.tensor([[-0.2, -0.2], [0.2, 0.0], [0.0, 0.2]]).reshape(3, 1, 1, 2)
    prior = MixturePrior(torch.tensor([0.5, 0.3, 0.2]), means, SPREAD**2)

    def draw(n, generator):
        component = torch.multinomial(prior.weights, n, replacement=True, generator=generator)
        return prior.means[component] + SPREAD * torch.randn(n, 1, 1, 2, generator=generator)
    return prior, draw, LINE


def simulated_ranks(draw, prior, physics, sampler, draws, samples):
    """Ranks of the truth's statistics among those of posterior samples, (draws, K) integers from 0 to `samples`."""
    truth = draw(draws, torch.Generator().manual_seed(0))
    problem = simulate(physics, truth, SPREAD, 1)
    chains = torch.arange(draws).repeat_interleave(samples)
    seeds = [stream_seed(0, int(j), i % samples) for i, j in enumerate(chains)]
    found = []
    for part in torch.arange(len(chains)).split(1 if sampler.population else TOGETHER):     # one population's are no strangers
        *_, last = sampler.steps(prior, problem.rows(chains[part]), [seeds[i] for i in part])
        found.append(statistics(last.x0))
    return (torch.cat(found).reshape(draws, samples, -1) < statistics(truth)[:, None]).sum(1)


def uniformity(ranks, samples, bins=None):
    """p-values (K,) of Pearson's chi-squared test that ranks (N, K) or (N,), from 0 to `samples`, are uniform.

    bins: as many as ranks fill with five or more each, if not given; those of unequal width count as such.
    """
    table = ranks.reshape(len(ranks), -1).numpy()
    bins = min(samples + 1, max(2, len(table) // 5)) if bins is None else bins
    edges = np.linspace(0, samples + 1, bins + 1).round()
    expected = np.diff(edges) / (samples + 1) * len(table)
    return np.array([chisquare(np.histogram(column, edges)[0], expected).pvalue for column in table.T])


def p_value(case, sampler, draws=500, samples=SAMPLES):
    """Of all statistics together (Bonferroni)."""
    prior, draw, physics = case
    found = uniformity(simulated_ranks(draw, prior, physics, sampler, draws, samples), samples)
    return min(1.0, float(found.min()) * len(found))


EXACT = {
    "moment_matching, spectral": (gaussian("stationary"), MomentMatching(steps=50, sigma_min=5e-4, cg_tolerance=1e-4)),
    "moment_matching, exact": (gaussian("rough"), MomentMatching(steps=50, sigma_min=5e-4, covariance="exact")),
    "pigdm": (gaussian("white"), PiGDM(steps=50, sigma_min=5e-4)),
    "moment_matching, exact, mixture": (mixture(), MomentMatching(steps=50, sigma_min=1e-3, covariance="exact")),
    "annealed_langevin, mixture": (mixture(), AnnealedLangevin()),
}


@pytest.mark.parametrize("name", EXACT)
def test_ranks_of_an_exact_sampler_are_uniform(name):
    assert p_value(*EXACT[name]) > 0.01


@pytest.mark.slow
def test_ranks_of_populations_are_uniform_where_each_gives_one_sample():
    assert p_value(mixture(), TwistedSMC(steps=20, particles=16, covariance="exact"), draws=500, samples=4) > 0.01


@dataclass
class Broken:
    """A prior's denoiser that thinks there is more noise than there is."""

    prior: Denoiser
    factor: float

    def __call__(self, x, sigma):
        return self.prior(x, self.factor * sigma)

    def error_spectrum(self, channels):
        return self.prior.error_spectrum(channels)


def test_ranks_of_a_broken_sampler_are_not_uniform():
    prior, draw, physics = gaussian("stationary")
    sampler = MomentMatching(steps=50, sigma_min=5e-4, cg_tolerance=1e-4)
    assert p_value((Broken(prior, 1.3), draw, physics), sampler) < 1e-6             # too smooth: too sure
    assert p_value((Broken(prior, 1.0), draw, physics), sampler) > 0.01
    few = MomentMatching(steps=3, sigma_min=5e-4, cg_tolerance=1e-4)                # an integrator far from its limit
    assert p_value((prior, draw, physics), few) < 1e-3


def test_distances_to_a_reference_rank_uniformly_for_the_right_spread_alone():
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(2000, 5, generator=generator)
    references = 2 * torch.randn(2000, 5, generator=generator)
    truth = centre + torch.randn(2000, 5, generator=generator)
    for spread, uniform in ((1.0, True), (0.7, False), (1.4, False)):
        samples = centre[:, None] + spread * torch.randn(2000, 19, 5, generator=generator)
        ranks = tarp_ranks(samples, truth, references)
        assert bool(uniformity(ranks, 19)[0] > 0.01) is uniform
        covered = expected_coverage(ranks, 19, [0.25, 0.5, 0.75])
        near = bool(np.abs(np.array(covered) - [0.25, 0.5, 0.75]).max() < 3 * 0.5 / 2000**0.5)
        assert near is uniform


@pytest.mark.parametrize("samples", [1, 2, 4, 10])
def test_few_exact_samples_cover_every_level(samples):
    """Ranks that are uniform from 0 to S, each as often: the level itself, between the ranks, too."""
    ranks, levels = torch.arange(samples + 1).repeat(3), np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(expected_coverage(ranks, samples, levels), levels, rtol=1e-12)
    assert expected_coverage(torch.full((5,), samples), samples, [0.5]) == [0.0]            # all outside


def test_bins_of_unequal_width_count_as_such():
    ranks = torch.arange(10).repeat(70)[:, None]
    assert uniformity(ranks, 9, bins=3)[0] == pytest.approx(1.0)            # of 3, 4 and 3 ranks
    assert uniformity(torch.zeros(100, 2, dtype=torch.long), 9).shape == (2,)
