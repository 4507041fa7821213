"""The bound's terms against KL divergences written out, and its sum against Gaussian and mixture densities."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from invdiff.diffusion.bounds import continuous_bound, discrete_bound
from invdiff.diffusion.elbo import MarkovChain, prior_kl, vlb_terms
from invdiff.diffusion.randomness import Streams
from invdiff.diffusion.schedules import LogLinear, chain_sigmas, linear_chain
from invdiff.errors import InputError
from invdiff.priors.analytic import GaussianPrior, MixturePrior

DDPM = MarkovChain(chain_sigmas(linear_chain(1000)))


def geometric(steps, low, high, unit=0.5):
    return MarkovChain(LogLinear()(steps, low, high)[:-1].flip(0), unit)


def gaussian(count, std=0.3, mean=0.4, shape=(1, 2, 2), seed=0):
    """An exact denoiser of N(mean, std^2 I), and images."""
    size = math.prod(shape)
    prior = GaussianPrior(torch.full(shape, mean, dtype=torch.float64), std**2 * torch.eye(size, dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    return prior, mean + std * torch.randn(count, *shape, generator=generator, dtype=torch.float64)


def points(count, seed=0):
    """20 images of three 8-bit values, close to each other, with probabilities that are known, and draws of them."""
    generator = torch.Generator().manual_seed(1)
    means = torch.randint(100, 130, (20, 1, 1, 3), generator=generator).double() / 255
    prior = MixturePrior(torch.rand(20, generator=generator, dtype=torch.float64) + 0.2, means, 0.0)
    k = torch.multinomial(prior.weights, count, replacement=True, generator=torch.Generator().manual_seed(seed))
    return prior, means[k], prior.weights[k].log()


def standard_error(values):
    return float(values.std()) / len(values) ** 0.5


def test_the_chain_is_ddpm_s():
    """In z = a x / 0.5: posterior mean coefficients and variances of Ho et al. 2020, Eq. 7, and beta."""
    beta = np.linspace(1e-4, 0.02, 1000)
    abar = np.cumprod(1 - beta)
    t = torch.tensor([2, 3, 40, 500, 1000])
    i = t.numpy()
    now, before, b = abar[i - 1], abar[i - 2], beta[i - 1]
    # of z_t in the mean of z_{t-1}: keep a_{t-1} / a_t
    keep = DDPM.keep(t).numpy()
    np.testing.assert_allclose(keep * np.sqrt(before / now), np.sqrt(1 - b) * (1 - before) / (1 - now), rtol=1e-10)
    np.testing.assert_allclose((1 - keep) * np.sqrt(before), np.sqrt(before) * b / (1 - now), rtol=1e-8)
    lower, upper = (value.exp().numpy() * before / 0.25 for value in DDPM.log_variances(t))
    np.testing.assert_allclose(lower, b * (1 - before) / (1 - now), rtol=1e-8)
    np.testing.assert_allclose(upper, b, rtol=1e-8)
    first = [float(value.exp()) / 0.25 for value in DDPM.log_variances(torch.tensor([1]))]
    assert first == pytest.approx([beta[1] * (1 - abar[0]) / (1 - abar[1]), beta[0]])


def test_levels_and_steps_map_to_each_other():
    t = torch.tensor([1, 2, 500, 999, 1000])
    assert DDPM.index(DDPM.sigma(t)).tolist() == t.tolist()
    assert DDPM.index(DDPM.sigma(t) * 1.0001).tolist() == t.tolist()
    assert DDPM.index(torch.tensor([1e-6, 1e6])).tolist() == [1, 1000]
    assert float(DDPM.sigma(torch.tensor(0))) == 0
    # in float32 as in float64, every level finds its own step
    every = torch.arange(1, 1001)
    assert (DDPM.index(DDPM.sigma(every).float()) == every).all()


def states(t, seed=0, shape=(1, 3, 3)):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randint(0, 256, (len(t), *shape), generator=generator).double() / 255
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    x_t = x0 + DDPM.sigma(t).reshape(-1, 1, 1, 1) * noise
    return x0, x_t, x0 + 0.1 * torch.randn(x0.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("upper", "v"), [(False, None), (True, None), (False, -1.0), (False, 0.3), (True, 1.0)])
def test_terms_are_the_kl_divergences_of_the_two_reverse_steps(upper, v):
    t = torch.tensor([2, 7, 300, 1000])
    x0, x_t, x0_hat = states(t)
    said = None if v is None else torch.full_like(x0, v)
    got = vlb_terms(x0, x_t, t, x0_hat, said, chain=DDPM, upper=upper)
    column = (-1, 1, 1, 1)
    keep = DDPM.keep(t).reshape(column)
    low, high = (value.reshape(column) for value in DDPM.log_variances(t))
    share = float(upper) if v is None else (v + 1) / 2
    q = Normal(keep * x_t + (1 - keep) * x0, (low / 2).exp().expand_as(x0))
    p = Normal(keep * x_t + (1 - keep) * x0_hat, ((low + share * (high - low)) / 2).exp().expand_as(x0))
    expected = kl_divergence(q, p).flatten(1).sum(1) / (9 * math.log(2))
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-10)


def test_the_first_term_is_the_mass_of_the_level():
    t = torch.tensor([1])
    x0, x_t, _ = states(t)
    x0[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    x0_hat = x0 + 0.003
    std = math.sqrt(float(DDPM.log_variances(t)[1].exp()))
    law = Normal(x0_hat, std)
    half = 0.5 / 255
    mass = torch.where(x0 == 1, 1.0, law.cdf(x0 + half)) - torch.where(x0 == 0, 0.0, law.cdf(x0 - half))
    got = vlb_terms(x0, x_t, t, x0_hat, chain=DDPM, upper=True)
    assert float(got) == pytest.approx(float(-mass.log2().mean()), rel=1e-6)


def test_the_variance_trains_and_the_mean_is_held():
    t = torch.tensor([1, 2, 900])
    x0, x_t, x0_hat = (value.float() for value in states(t))
    for freeze in (True, False):
        mean, v = x0_hat.clone().requires_grad_(), torch.zeros_like(x0).requires_grad_()
        vlb_terms(x0, x_t, t, mean, v, chain=DDPM, freeze_mean=freeze).sum().backward()
        assert bool(v.grad.isfinite().all())
        assert bool((v.grad != 0).all())
        assert (mean.grad is None) == freeze
    mean = x0_hat.clone().requires_grad_()
    vlb_terms(x0, x_t, t, mean, chain=DDPM).sum().backward()
    assert bool((mean.grad != 0).any())


def test_training_v_finds_the_variance_of_the_data():
    """For N(0.5, s^2) the best variance is (s^2 + sigma_{t-1}^2) (sigma_t^2 - sigma_{t-1}^2) / (s^2 + sigma_t^2): found
    from 4 000 images to 3 % of it."""
    std, t = 0.1, torch.full((4000,), 60)
    prior, x0 = gaussian(4000, std, 0.5)
    sigma = DDPM.sigma(t)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x_t = x0 + sigma.reshape(-1, 1, 1, 1) * noise
    x0_hat, v = prior(x_t, sigma), torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([v], line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = vlb_terms(x0, x_t, t, x0_hat, v.expand_as(x0), chain=DDPM).mean()
        value.backward()
        return value

    optimiser.step(loss)
    low, high = (value[0] for value in DDPM.log_variances(t))
    before, now = float(DDPM.sigma(t - 1)[0]) ** 2, float(sigma[0]) ** 2
    best = (std**2 + before) * (now - before) / (std**2 + now)
    assert float((low + (v.detach() + 1) / 2 * (high - low)).exp()) == pytest.approx(best, rel=0.03)


def test_prior_kl():
    x0 = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    expected = kl_divergence(Normal(x0, 3.0), Normal(0.5, math.sqrt(9 + 0.25**2))).flatten(1).sum(1)
    torch.testing.assert_close(prior_kl(x0, 3.0, 0.5, 0.25), expected)


@pytest.mark.parametrize("steps", [2, 5, 40])
def test_kl_terms_of_a_gaussian_sum_to_the_information_in_x_1(steps):
    """With the upper variance for its standard deviation the reverse chain is exact, whatever T: prior + diffusion is
    E log q(x_1 | x0) / p(x_1) = d / 2 log(1 + s^2 / sigma_1^2)."""
    prior, x0 = gaussian(1500)
    bound = discrete_bound(prior, x0, range(1500), geometric(steps, 0.1, 30.0, unit=0.3), 0.4, 0.3, upper=True)
    total = bound.prior + bound.diffusion
    assert float(total.mean()) == pytest.approx(2 * math.log(1 + 0.3**2 / 0.1**2), abs=4 * standard_error(total))
    torch.testing.assert_close(bound.by_level.sum(1), bound.diffusion)


def test_the_lower_variance_costs_less_with_more_steps():
    """What it costs a Gaussian is d / 2 (w - 1 - log w) a step, w = upper / lower, and falls as 1 / T."""
    prior, x0 = gaussian(400)
    exact, excess = 2 * math.log(1 + 0.3**2 / 0.1**2), []
    for steps in (20, 40, 80):
        chain = geometric(steps, 0.1, 30.0, unit=0.3)
        bound = discrete_bound(prior, x0, range(400), chain, 0.4, 0.3)
        low, high = chain.log_variances(torch.arange(2, steps + 1))
        wider = (high - low).exp()
        excess.append(float(2 * (wider - 1 - wider.log()).sum()))
        total = bound.prior + bound.diffusion - exact
        assert float(total.mean()) == pytest.approx(excess[-1], abs=4 * standard_error(total))
    assert excess[0] / excess[1] == pytest.approx(2, rel=0.15)
    assert excess[1] / excess[2] == pytest.approx(2, rel=0.1)


def test_in_continuous_time_the_bound_is_the_log_density_of_a_gaussian():
    n = 1500
    prior, x0 = gaussian(n)
    bound = continuous_bound(prior, x0, range(n), 0.05, 30.0, 0.4, 0.3)
    exact = 2 * math.log(2 * math.pi * math.e * (0.3**2 + 0.05**2))          # entropy of x0 + 0.05 n in four dimensions
    assert float(bound.total.mean()) == pytest.approx(exact, abs=4 * standard_error(bound.total))


def mixture(count):
    means = 0.5 + 0.3 * torch.randn(3, 1, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = MixturePrior(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, 0.01)
    generator = torch.Generator().manual_seed(2)
    k = torch.multinomial(prior.weights, count, replacement=True, generator=generator)
    return prior, means[k] + 0.1 * torch.randn(count, 1, 1, 4, generator=generator, dtype=torch.float64)


def test_the_bound_is_tight_for_a_mixture_and_loose_for_a_wrong_denoiser():
    """ELBO <= log-likelihood, with equality where the denoiser is exact (Song et al. 2021, Theorem 3)."""
    n = 2000
    prior, x0 = mixture(n)
    z = x0 + 0.05 * Streams(range(n)).normal((1, 1, 4)).double()
    exact = -prior.log_prob(z, 0.05)

    def wrong(x, sigma):
        return 0.9 * prior(x, sigma) + 0.05

    for denoiser in (prior, wrong):
        gap = continuous_bound(denoiser, x0, range(n), 0.05, 60.0, 0.5, 0.3).total - exact
        if denoiser is prior:
            assert float(gap.mean()) == pytest.approx(0, abs=4 * standard_error(gap) + 0.005)
        else:
            # what it adds is the integral of |D_wrong - D|^2 / sigma^2 over log sigma, well above noise
            assert float(gap.mean()) > 10 * standard_error(gap)


def test_the_discrete_bound_falls_towards_the_probability_of_8_bit_images():
    n = 200
    prior, x0, log_p = points(n)
    gaps = []
    for steps in (30, 100, 400):
        gap = discrete_bound(prior, x0, range(n), geometric(steps, 0.0008, 10.0, 0.035), 0.45, 0.035).total + log_p
        assert float(gap.mean()) > -4 * standard_error(gap)
        gaps.append(float(gap.mean()))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    assert gaps[2] < 0.3         # nats, of about 3


def test_in_continuous_time_8_bit_images_take_their_probability_and_what_the_decoder_costs():
    n = 1500
    prior, x0, log_p = points(n)
    for sigma, loss in ((0.0006, 0.02), (0.002, 3.0)):
        z = x0 + sigma * Streams(range(n)).normal((1, 1, 3)).double()
        bound = continuous_bound(prior, x0, range(n), sigma, 10.0, 0.45, 0.035, z=z)
        gap = bound.total + log_p
        assert -4 * standard_error(gap) < float(gap.mean()) < loss + 4 * standard_error(gap)


def test_a_few_of_the_steps_estimate_all_of_them():
    n = 600
    prior, x0, _ = points(n)
    chain = geometric(100, 0.001, 10.0)
    every = discrete_bound(prior, x0, range(n), chain).diffusion
    some = discrete_bound(prior, x0, range(n), chain, draws=8)
    assert some.by_level.shape == some.levels.shape == (n, 8)
    error = math.hypot(standard_error(every), standard_error(some.diffusion))
    assert float(some.diffusion.mean()) == pytest.approx(float(every.mean()), abs=4 * error)


def test_an_item_s_bound_does_not_depend_on_its_batch():
    prior, x0, _ = points(6)
    chain = geometric(12, 0.001, 10.0)
    for bound in (lambda x, seeds: discrete_bound(prior, x, seeds, chain, draws=5).total,
                  lambda x, seeds: continuous_bound(prior, x, seeds, 0.001, 10.0, draws=5).total):
        torch.testing.assert_close(bound(x0, range(6))[4:5], bound(x0[4:5], [4]), rtol=1e-10, atol=1e-10)


def test_bad_calls_are_refused():
    prior, x0, _ = points(2)
    with pytest.raises(InputError, match="chain: expected noise levels that rise from above 0"):
        MarkovChain(torch.tensor([0.0, 1.0]))
    with pytest.raises(InputError, match="chain: expected noise levels that rise"):
        MarkovChain(torch.tensor([2.0, 1.0]))
    with pytest.raises(InputError, match="seeds: expected 2, one for each image, got 1"):
        continuous_bound(prior, x0, [0], 0.01, 1.0)
    with pytest.raises(InputError, match=r"bound: expected 0 < sigma_min < sigma_max and draws >= 1, got 1\.0, 0\.5 and 32"):
        continuous_bound(prior, x0, [0, 1], 1.0, 0.5)
