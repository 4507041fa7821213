"""Every integrator samples a mixture in the plane, given its exact denoiser.

Six modes on a circle with weights and widths of their own, 4000 samples. Three statistics, with thresholds from their own law:
the sliced Wasserstein distance to fresh exact draws, the modes' counts, and the spread within the modes.
"""

from functools import lru_cache

import pytest
import torch

from invdiff.diffusion.integrators import (
    DDIM,
    DDPM,
    RK45,
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
)
from invdiff.diffusion.schedules import Karras
from invdiff.evaluation.mixtures import sliced_wasserstein
from invdiff.priors.analytic import MixturePrior

COUNT, HIGH, LOW = 4000, 3.0, 0.003
SPREAD = 0.25           # of the target, which noise of level HIGH turns into a Gaussian
ANGLES = torch.arange(6) * torch.pi / 3
MEANS = 0.5 + 0.35 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
VARIANCE = torch.tensor([0.001, 0.0025, 0.0015, 0.001, 0.0025, 0.0015])
PRIOR = MixturePrior(torch.tensor([3.0, 1.0, 2.0, 1.0, 2.0, 1.0]), MEANS.reshape(6, 1, 1, 2), VARIANCE)

ENOUGH = [(DDIM(), 200), (Heun(), 40), (DPMSolver(order=1), 200), (DPMSolver(order=2), 40), (DPMSolver(), 30),
          (DPMSolverPP(), 40), (DPMSolverPP2S(), 40), (DPMSolverPP3M(), 40), (RK45(), 2), (DPMSolverAdaptive(), 2),
          (DPMSolverAdaptive(order=2, rtol=0.005, atol=0.001), 2), (DDIM(eta=1), 300), (DDPM(), 300),
          (DDPM(variance="beta"), 300), (DPMSolverPP(eta=1), 60), (DPMSolverPP(eta=2), 200),
          (EDMStochastic(), 100), (EulerMaruyama(), 300), (PredictorCorrector(), 150), (Langevin(inner_steps=10), 150)]


def draw(seed):
    """Exact samples (COUNT, 2)."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.multinomial(PRIOR.weights, COUNT, replacement=True, generator=generator)
    return MEANS[k] + VARIANCE[k].sqrt()[:, None] * torch.randn(COUNT, 2, generator=generator)


def generate(integrator, sigmas, seed=1000):
    generator = torch.Generator().manual_seed(seed)
    x = 0.5 + (float(sigmas[0]) ** 2 + SPREAD**2) ** 0.5 * torch.randn(COUNT, 1, 1, 2, generator=generator)
    *_, last = integrator(PRIOR, sigmas, x, lambda: torch.randn(x.shape, generator=generator))
    assert last.sigma == 0
    assert last.x0.dtype == torch.float32
    return last.x0.reshape(COUNT, 2)


def distance(a, b):
    return sliced_wasserstein(a, b, directions=50)


@lru_cache
def between_exact():
    """The distance's mean and standard deviation between two sets of exact draws."""
    null = torch.tensor([distance(draw(2 * i), draw(2 * i + 1)) for i in range(30)])
    return float(null.mean()), float(null.std())


def levels(steps):
    """Even in log sigma, and zero."""
    return torch.cat([torch.logspace(*torch.tensor([HIGH, LOW]).log10(), steps, dtype=torch.float64), torch.zeros(1)])


@pytest.mark.parametrize(("integrator", "steps"), ENOUGH, ids=lambda p: repr(p) if not isinstance(p, int) else str(p))
def test_samples_are_within_sampling_error_of_the_target(integrator, steps):
    samples = generate(integrator, levels(steps))
    mean, std = between_exact()
    assert distance(samples, draw(999)) < mean + 4 * std
    nearest = torch.cdist(samples, MEANS).argmin(1)
    expected = COUNT * PRIOR.weights
    assert float(((torch.bincount(nearest, minlength=6) - expected).square() / expected).sum()) < 25.7     # 1e-4 of chi^2_5
    spread = (samples - MEANS[nearest]).square().sum(1) / (2 * VARIANCE[nearest])
    assert float(spread.mean()) == pytest.approx(1, abs=4 / COUNT**0.5)         # a chi^2_2 / 2 has mean and deviation 1


def test_twenty_steps_of_dpm_solver_pp_are_as_close_as_a_hundred_of_ddim():
    """To the flow's own ends from the same noise, which leaves sampling out; by as little that exact draws cannot tell it."""
    ends = generate(RK45(rtol=1e-6, atol=1e-6), Karras()(2, 0.01, HIGH))
    apart = {(kind, steps): distance(generate(kind(), Karras()(steps, 0.01, HIGH)), ends)
             for kind, steps in ((DPMSolverPP, 20), (DDIM, 100), (DDIM, 20))}
    assert apart[DPMSolverPP, 20] <= apart[DDIM, 100]
    assert 3 * apart[DPMSolverPP, 20] < apart[DDIM, 20]
    assert 3 * apart[DPMSolverPP, 20] < between_exact()[0]
