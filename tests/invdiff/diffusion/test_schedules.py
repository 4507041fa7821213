import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from invdiff.diffusion.rates import CosineRate, SigmoidRate
from invdiff.diffusion.schedules import (
    Cosine,
    DDPMLinear,
    FlowMatching,
    Karras,
    Linear,
    LogLinear,
    Sigmoid,
)
from invdiff.diffusion.sdes import EDM, VE, VP, Flow

ALL = [Karras(), Karras(rho=3), DDPMLinear(), Cosine(), Sigmoid(), Sigmoid(start=0, tau=0.7), FlowMatching(), LogLinear(),
       Linear()]


@pytest.mark.parametrize("schedule", ALL, ids=repr)
@pytest.mark.parametrize(("steps", "low", "high"), [(1, 0.5, 0.5), (2, 0.01, 20.0), (37, 0.002, 60.0), (1000, 0.01, 5.0)])
def test_levels_fall_from_sigma_max_over_sigma_min_to_zero(schedule, steps, low, high):
    levels = schedule(steps, low, high)
    assert levels.shape == (steps + 1,)
    assert levels.dtype == torch.float64
    assert levels[-1] == 0
    assert levels[0] == pytest.approx(high, rel=1e-9)
    assert levels[-2] == pytest.approx(low if steps > 1 else high, rel=1e-9)
    assert (levels.diff() < 0).all()


def test_karras_levels_follow_equation_5():
    n, low, high, rho = 18, 0.002, 80.0, 7.0
    expected = [(high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)]
    np.testing.assert_allclose(Karras()(n, low, high)[:-1], expected, rtol=1e-12)


def ddpm_sigmas():
    """Noise-to-signal of Ho et al.'s 1000 discrete steps, in units of [0, 1] images: a half of that on [-1, 1]."""
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    return 0.5 * np.sqrt((1 - alpha_bar) / alpha_bar)


def test_ddpm_linear_runs_through_the_discrete_schedule():
    discrete = ddpm_sigmas()
    low, high = 50, 949                 # off the ends, where the discrete time's offset of half a step costs 0.4 %
    levels = DDPMLinear()(high - low + 1, discrete[low], discrete[high])[:-1].flip(0).numpy()
    np.testing.assert_allclose(levels, discrete[low : high + 1], rtol=0.006)


def test_cosine_levels_are_tangents_of_evenly_spaced_angles():
    n, low, high = 50, 0.01, 30.0
    levels = Cosine()(n, low, high)[:-1].numpy()
    alpha_bar = 1 / (1 + (2 * levels) ** 2)                              # sigma on [-1, 1] is twice that on [0, 1]
    angles = np.arccos(np.sqrt(alpha_bar))
    np.testing.assert_allclose(np.diff(angles), (math.atan(2 * low) - math.atan(2 * high)) / (n - 1), rtol=1e-6)


def test_sigmoid_levels_follow_algorithm_1_of_chen():
    """gamma(t) = (sig(end / tau) - sig((t (end - start) + start) / tau)) / (sig(end / tau) - sig(start / tau))."""
    def sig(x):
        return 1 / (1 + np.exp(-x))

    n, start, end, tau = 20, -2.0, 3.0, 0.8
    t = np.linspace(0.95, 0.02, n)
    alpha_bar = (sig(end / tau) - sig((t * (end - start) + start) / tau)) / (sig(end / tau) - sig(start / tau))
    expected = 0.5 * np.sqrt(1 / alpha_bar - 1)
    levels = Sigmoid(start=start, end=end, tau=tau)(n, expected[-1], expected[0])[:-1].numpy()
    np.testing.assert_allclose(levels, expected, rtol=1e-9)


def test_flow_matching_levels_are_t_over_one_minus_t_of_images_in_minus_one_to_one():
    t = np.linspace(0.99, 0.01, 33)
    expected = 0.5 * t / (1 - t)
    np.testing.assert_allclose(FlowMatching()(33, expected[-1], expected[0])[:-1], expected, rtol=1e-10)


@pytest.mark.parametrize(("schedule", "process"), [
    (DDPMLinear(), VP()), (Cosine(), VP(rate=CosineRate(offset=0))), (Sigmoid(), VP(rate=SigmoidRate())),
    (FlowMatching(), Flow()), (Linear(), EDM()), (LogLinear(), VE(low=1e-9, high=100.0))], ids=repr)
def test_levels_are_even_in_the_time_of_their_process(schedule, process):
    times = process.time(schedule(30, 0.01, 20.0)[:-1])
    torch.testing.assert_close(times.diff(), ((times[-1] - times[0]) / 29).expand(29), rtol=1e-7, atol=0)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
@pytest.mark.parametrize(("steps", "low", "high"), [(0, 0.01, 1), (-3, 0.01, 1), (5, 0.0, 1), (5, -0.1, 1), (5, 2.0, 1.0),
                                                    (5, float("nan"), 1)])
def test_bad_ranges_are_refused(schedule, steps, low, high):
    with pytest.raises(ValueError, match=rf"schedule: expected .*, got {steps}, {low}, {high}"):
        schedule(steps, low, high)


def test_parameters_are_frozen_and_known():
    with pytest.raises(ValidationError):
        Karras(roh=7)
    with pytest.raises(ValidationError):
        Karras(rho=-1)
    with pytest.raises(ValidationError):
        Karras().rho = 3
    with pytest.raises(ValidationError):
        Sigmoid(tau=0)
