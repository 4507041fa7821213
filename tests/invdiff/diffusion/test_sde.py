"""Steps with noise, of white images of variance U^2. Their denoiser is linear, so that a step of two values, one a state
without noise and one noise without a state, gives the factors of both: the sum of their squares is the variance it leaves."""

import pytest
import torch

from invdiff.diffusion.integrators import EDMStochastic, PredictorCorrector

U = 0.25


class White:
    def __init__(self):
        self.levels, self.variances = [], []

    def __call__(self, x, sigma):
        self.levels.append(sigma)
        self.variances.append(float(x.square().sum()))
        return U**2 * x / (U**2 + sigma**2)


def run(integrator, levels):
    """The denoiser after a run from variance U^2 + sigma^2, and the variance that the run leaves."""
    denoise, start = White(), (U**2 + levels[0] ** 2) ** 0.5
    *_, last = integrator(denoise, torch.tensor(levels, dtype=torch.float64), torch.tensor([start, 0.0], dtype=torch.float64),
                          lambda: torch.tensor([0.0, 1.0], dtype=torch.float64))
    return denoise, float(last.x.square().sum())


@pytest.mark.parametrize("snr", [0.16, 0.4])
def test_a_corrector_s_step_is_song_s(snr):
    """x + e score + sqrt(2 e) n with e = 2 (r |n| / |score|)^2 (Song et al. 2021b, Algorithm 4), |n|^2 = N and |score|^2 =
    N / sigma^2, takes v = U^2 + sigma^2 to (1 - e / v)^2 v + 2 e. From a level to itself the predictor stands still."""
    sigma = 0.7
    v, e = U**2 + sigma**2, 2 * (snr * sigma) ** 2
    assert run(PredictorCorrector(snr=snr), [sigma, sigma])[1] == pytest.approx((1 - e / v) ** 2 * v + 2 * e, rel=1e-12)


def test_edm_s_noise_raises_the_level_by_sqrt_2_at_most_and_only_within_its_range():
    """Karras et al. 2022, Algorithm 2: gamma = min(S_churn / N, sqrt(2) - 1) for sigma from S_tmin to S_tmax."""
    levels = [30.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.02, 0.01]
    for churn, factor in ((40.0, 2**0.5), (1.0, 1.1)):
        asked = run(EDMStochastic(churn=churn), levels)[0].levels[::2]      # the first call of each step
        assert asked == pytest.approx([s * (factor if 0.025 <= s <= 25 else 1) for s in levels[:-1]])


def test_edm_s_inflation_is_of_the_noise_that_is_added():
    """From v = U^2 + sigma^2 to v + S_noise^2 (raised^2 - sigma^2), here with raised^2 = 2 sigma^2."""
    sigma, inflation = 0.7, 1.2
    denoise, _ = run(EDMStochastic(churn=40, inflation=inflation), [sigma, 0.3])
    assert denoise.variances[0] == pytest.approx(U**2 + sigma**2 + inflation**2 * sigma**2, rel=1e-12)
