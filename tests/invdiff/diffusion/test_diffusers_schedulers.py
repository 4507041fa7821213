"""Step by step the same states as diffusers' schedulers, from the same network, start and noise.

The network predicts noise in their frame, z = a (x - 0.5) / 0.5 with a^2 = 1 / (1 + s^2) for images in [-1, 1] and noise of
s = 2 sigma in them, at a time of the chain. States are compared there.
"""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from invdiff.diffusion.integrators import DDIM, DDPM, DPMSolver, DPMSolverPP, DPMSolverPP2S, Heun

diffusers = pytest.importorskip("diffusers", reason="needs the package diffusers")
STEPS, SHAPE = 20, (2, 3, 8, 8)


class Chain:
    """A scheduler, with its noise levels s, to zero, and its times; and a network of random weights."""

    def __init__(self, kind, **settings):
        self.scheduler = getattr(diffusers, kind)(**settings)
        self.scheduler.alphas_cumprod = (1 - self.scheduler.betas.double()).cumprod(0)      # 1 - a^2 in float32 is off by 6e-4
        self.scheduler.set_timesteps(STEPS)
        self.times = self.scheduler.timesteps
        if hasattr(self.scheduler, "sigmas"):
            self.levels = self.scheduler.sigmas = self.scheduler.sigmas.double()
        else:
            kept = self.scheduler.alphas_cumprod[self.times]
            self.levels = torch.cat([((1 - kept) / kept).sqrt(), torch.zeros(1)])
        generator = torch.Generator().manual_seed(0)
        self.kernels = [0.2 * torch.randn(3, 3, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
        self.start = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        self.noises = torch.randn(STEPS, *SHAPE, generator=generator, dtype=torch.float64)

    def network(self, z, time):
        z = torch.conv2d(z, self.kernels[0], padding=1) + float(time) / 1000
        return torch.conv2d(z.tanh(), self.kernels[1], padding=1)

    def scale(self, s):
        return (1 + s**2) ** -0.5

    def denoise(self, x, sigma):
        """Our contract: images in [0, 1], and sigma in their units."""
        place = int((self.levels[:len(self.times)] - 2 * sigma).abs().argmin())
        s = float(self.levels[place])
        assert 2 * sigma == pytest.approx(s, rel=1e-5)
        eps = self.network(self.scale(s) * (x - 0.5) / 0.5, self.times[place])
        return x - sigma * eps

    def ours(self, integrator, levels):
        """States in their frame after each step to `levels`, their units."""
        noises = iter(self.noises)
        x = 0.5 + 0.5 * self.start / self.scale(float(levels[0]))
        steps = integrator(self.denoise, levels / 2, x, lambda: next(noises))
        return [self.scale(2 * step.sigma) * (step.x - 0.5) / 0.5 for step in steps]

    def theirs(self, draw=False, **arguments):
        """States of a scheduler in the frame z, given the noise of a step if it is to `draw` some."""
        z, states = self.start, []
        for i, time in enumerate(self.times):
            noise = dict.fromkeys(["variance_noise"] if draw else [], self.noises[i])
            z = self.scheduler.step(self.network(z, time), time, z, **noise, **arguments).prev_sample
            states.append(z)
        return states


def assert_same(ours, theirs, count=STEPS):
    assert len(ours) == len(theirs) == count
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.double(), rtol=1e-5, atol=1e-5)
    assert (ours[-1] - ours[0]).abs().max() > 0.1


@pytest.mark.parametrize(("variance", "name"), [("beta_tilde", "fixed_small"), ("beta", "fixed_large")])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_ddpm(variance, name, schedule, monkeypatch):
    chain = Chain("DDPMScheduler", variance_type=name, clip_sample=False, beta_schedule=schedule)
    noises = iter(chain.noises)
    module = __import__("diffusers.schedulers.scheduling_ddpm", fromlist=["randn_tensor"])
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(noises))
    assert_same(chain.ours(DDPM(variance=variance), chain.levels), chain.theirs())


def test_ddpm_with_learned_variances(monkeypatch):
    """Of the network's channels the second half is v, between -1 and 1."""
    chain = Chain("DDPMScheduler", variance_type="learned_range", clip_sample=False)
    noises = iter(chain.noises)
    module = __import__("diffusers.schedulers.scheduling_ddpm", fromlist=["randn_tensor"])
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(noises))
    epsilon = chain.network

    class Telling:
        def with_variance(self, x, sigma):
            return chain.denoise(x, sigma), (3 * x).sin()

    ours = Chain.ours(SimpleNamespace(denoise=Telling(), noises=chain.noises, scale=chain.scale, start=chain.start),
                      DDPM(variance="learned"), chain.levels)

    def both(z, time):
        x = 0.5 + 0.5 * z / chain.scale(float(chain.levels[int((chain.times == time).nonzero())]))
        return torch.cat([epsilon(z, time), (3 * x).sin()], 1)

    chain.network = both
    assert_same(ours, chain.theirs())


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta):
    chain = Chain("DDIMScheduler", clip_sample=False)
    assert_same(chain.ours(DDIM(eta=eta), chain.levels), chain.theirs(eta=eta, draw=eta > 0))


@pytest.mark.parametrize(("eta", "kind"), [(0.0, "dpmsolver++"), (1.0, "sde-dpmsolver++")])
@pytest.mark.parametrize("karras", [False, True])
def test_dpm_solver_pp_2m(eta, kind, karras):
    chain = Chain("DPMSolverMultistepScheduler", algorithm_type=kind, use_karras_sigmas=karras)
    assert_same(chain.ours(DPMSolverPP(eta=eta), chain.levels), chain.theirs(draw=True))


@pytest.mark.parametrize(("integrator", "kind"), [(DPMSolver(order=2), "dpmsolver"), (DPMSolverPP2S(), "dpmsolver++")])
def test_second_order_in_one_step(integrator, kind):
    """Their intermediate level is the next of the grid: half way where that is even in lambda, which it is but for its end."""
    chain = Chain("DPMSolverSinglestepScheduler", algorithm_type=kind, solver_order=2, use_exponential_sigmas=True,
                  final_sigmas_type="sigma_min", lower_order_final=False)
    assert_same(chain.ours(integrator, chain.levels[:-1:2]), chain.theirs()[1:-1:2], STEPS // 2 - 1)


def in_their_exploding_frame(chain):
    """States of a scheduler whose state is z / a, and for which the network's input is scaled, by step."""
    x, states = chain.start / chain.scale(float(chain.levels[0])), []
    for time, after in zip(chain.times, chain.levels[1:].tolist(), strict=True):
        z = chain.scheduler.scale_model_input(x, time)
        x = chain.scheduler.step(chain.network(z, time), time, x).prev_sample
        states.append(chain.scale(after) * x)
    return states


def test_euler():
    chain = Chain("EulerDiscreteScheduler")
    assert_same(chain.ours(DDIM(), chain.levels), in_their_exploding_frame(chain))


def test_heun():
    """Theirs gives the state after each of a step's two calls."""
    chain = Chain("HeunDiscreteScheduler")
    levels = torch.cat([chain.levels[:1], chain.levels[1::2]])
    assert all(a > b for a, b in pairwise(levels))
    states = in_their_exploding_frame(chain)
    assert_same(chain.ours(Heun(), levels), [*states[1:-1:2], states[-1]])
