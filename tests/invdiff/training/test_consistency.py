"""Consistency losses against the closed form of a Gaussian's probability flow, and on a mixture from noise to samples."""

import math

import pytest
import torch

from invdiff.diffusion.consistency import Consistency
from invdiff.diffusion.integrators import Renoise
from invdiff.diffusion.schedules import Karras
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.training import objectives
from invdiff.training.consistency import ConsistencyLoss
from invdiff.training.noise_levels import LogNormal

MEAN, STD = 0.4, 0.3
NOISE = LogNormal(low=0.002, high=40.0)


class Gaussian(torch.nn.Module):
    """Of x0 ~ N(MEAN, STD^2) in each pixel: E[x0 | x], or where the probability flow from x ends."""

    sigma_data, channels, classes = STD, 1, 0

    def __init__(self, power):
        super().__init__()
        self.power = power              # 1 is the mean, 1/2 the consistency function

    def forward(self, x, sigma, classes=None):
        s = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1)
        return MEAN + (STD**2 / (STD**2 + s**2)) ** self.power * (x - MEAN)

    precondition = forward


@pytest.fixture
def exact_teacher(monkeypatch):
    monkeypatch.setattr(objectives, "load_prior", lambda name: Gaussian(1.0))


def distillation(**parameters):
    return ConsistencyLoss(kind="consistency_distillation", teacher="exact", **parameters)


def errors(denoiser, loss, intervals):
    """Root mean square |f(x_t, t) - f(x_r, r)| of a loss, (B,) at levels from 0.05 to 5."""
    objective = loss.objective(denoiser, NOISE).double()
    objective.interval.fill_(1 / intervals)
    generator = torch.Generator().manual_seed(0)
    sigma = torch.logspace(math.log10(0.05), math.log10(5.0), 9, dtype=torch.float64)
    x0 = MEAN + STD * torch.randn(9, 1, 64, 64, generator=generator, dtype=torch.float64)
    noise = torch.randn(9, 1, 64, 64, generator=generator, dtype=torch.float64)
    minimised, losses = objective(x0, noise, sigma)
    assert torch.equal(minimised, losses)
    t, r, _ = objective.neighbours(sigma)
    distance = losses * (t - r).flatten() + loss.huber
    return (distance.square() - loss.huber**2).clamp_min(0).sqrt()


@pytest.mark.parametrize("order", [1, 2])
def test_the_error_of_the_exact_function_is_that_of_a_step_of_the_teachers_flow(exact_teacher, order):
    """A step of a method of order p errs by O(interval^(p + 1))."""
    coarse, fine = (errors(Gaussian(0.5), distillation(order=order, huber=1e-9), n) for n in (160, 320))
    slope = (coarse / fine).log2()
    torch.testing.assert_close(slope, torch.full_like(slope, order + 1.0), atol=0.2, rtol=0)


def test_the_loss_of_the_posterior_mean_stays(exact_teacher):
    """D is no consistency function: its error over t - r tends to |dD/dt| along the flow, and not to 0."""
    rates = [errors(Gaussian(1.0), distillation(huber=1e-9), n) * n for n in (160, 320)]
    torch.testing.assert_close(rates[0], rates[1], rtol=0.1, atol=0)
    exact = errors(Gaussian(0.5), distillation(huber=1e-9), 320) * 320
    assert (rates[1] > 50 * exact).all()


def test_without_a_teacher_the_predecessor_is_right_on_average(monkeypatch):
    """Of the x0 that lead to one x_t, the mean of x_r = x0 + r n is a step of Euler's along the flow (Song et al. 2023,
    Theorem 2), if it has the noise of x_t."""
    count, x, sigma = 40000, 0.9, 0.5
    loss = ConsistencyLoss(kind="consistency_training")
    objective = loss.objective(Gaussian(0.5), NOISE).double()
    objective.interval.fill_(1 / 20)
    keep = STD**2 / (STD**2 + sigma**2)
    draws = torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0 = MEAN + keep * (x - MEAN) + keep**0.5 * sigma * draws
    seen = []
    monkeypatch.setattr(objective.denoiser, "precondition", lambda x, sigma, classes: seen.append((x, sigma)) or x)
    objective(x0, (x - x0) / sigma, torch.full((count,), sigma, dtype=torch.float64))
    (before, r), (state, t) = seen
    torch.testing.assert_close(state, torch.full_like(state, x))
    assert t[0] == pytest.approx(sigma)
    euler = x + (float(r[0]) - sigma) * (x - (MEAN + keep * (x - MEAN))) / sigma
    assert before.mean() == pytest.approx(euler, abs=4 * float(before.std()) / count**0.5)


def test_no_gradient_goes_through_the_target():
    denoiser = EDMDenoiser(torch.nn.Module(), 1)
    scale = torch.nn.Parameter(torch.tensor(1.0))
    denoiser.precondition = lambda x, sigma, classes=None: scale * x
    objective = ConsistencyLoss(kind="consistency_training", huber=1e-9).objective(denoiser, NOISE)
    x0, noise, sigma = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.tensor([0.5])
    noise[:] = 1.0
    t, r, _ = objective.neighbours(sigma)
    objective(x0, noise, sigma)[0].sum().backward()
    torch.testing.assert_close(scale.grad, ((x0 + t) / (t - r)).squeeze())      # with one, (t - r) / (t - r) = 1


def test_neighbours_are_an_interval_apart_on_a_grid_that_holds_sigma():
    objective = ConsistencyLoss(kind="consistency_training").objective(Gaussian(0.5), NOISE)
    objective.interval.fill_(1 / 10)
    sigma = torch.tensor([0.002, 0.01, 0.3, 40.0])
    t, r, ends = (level.flatten() for level in objective.neighbours(sigma))
    grid = Karras()(11, 0.002, 40.0)[:-1].flip(0).float()                       # 11 levels, 10 intervals
    torch.testing.assert_close(t, torch.tensor([grid[1], grid[1], 0.3, 40.0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(r[[0, 3]], grid[[0, 9]], rtol=1e-4, atol=0)
    assert (r < t).all()
    assert ends.tolist() == [True, True, False, False]


def test_what_is_not_trained_is_no_target(exact_teacher):
    """A network that is wild below the lowest level that is trained changes nothing; else it would learn from itself."""
    class Wild(Gaussian):
        def forward(self, x, sigma, classes=None):
            return super().forward(x, sigma) + 1e6 * (sigma < lowest).to(x.dtype).reshape(-1, 1, 1, 1)

        precondition = forward

    lowest = float(((0.002 ** (1 / 7) * 19 + 40 ** (1 / 7)) / 20) ** 7) * (1 - 1e-6)
    sigma = torch.logspace(math.log10(0.002), math.log10(40.0), 200, dtype=torch.float64)
    x0, noise = torch.rand(200, 1, 4, 4, dtype=torch.float64), torch.randn(200, 1, 4, 4, dtype=torch.float64)
    losses = []
    for denoiser in (Gaussian(0.5), Wild(0.5)):
        objective = distillation().objective(denoiser, NOISE).double()
        objective.interval.fill_(1 / 20)
        losses.append(objective(x0, noise, sigma)[0])
    torch.testing.assert_close(*losses)


def test_intervals_double_over_the_run():
    loss = ConsistencyLoss(kind="consistency_training", first=10, last=160)
    numbers = [loss.intervals(step, 1000) for step in range(1000)]
    assert [numbers.count(n) for n in (10, 20, 40, 80, 160)] == [200] * 5
    assert numbers == sorted(numbers)
    assert ConsistencyLoss(kind="consistency_training", first=10, last=50).intervals(999, 1000) == 50


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_multistep_sampling_is_exact_for_the_exact_function(steps):
    generator = torch.Generator().manual_seed(1)

    def draw():
        return torch.randn(20000, 1, 1, 1, generator=generator)

    sigmas = Karras()(steps, 0.3 if steps > 1 else 40.0, 40.0)
    *_, last = Consistency()(Gaussian(0.5), sigmas, MEAN + 40.0 * draw(), draw)
    assert last.x.mean() == pytest.approx(MEAN, abs=4 * STD / 20000**0.5)
    assert last.x.std() == pytest.approx(STD, rel=4 * (1 / 40000) ** 0.5)


def test_multistep_sampling_draws_all_noise_anew_above_the_floor():
    sigmas, x = torch.tensor([2.0, 0.5, 0.0]), torch.full((3, 1, 2, 2), 1.5)
    noise = [torch.randn(x.shape, generator=torch.Generator().manual_seed(2))]
    ours = list(Consistency()(Gaussian(1.0), sigmas, x, lambda: noise[0]))
    theirs = list(Renoise(zeta=1.0)(Gaussian(1.0), sigmas, x, lambda: noise[0]))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.x, b.x)
        assert a.sigma == b.sigma
    first, last = Consistency(floor=0.3)(Gaussian(1.0), sigmas, x, lambda: noise[0])
    torch.testing.assert_close(first.x, first.x0 + 0.4 * noise[0])
    assert torch.equal(last.x, last.x0)


@pytest.mark.parametrize("kind", ["consistency_training", "consistency_distillation"])
def test_a_mixture_is_sampled_in_two_calls(kind, points, monkeypatch):
    """Or in one. The posterior mean, in its place, leaves a third between the components, and all after one."""
    monkeypatch.setattr(objectives, "load_prior", lambda name: points.prior)
    teacher = {"teacher": "exact"} if kind == "consistency_distillation" else {}
    trained = points.fit(ConsistencyLoss(kind=kind, first=10, last=40, huber=0.003, **teacher), 500)
    for levels, share, of_the_mean in (([10.0, 0.25, 0.0], 0.8, 0.65), ([10.0, 0.0], 0.55, 0.01)):
        near, shares = points.share_near(trained, Consistency(), torch.tensor(levels))
        assert near > share
        torch.testing.assert_close(shares, points.prior.weights, atol=0.1, rtol=0)
        assert points.share_near(points.prior, Consistency(), torch.tensor(levels))[0] < of_the_mean
