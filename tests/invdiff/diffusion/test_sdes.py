"""A linear SDE dz = f z dt + g dW has z_t | u ~ N(a u, s^2), with a' = f a and (s^2)' = 2 f s^2 + g^2."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.integrate import solve_ivp

from invdiff.diffusion.learned import LearnedRate, fit, vlb_integrand
from invdiff.diffusion.rates import CosineRate, LinearRate, SigmoidRate
from invdiff.diffusion.sdes import EDM, VE, VP, Flow, SubVP, even_in_time
from invdiff.errors import InputError

LEARNED = LearnedRate(0.002, 40.0, seed=3).requires_grad_(False)
ALL = [VP(), VP(rate=CosineRate()), VP(rate=SigmoidRate()), VP(rate=SigmoidRate(start=0, tau=0.8)), VP(rate=LEARNED),
       SubVP(), SubVP(rate=CosineRate()), VE(), VE(unit=0.5, centre=0.5), EDM(), Flow()]
NAMES = ["vp-linear", "vp-cosine", "vp-sigmoid", "vp-sigmoid-0", "vp-learned", "subvp-linear", "subvp-cosine", "ve", "ve-unit",
         "edm", "flow"]
each = pytest.mark.parametrize("process", ALL, ids=NAMES)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@each
def test_a_and_s_solve_the_sde_s_moment_equations(process):
    """Integrated numerically from t = 0.01 to 0.97."""
    first, last = 0.01, 0.97
    start = [float(process.log_a(first)), float(process.s(first)) ** 2]

    def moments(t, y):
        f = float(process.f(t))
        return [f, 2 * f * y[1] + float(process.g2(t))]

    done = solve_ivp(moments, (first, last), start, rtol=1e-10, atol=1e-14, t_eval=[0.1, 0.5, last])
    t = torch.from_numpy(done.t)
    np.testing.assert_allclose(process.log_a(t), done.y[0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(process.s(t).square(), done.y[1], rtol=1e-7)


@each
def test_one_jump_is_any_number_of_steps(process):
    """factors and variances composed over 50 uneven steps are those of q(z_t | u)."""
    times = torch.linspace(0.05, 0.98, 51, dtype=torch.float64) ** 2
    a, variance = process.a(times[0]), process.s(times[0]) ** 2
    for earlier, t in pairwise(times):
        factor, std = process.transition(earlier, t)
        a, variance = factor * a, factor**2 * variance + std**2
        torch.testing.assert_close(a, process.a(t), rtol=1e-10, atol=0)
        torch.testing.assert_close(variance, process.s(t) ** 2, rtol=1e-10, atol=0)


@each
def test_chains_of_steps_have_the_moments_of_the_jump(process):
    """20 000 chains leave sqrt(1 / n) of the mean and sqrt(2 / n) of the variance, at 4 standard errors."""
    n = 20_000
    generator = torch.Generator().manual_seed(0)
    u = torch.full((n, 1), 1.5)
    times = [0.02, 0.1, 0.4, 0.7, 0.95]
    z = process.jump(u, times[0], torch.randn(n, 1, generator=generator))
    for earlier, t in pairwise(times):
        z = process.step(z, earlier, t, torch.randn(n, 1, generator=generator))
    jump = process.jump(u, times[-1], torch.randn(n, 1, generator=generator))
    s = float(process.s(0.95))
    for state in (z, jump):
        assert float(state.mean()) == pytest.approx(1.5 * float(process.a(0.95)), abs=4 * s / n**0.5)
        assert float(state.var()) == pytest.approx(s**2, rel=4 * (2 / n) ** 0.5)


@each
def test_the_reverse_posterior_by_bayes(process):
    """q(z_e | z_t, u) is in proportion to q(z_t | z_e) q(z_e | u): precisions and weighted means add."""
    earlier, t = 0.3, 0.55
    z, u = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factor, std = process.transition(earlier, t)
    ahead, own = (factor / std) ** 2, process.s(earlier) ** -2
    mean, spread = process.posterior(z, u, earlier, t)
    torch.testing.assert_close(spread**-2, ahead + own)
    torch.testing.assert_close(mean, (ahead * z / factor + own * process.a(earlier) * u) / (ahead + own))


@each
def test_the_frame_and_back(process):
    """x = x0 + sigma n, whatever the process; times and levels invert each other."""
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.rand(4, 1, 3, 3, generator=generator), torch.randn(4, 1, 3, 3, generator=generator)
    t = double(0.05, 0.3, 0.6, 0.95)
    z = process.jump((image - process.centre) / process.unit, t, noise)
    x, sigma = process.to_frame(z, t)
    torch.testing.assert_close(x, image + sigma.float().reshape(-1, 1, 1, 1) * noise, rtol=1e-4, atol=1e-4)
    again, times = process.from_frame(x, sigma)
    torch.testing.assert_close(times, t, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(again, z, rtol=1e-4, atol=1e-5)
    levels = even_in_time(process, torch.linspace(0, 1, 9, dtype=torch.float64), 0.01, 8.0)
    assert (levels.diff() < 0).all()
    torch.testing.assert_close(levels[[0, -1]], double(8.0, 0.01), rtol=1e-8, atol=0)


@each
def test_the_flow_keeps_the_marginals_of_a_gaussian(process):
    """u ~ N(m, v): E[u | z] = m + a v (z - a m) / (a^2 v + s^2), and the flow takes a m + k sqrt(a^2 v + s^2) along."""
    m, v, k = 0.3, 0.2, 1.7

    def path(t):
        return process.a(t) * m + k * (process.a(t) ** 2 * v + process.s(t) ** 2).sqrt()

    t, h = double(0.4), 1e-5
    z, a = path(t), process.a(t)
    u = m + a * v * (z - a * m) / (a**2 * v + process.s(t) ** 2)
    slope = (path(t + h) - path(t - h)) / (2 * h)
    torch.testing.assert_close(process.flow(z, u, t), slope, rtol=1e-6, atol=1e-8)
    noise = (z - a * u) / process.s(t)
    torch.testing.assert_close(process.score(z, u, t), -noise / process.s(t))
    halfway = (process.reverse_drift(z, u, t) + process.f(t) * z) / 2        # the flow is between forward and reverse drift
    torch.testing.assert_close(process.flow(z, u, t), halfway)


def test_a_straight_flow_s_velocity_is_noise_minus_image():
    t, u, n = double(0.2, 0.9), double(0.4, -1.0), double(1.3, 0.7)
    torch.testing.assert_close(Flow().flow(Flow().jump(u, t, n), u, t), n - u)


@pytest.mark.parametrize("rate", [LinearRate(), CosineRate(), SigmoidRate()])
def test_sub_vp_has_less_noise_than_vp(rate):
    """s_sub = s_vp^2 <= s_vp (Song et al. 2021, Section 3.4), so their kernels' variances are ordered too."""
    t = torch.linspace(0.01, 0.999, 50, dtype=torch.float64)
    vp, sub = VP(rate=rate), SubVP(rate=rate)
    torch.testing.assert_close(sub.s(t), vp.s(t).square())
    assert (sub.s(t) < vp.s(t)).all()
    assert (sub.transition(t[:-1], t[1:])[1] < vp.transition(t[:-1], t[1:])[1]).all()


def test_the_linear_rate_is_the_limit_of_ddpm_s_chain():
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    steps = np.arange(100, 1000, 100)
    np.testing.assert_allclose(2 * VP().log_a(steps / 1000), np.log(alpha_bar[steps - 1]), rtol=0.011)


def test_the_cosine_rate_follows_equation_17():
    t = torch.linspace(0, 0.99, 20, dtype=torch.float64)
    f = np.cos((t.numpy() + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(VP(rate=CosineRate()).a(t) ** 2, f / f[0], rtol=1e-12)


def test_a_close_pair_of_times_loses_no_digits():
    """The kernel's variance over dt is g^2 dt: by differences of s^2, a step of 1e-12 would have no correct digit."""
    _, std = VP().transition(0.5, 0.5 + 1e-10)
    assert float(std**2 / 1e-10) == pytest.approx(float(VP().g2(0.5)), rel=1e-4)


def test_the_learned_schedule_rises_whatever_its_weights():
    t = torch.linspace(0, 1, 400, dtype=torch.float64)
    for seed in range(5):
        rate = LearnedRate(0.01, 20.0, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in rate.parameters():
            parameter.data += 3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        gamma = rate.gamma(t).detach()
        assert (gamma.diff() > 0).all()
        torch.testing.assert_close(rate.sigma(double(0.0, 1.0)).detach(), double(0.01, 20.0))
        slope = (rate.gamma(t + 1e-6) - rate.gamma(t - 1e-6)).detach() / 2e-6
        torch.testing.assert_close(rate.slope_of_gamma(t).detach(), slope, rtol=1e-5, atol=1e-6)


def gaussian_error(sigma, generator, count=16):
    """|n - n_hat|^2 of the exact denoiser of N(0, 0.25^2 I): per number (s^2 n - s sigma u) / (s^2 + sigma^2)."""
    s, sigma = 0.25, sigma[:, None]
    image, noise = torch.randn(2, len(sigma), count, generator=generator, dtype=torch.float64)
    return ((s**2 * noise - s * sigma * image) / (s**2 + sigma**2)).square().sum(1)


def test_training_the_schedule_lowers_the_variance_of_the_bound_and_not_its_mean():
    """The mean is 16 / 2 log((s^2 + low^2) / low^2 high^2 / (s^2 + high^2)) whatever the schedule. Its variance is at least
    that of a chi^2 of 16 around an even mean, mean^2 / 8, and is mostly the schedule's before."""
    low, high, n = 0.002, 40.0, 20_000
    exact = 8 * np.log(high**2 / low**2 * (0.25**2 + low**2) / (0.25**2 + high**2))
    rate = LearnedRate(low, high)
    t = torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    excess = []
    for trained in (False, True):
        if trained:
            history = fit(rate, gaussian_error, steps=200, batch=128)
            assert np.mean(history[-20:]) < np.mean(history[:20])
        values = vlb_integrand(rate, t, gaussian_error, torch.Generator().manual_seed(2)).detach()
        assert float(values.mean()) == pytest.approx(exact, abs=4 * float(values.std()) / n**0.5)
        excess.append(float(values.var()) - exact**2 / 8)
    assert excess[1] < 0.25 * excess[0], excess


def test_bad_parameters_are_refused():
    with pytest.raises(ValidationError):
        VP(rte=LinearRate())
    with pytest.raises(ValidationError):
        VP(rate="linear")
    with pytest.raises(ValidationError, match="expected low < high"):
        VE(low=2.0, high=1.0)
    with pytest.raises(ValidationError, match="expected start < end"):
        SigmoidRate(start=3, end=3)
    with pytest.raises(InputError, match=r"learned schedule: expected .*, got 3 and 1"):
        LearnedRate(3, 1)
