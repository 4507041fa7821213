"""The error of each solver of the probability flow falls with the power of the step that its theory says.

On a mixture of three Gaussians in the plane, in float64, against SciPy's eighth-order method at a tolerance of 1e-12.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from invdiff.diffusion.integrators import (
    DDIM,
    RK45,
    DPMSolver,
    DPMSolverAdaptive,
    DPMSolverPP,
    DPMSolverPP2S,
    DPMSolverPP3M,
    EDMStochastic,
    Heun,
)
from invdiff.diffusion.schedules import Karras
from invdiff.priors.analytic import GaussianPrior, MixturePrior

HIGH, LOW = 3.0, 0.05
MEANS = torch.tensor([[0.2, 0.3], [0.8, 0.4], [0.5, 0.9]], dtype=torch.float64).reshape(3, 1, 1, 2)
PRIOR = MixturePrior(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), MEANS, torch.tensor([0.03, 0.05, 0.02]))
START = 0.5 + HIGH * torch.tensor([[0.3, -0.8], [-0.5, 0.4], [1.1, 0.2], [0.1, 0.9]], dtype=torch.float64).reshape(4, 1, 1, 2)

FIXED = [(DDIM(), 1), (DPMSolver(order=1), 1), (Heun(), 2), (EDMStochastic(churn=0), 2), (DPMSolver(order=2), 2),
         (DPMSolver(order=3), 3), (DPMSolverPP(), 2), (DPMSolverPP2S(), 2), (DPMSolverPP3M(), 3)]


def even(steps):
    """Levels even in log sigma, without a zero: a step to zero is of first order in any method, and is x = D."""
    return torch.logspace(np.log10(HIGH), np.log10(LOW), steps + 1, dtype=torch.float64)


def karras(steps):
    return Karras()(steps + 1, LOW, HIGH)[:-1]


def no_noise():
    raise AssertionError("a solver of the flow drew noise")


@lru_cache
def exact():
    """The flow's end from START, (4, 1, 1, 2)."""
    def slope(sigma, x):
        x = torch.from_numpy(x).reshape(START.shape)
        return ((x - PRIOR(x, sigma)) / sigma).flatten().numpy()

    ends = solve_ivp(slope, (HIGH, LOW), START.flatten().numpy(), method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    return torch.from_numpy(ends).reshape(START.shape)


def error(integrator, sigmas):
    *_, last = integrator(PRIOR, sigmas, START, no_noise)
    assert last.x.dtype == torch.float64
    return float((last.x - exact()).square().mean().sqrt())


@pytest.mark.parametrize("levels", [even, karras])
@pytest.mark.parametrize(("integrator", "order"), FIXED, ids=repr)
def test_order_of_convergence(integrator, order, levels):
    counts = [64, 96, 128, 192, 256]
    errors = [error(integrator, levels(n)) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.2), errors


@pytest.mark.parametrize("integrator", [RK45, DPMSolverAdaptive, lambda **kw: DPMSolverAdaptive(order=2, **kw)],
                         ids=["RK45", "DPM-Solver-23", "DPM-Solver-12"])
def test_the_error_falls_in_proportion_to_the_tolerance(integrator):
    tolerances = np.geomspace(1e-3, 1e-6, 7)
    errors = [error(integrator(rtol=t, atol=t), even(1)) for t in tolerances]
    assert np.polyfit(np.log(tolerances), np.log(errors), 1)[0] == pytest.approx(1, abs=0.2), errors
    assert errors[-1] < 100 * tolerances[-1]


def test_a_step_s_error_is_relative_to_the_state_before_it_too():
    """A first step from 1 to 0 and an error of 0.012 is taken at rtol = 0.05, though nothing is there to compare it with."""
    levels, after = [], np.exp(-0.05)               # of a first step

    def denoise(x, sigma):
        """The slope (x - D) / sigma is the same for all x, and steeper by 10 as sigma falls."""
        levels.append(sigma)
        return x - sigma * (1 / (1 - after) + 10 * (1 - sigma))

    integrator = DPMSolverAdaptive(order=2, rtol=0.05, atol=1e-9)
    next(integrator(denoise, torch.tensor([1.0, 0.9]), torch.ones(1, 1, dtype=torch.float64), no_noise))
    assert levels[2] == pytest.approx(after)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("high", [5.0, 40.0, 78.0])
def test_much_noise_before_allows_no_error_after(order, high):
    """Narrow images, N(0.3, 0.06), from far above: the spread is that of the images."""
    prior = GaussianPrior(torch.full((1, 8, 8), 0.3).double(), 0.06**2 * torch.eye(64, dtype=torch.float64))
    x = high * torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    *_, last = DPMSolverAdaptive(order=order)(prior, torch.tensor([high, 0.002, 0.0]), x, no_noise)
    assert float(last.x.std()) == pytest.approx(0.06, abs=0.03)
    assert float(last.x.mean()) == pytest.approx(0.3, abs=0.03)


def test_a_higher_order_is_cheaper_at_a_small_tolerance():
    calls = []
    for integrator in (RK45(rtol=1e-6, atol=1e-6), DPMSolverAdaptive(rtol=1e-6, atol=1e-6),
                       DPMSolverAdaptive(order=2, rtol=1e-6, atol=1e-6)):
        *_, last = integrator(PRIOR, even(1), START, no_noise)
        calls.append(last.info["calls"])
    assert 2 * calls[0] < calls[1] < calls[2] / 2


def test_euler_ddim_and_the_first_order_solver_are_one():
    """In the frame x = x0 + sigma n: Euler's step of dx / dsigma = (x - D) / sigma."""
    x = START
    ddim, first = (integrator(PRIOR, even(10), START, no_noise) for integrator in (DDIM(), DPMSolver(order=1)))
    for (sigma, after), a, b in zip(pairwise(even(10).tolist()), ddim, first, strict=True):
        x = x + (after - sigma) * (x - PRIOR(x, sigma)) / sigma
        torch.testing.assert_close(a.x, x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(b.x, x, rtol=1e-12, atol=1e-12)
