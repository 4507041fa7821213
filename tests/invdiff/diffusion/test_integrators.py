"""A Gaussian x0 ~ N(mean, s^2) has D(x, sigma) = mean + s^2 (x - mean) / (s^2 + sigma^2), a probability flow
x(sigma) = mean + (x_T - mean) sqrt((s^2 + sigma^2) / (s^2 + sigma_T^2)), and the marginals N(mean, s^2 + sigma^2)."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from invdiff.diffusion.integrators import DDIM, DPMSolverPP, Heun, Renoise

MEAN, S, HIGH, LOW = 0.4, 0.25, 5.0, 0.02
ALL = [DDIM(), DDIM(eta=0.5), DDIM(eta=1), Renoise(), Heun(), DPMSolverPP(), DPMSolverPP(eta=1)]


class Gaussian:
    def __init__(self):
        self.calls = []

    def __call__(self, x, sigma):
        self.calls.append(sigma)
        return MEAN + S**2 * (x - MEAN) / (S**2 + sigma**2)


def levels(steps, high=HIGH, low=LOW):
    """Even in log sigma, and without the last zero: a step to zero is first order in every method, and is x = D."""
    return torch.logspace(np.log10(high), np.log10(low), steps + 1, dtype=torch.float64)


def no_noise():
    raise AssertionError("a deterministic integrator drew noise")


def flow_error(integrator, steps):
    x = torch.tensor([[2.9]], dtype=torch.float64)
    sigmas = levels(steps)
    *_, last = integrator(Gaussian(), sigmas, x, no_noise)
    exact = MEAN + (x - MEAN) * ((S**2 + LOW**2) / (S**2 + HIGH**2)) ** 0.5
    return abs(float(last.x - exact))


@pytest.mark.parametrize(("integrator", "order"), [(DDIM(), 1), (Heun(), 2), (DPMSolverPP(), 2)], ids=repr)
def test_order_of_convergence_to_the_probability_flow(integrator, order):
    counts = [64, 128, 256, 512]
    errors = [flow_error(integrator, n) for n in counts]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.25), errors


@pytest.mark.parametrize("integrator", [DDIM(), Heun(), DPMSolverPP(), Renoise(zeta=0)], ids=repr)
def test_the_flow_needs_no_noise(integrator):
    sigmas = torch.cat([levels(10), torch.zeros(1, dtype=torch.float64)])
    assert len(list(integrator(Gaussian(), sigmas, torch.ones(1, 1), no_noise))) == 11


@pytest.mark.parametrize("integrator", [i for i in ALL if not isinstance(i, Renoise)], ids=repr)
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
    sigmas = torch.cat([levels(6), torch.zeros(1, dtype=torch.float64)])
    steps = list(integrator(denoise, sigmas, torch.ones(2, 1), lambda: torch.randn(2, 1)))
    assert [s.sigma for s in steps] == sigmas[1:].tolist()
    torch.testing.assert_close(steps[-1].x, steps[-1].x0)                       # at sigma = 0 the state is the estimate
    used = sigmas[:-1].tolist()
    if isinstance(integrator, Heun):                                            # two a step, one for the step to zero
        used = [s for pair in pairwise(used) for s in pair] + [used[-1]]
    assert denoise.calls == used


@pytest.mark.parametrize("integrator", ALL, ids=repr)
def test_the_initial_state_is_left_alone(integrator):
    x = torch.ones(2, 1)
    list(integrator(Gaussian(), levels(3), x, lambda: torch.randn(2, 1)))
    assert (x == 1).all()


@pytest.mark.parametrize("make", [lambda: DDIM(eta=1.5), lambda: DDIM(zeta=0.3), lambda: Renoise(zeta=-0.1)])
def test_bad_parameters_are_refused(make):
    with pytest.raises(ValidationError):
        make()
