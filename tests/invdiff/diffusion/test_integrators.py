"""A Gaussian x0 ~ N(mean, s^2) has D(x, sigma) = mean + s^2 (x - mean) / (s^2 + sigma^2), a probability flow
x(sigma) = mean + (x_T - mean) sqrt((s^2 + sigma^2) / (s^2 + sigma_T^2)), and the marginals N(mean, s^2 + sigma^2)."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from invdiff.config import PARTS
from invdiff.diffusion.integrators import (
    DDIM,
    DDPM,
    RK45,
    Consistency,
    DPMSolver,
    DPMSolverAdaptive,
    DPMSolverPP,
    DPMSolverPP2S,
    DPMSolverPP3M,
    EDMStochastic,
    EulerMaruyama,
    Heun,
    Langevin,
    PredictorCorrector,
    Renoise,
)
from invdiff.diffusion.randomness import Streams
from invdiff.diffusion.schedules import Karras
from invdiff.priors.analytic import MixturePrior

MEAN, S, HIGH, LOW = 0.4, 0.25, 5.0, 0.02
FLOW = [DDIM(), Heun(), DPMSolver(order=1), DPMSolver(order=2), DPMSolver(), DPMSolverPP(), DPMSolverPP2S(), DPMSolverPP3M()]
ADAPTIVE = [RK45(), DPMSolverAdaptive(order=2), DPMSolverAdaptive()]
SDE = [DDIM(eta=0.5), DDIM(eta=1), DDPM(), DDPM(variance="beta"), DPMSolverPP(eta=1), DPMSolverPP(eta=2),
       EDMStochastic(), EulerMaruyama()]
WIDE = [PredictorCorrector(), Langevin()]           # by a part of the level's variance
ALL = [*FLOW, *ADAPTIVE, *SDE, *WIDE, Renoise(), Consistency()]


class Gaussian:
    def __init__(self):
        self.calls = []

    def __call__(self, x, sigma):
        self.calls.append(sigma)
        sigma = torch.as_tensor(sigma).to(x).reshape(-1, *[1] * (x.ndim - 1))
        return MEAN + S**2 * (x - MEAN) / (S**2 + sigma**2)


def levels(steps, high=HIGH, low=LOW):
    """Even in log sigma, and without the last zero: a step to zero is first order in every method, and is x = D."""
    return torch.logspace(np.log10(high), np.log10(low), steps + 1, dtype=torch.float64)


def to_zero(steps):
    return torch.cat([levels(steps), torch.zeros(1, dtype=torch.float64)])


def no_noise():
    raise AssertionError("a deterministic integrator drew noise")


@pytest.mark.parametrize("integrator", [*FLOW, *ADAPTIVE, Renoise(zeta=0), EDMStochastic(churn=0)], ids=repr)
def test_the_flow_needs_no_noise_and_ends_where_it_does(integrator):
    x, close = torch.tensor([[2.9]], dtype=torch.float64), {"rtol": 1e-3, "atol": 1e-3} if integrator.adaptive else {}
    *steps, _ = integrator.model_copy(update=close)(Gaussian(), to_zero(200), x, no_noise)
    assert len(steps) == 200
    exact = MEAN + (x - MEAN) * ((S**2 + LOW**2) / (S**2 + HIGH**2)) ** 0.5
    assert float(steps[-1].x) == pytest.approx(float(exact), abs=0.005)


@pytest.mark.parametrize("integrator", [*FLOW, *SDE], ids=repr)
def test_marginal_variance_of_a_gaussian(integrator):
    """200 steps leave under 3 % of discretisation; 50 000 chains leave 0.6 % (1 sigma) of a variance."""
    count = 50_000
    generator = torch.Generator().manual_seed(0)
    sigmas = levels(200, high=5.0, low=0.1)

    def noise():
        return torch.randn(count, 1, generator=generator)

    x = MEAN + (S**2 + sigmas[0] ** 2) ** 0.5 * noise()
    for k, step in enumerate(integrator(Gaussian(), sigmas, x.float(), noise)):
        if k in (100, 199):
            variance = S**2 + step.sigma**2
            assert float(step.x.var()) == pytest.approx(variance, rel=0.03 + 3 * (2 / count) ** 0.5)
            assert float(step.x.mean()) == pytest.approx(MEAN, abs=4 * (variance / count) ** 0.5 + 0.005)


@pytest.mark.parametrize("zeta", [0.0, 0.1, 0.3, 1.0])
def test_renoise_narrows_a_gaussian_as_its_theory_says(zeta):
    """Biased: it draws noise around the mean of x0 given x, and a share zeta of it however short the step. On a Gaussian
    the variance v goes to v (s^2 + sigma after sqrt(1 - zeta))^2 / (s^2 + sigma^2)^2 + zeta after^2."""
    count = 50_000
    generator = torch.Generator().manual_seed(0)
    sigmas = levels(100, high=5.0, low=0.1)
    expected = S**2 + float(sigmas[0]) ** 2

    def noise():
        return torch.randn(count, 1, generator=generator)

    steps = Renoise(zeta=zeta)(Gaussian(), sigmas, MEAN + expected**0.5 * noise(), noise)
    for step, (sigma, after) in zip(steps, pairwise(sigmas.tolist()), strict=True):
        kept = (S**2 + sigma * after * (1 - zeta) ** 0.5) / (S**2 + sigma**2)
        expected = expected * kept**2 + zeta * after**2
        assert float(step.x.var()) == pytest.approx(expected, rel=4 * (2 / count) ** 0.5)


@pytest.mark.parametrize(("integrator", "correlation"), [(DDIM(eta=1), 0.1), (DPMSolverPP(eta=1), 0.1),
                                                         (DPMSolverPP(eta=1.2), 0.1**1.44),
                                                         (DDIM(eta=0.5), (1 - 0.5**2 * 0.99) ** 0.5),
                                                         (Renoise(zeta=0.3), 0.7**0.5), (Renoise(zeta=1), 0.0),
                                                         (DDIM(), 1.0)], ids=repr)
def test_a_step_keeps_its_share_of_the_old_noise(integrator, correlation):
    """For a denoiser that knows x0: what is left of the state's noise is eta's and zeta's formula, at the right level."""
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(100_000, 1, generator=generator)
    (step,) = integrator(lambda x, s: torch.zeros_like(x), torch.tensor([2.0, 0.2]), 2.0 * old,
                         lambda: torch.randn(old.shape, generator=generator))
    assert float(step.x.std()) == pytest.approx(0.2, rel=0.01)
    assert float(torch.corrcoef(torch.cat([old, step.x], 1).T)[0, 1]) == pytest.approx(correlation, abs=0.013)


@pytest.mark.parametrize("integrator", ALL, ids=repr)
def test_calls_and_yields_a_step(integrator):
    denoise = Gaussian()
    sigmas = to_zero(6)
    steps = list(integrator(denoise, sigmas, torch.ones(2, 1), lambda: torch.randn(2, 1)))
    assert [s.sigma for s in steps] == sigmas[1:].tolist()
    torch.testing.assert_close(steps[-1].x, steps[-1].x0)                       # at sigma = 0 the state is the estimate
    assert all(s.x.dtype == s.x0.dtype == torch.float32 for s in steps)
    used = sigmas[:-1].tolist()
    if integrator.adaptive:
        assert integrator.calls_per_step is None
        assert steps[-1].info["calls"] == len(denoise.calls) > 7
        return
    assert len(denoise.calls) == 6 * integrator.calls_per_step + 1 + isinstance(integrator, DPMSolverPP3M)
    if isinstance(integrator, Heun):                                            # two a step, one for the step to zero
        used = [s for pair in pairwise(used) for s in pair] + [used[-1]]
    if len(used) == len(denoise.calls) and not isinstance(integrator, EDMStochastic):       # which raises the levels
        assert denoise.calls == used


@pytest.mark.parametrize("integrator", ALL, ids=repr)
def test_the_initial_state_is_left_alone(integrator):
    x = torch.ones(2, 1)
    list(integrator(Gaussian(), levels(3), x, lambda: torch.randn(2, 1)))
    assert (x == 1).all()


@pytest.mark.parametrize("integrator", ALL, ids=repr)
def test_one_interval_at_a_time(integrator):
    """As samplers do that have work of their own between the steps: to a level, and from the last one to zero."""
    for sigmas in ([2.0, 0.5], [0.5, 0.0]):
        denoise = Gaussian()
        (step,) = integrator(denoise, torch.tensor(sigmas, dtype=torch.float64), torch.ones(2, 1), lambda: torch.randn(2, 1))
        assert step.sigma == sigmas[1]
    assert len(denoise.calls) == 1


def mixture(dimensions=2):
    means = torch.tensor([0.2, 0.8]).reshape(2, 1, 1, 1).expand(2, 1, 1, dimensions)
    return MixturePrior(torch.ones(2), means, 0.01)


@pytest.mark.parametrize("integrator", ALL, ids=repr)
def test_a_chain_depends_on_its_own_seed_alone(integrator):
    """Whatever is drawn beside it, to rounding: for the adaptive ones, whose steps are their own, this is the whole point."""
    ends = []
    for seeds in ([3], [1, 3, 4, 0], [0, 1, 2, 3, 5, 6]):
        noise = Streams(seeds)
        x = 0.5 + HIGH * noise.normal((1, 1, 2))
        *_, last = integrator(mixture(), to_zero(12), x, lambda noise=noise: noise.normal((1, 1, 2)))
        ends.append(last.x0[seeds.index(3)])
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ends[2], ends[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("integrator", ADAPTIVE, ids=repr)
def test_each_chain_has_steps_of_its_own(integrator):
    """One starts where the flow is straight, the other between two modes."""
    denoise, levels_seen = mixture(), []

    def watched(x, sigma):
        levels_seen.append(torch.as_tensor(sigma).expand(len(x)))
        return denoise(x, sigma)

    x = torch.tensor([[0.2, 0.2], [0.501, 0.5]]).reshape(2, 1, 1, 2)
    list(integrator(watched, to_zero(1), x, no_noise))
    assert not torch.equal(*torch.stack(levels_seen).T)


@pytest.mark.parametrize("integrator", ADAPTIVE, ids=repr)
def test_the_adaptive_come_to_an_end(integrator):
    """With a denoiser that gives no numbers, and with a tolerance below what float32 can do."""
    *_, last = integrator(lambda x, s: x * torch.nan, to_zero(3), torch.ones(2, 1), no_noise)
    assert last.x.isnan().all()
    strict = integrator.model_copy(update={"rtol": 1e-12, "atol": 1e-12})
    *_, last = strict(Gaussian(), torch.tensor([0.2, 0.1, 0.0], dtype=torch.float64), torch.ones(2, 1), no_noise)
    assert last.x.isfinite().all()


@pytest.mark.parametrize("noise_share", [0.0, 0.5, 2.0])
def test_the_upper_variance_is_that_of_white_images_and_the_lower_one_that_of_a_known_image(noise_share):
    """var(x' | x) for x0 ~ N(MEAN, u^2) with u = 0.5; and for u = 0 (Ho et al. 2020, Sec. 3.2)."""
    sigma, after = 1.5, 1.5 * noise_share / 2.5
    draw = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    for variance, u in (("beta_tilde", 0.0), ("beta", 0.5)):
        (step,) = DDPM(variance=variance)(lambda x, s: torch.zeros_like(x), torch.tensor([sigma, after], dtype=torch.float64),
                                          torch.ones_like(draw), lambda: draw)
        prior = u**2 + after**2
        expected = prior - prior**2 / (u**2 + sigma**2) if after > 0 else 0.0
        assert float(step.x.var()) == pytest.approx(expected, rel=0.02)
        assert float(step.x.mean()) == pytest.approx((after / sigma) ** 2, abs=0.01)


@pytest.mark.parametrize("integrator", [DDIM(), DDPM(), DPMSolverPP(eta=1), RK45()], ids=repr)
def test_the_default_type_of_tensors_changes_no_number(integrator):
    ends = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            noise = Streams([0, 1])
            x = MEAN + HIGH * noise.normal((1, 2))
            *_, last = integrator(Gaussian(), Karras()(12, LOW, HIGH), x, lambda noise=noise: noise.normal((1, 2)))
        finally:
            torch.set_default_dtype(torch.float32)
        ends.append(last.x)
    assert torch.equal(*ends)


def test_every_integrator_has_a_name():
    assert set(PARTS["integrator"].values()) == {type(integrator) for integrator in ALL}


@pytest.mark.parametrize("make", [lambda: DDIM(eta=1.5), lambda: DDIM(zeta=0.3), lambda: Renoise(zeta=-0.1),
                                  lambda: DPMSolver(order=4), lambda: DDPM(variance="guessed"), lambda: RK45(rtol=0),
                                  lambda: PredictorCorrector(snr=1.5), lambda: Langevin(epsilon=5),
                                  lambda: EDMStochastic(churn=-1)])
def test_bad_parameters_are_refused(make):
    with pytest.raises(ValidationError):
        make()
