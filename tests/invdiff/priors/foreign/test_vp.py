"""Networks of a discrete variance-preserving diffusion, as denoisers in image units."""

import pytest
import torch

from invdiff.diffusion.schedules import cosine_chain, linear_chain
from invdiff.priors.foreign.vp import VPDenoiser

MEAN, VARIANCE = -0.2, 0.16         # of white Gaussian images in [-1, 1]


def oracle(abar, predicts):
    """The network that knows: E[n | x_t], E[v | x_t] or E[x0 | x_t] for those images, at a fractional t too."""
    levels = ((1 - abar) / abar).log() / 2

    def network(x, t):
        i = t.double().floor().long().clamp_max(len(abar) - 2)
        s2 = (2 * torch.lerp(levels[i], levels[i + 1], t.double() - i)).exp().reshape(-1, 1, 1, 1)
        keep, noise = (1 / (1 + s2)).sqrt(), (s2 / (1 + s2)).sqrt()
        x0 = MEAN + (x / keep - MEAN) * VARIANCE / (VARIANCE + s2)
        n = (x - keep * x0) / noise
        out = {"epsilon": n, "v_prediction": keep * n - noise * x0, "sample": x0}[predicts]
        return torch.cat([out, torch.full_like(out, 1e3)], dim=1).float()       # with "learned variances"

    return network


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", [linear_chain, cosine_chain])
def test_the_posterior_mean_in_image_units_at_any_level(schedule, predicts):
    """Between the steps of the schedule as well as on them."""
    abar = schedule(1000)
    denoiser = VPDenoiser(oracle(abar, predicts), abar, predicts)
    x, sigma = 0.4 + torch.randn(5, 3, 4, 4), torch.tensor([0.011, 0.0601, 0.3, 2.0, 9.0])
    expected = 0.4 + (x - 0.4) * 0.04 / (0.04 + sigma.reshape(-1, 1, 1, 1).square())
    torch.testing.assert_close(denoiser(x, sigma), expected, rtol=2e-3, atol=2e-3)


def test_whole_steps_are_whole_and_levels_of_the_schedule_are_its_steps():
    abar = linear_chain()
    sigma = ((1 - abar) / abar).sqrt().float() / 2
    denoiser = VPDenoiser(torch.nn.Identity(), abar)
    torch.testing.assert_close(denoiser.time(sigma), torch.arange(1000.0), rtol=0, atol=0.05)
    between = (sigma[:-1] * sigma[1:]).sqrt()
    torch.testing.assert_close(denoiser.time(between), torch.arange(999) + 0.5, rtol=0, atol=0.05)
    rounded = VPDenoiser(torch.nn.Identity(), abar, whole_steps=True).time(sigma)
    assert torch.equal(rounded, torch.arange(1000.0))
    assert denoiser.time(torch.tensor([1e-6, 1e6])).tolist() == [0.0, 999.0]
    assert denoiser.sigma_range == pytest.approx([float(sigma[0]), float(sigma[-1])], rel=1e-4)


def test_steps_of_pure_noise_are_left_out():
    abar = torch.cat([linear_chain(), torch.zeros(1)])
    assert VPDenoiser(torch.nn.Identity(), abar).sigma_range[1] == pytest.approx(78.7, rel=0.01)


@pytest.mark.parametrize("abar", [[0.5], [0.5, 0.6], [1.0, 0.5], [0.0, 0.0]])
def test_no_schedule(abar):
    with pytest.raises(ValueError, match="alphas_cumprod: expected"):
        VPDenoiser(torch.nn.Identity(), torch.tensor(abar))


def test_unknown_prediction():
    with pytest.raises(ValueError, match="predicts: expected epsilon"):
        VPDenoiser(torch.nn.Identity(), linear_chain(), "score")


def test_schedules_against_their_papers():
    """abar_T of the linear one is 4e-5 (Ho et al. 2020); the cosine one is f(t) / f(0) but for the cap on beta (Eq. 17)."""
    assert float(linear_chain()[-1]) == pytest.approx(4.04e-5, rel=0.01)
    t = (torch.arange(1, 1001, dtype=torch.float64) / 1000 + 0.008) / 1.008 * torch.pi / 2
    f = t.cos().square() / torch.tensor(0.008 / 1.008 * torch.pi / 2).cos().square()
    torch.testing.assert_close(cosine_chain()[:990], f[:990], rtol=1e-5, atol=0)
