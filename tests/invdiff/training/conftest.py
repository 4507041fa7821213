"""What tests of losses share: points in the plane, a network of them, and `Trainer` in miniature."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch

from invdiff.priors.analytic import MixturePrior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.training.noise_levels import LogUniform


class MLP(torch.nn.Module):
    """A network of points (B, 1, 1, 2)."""

    def __init__(self, width=64):
        super().__init__()
        sizes = (4, width, width, width)
        hidden = [layer for a, b in pairwise(sizes) for layer in (torch.nn.Linear(a, b), torch.nn.SiLU())]
        self.layers = torch.nn.Sequential(*hidden, torch.nn.Linear(width, 2))

    def forward(self, z, label):
        return self.layers(torch.cat([z.flatten(1), (label / 4)[:, None], (label / 2)[:, None].cos()], 1)).reshape(z.shape)


class Points:
    """Three narrow components, of weights 0.5, 0.3 and 0.2; `prior` is their exact denoiser."""

    def __init__(self):
        means = torch.tensor([[0.1, 0.2], [0.9, 0.3], [0.4, 0.9]]).reshape(3, 1, 1, 2)
        self.prior = MixturePrior(torch.tensor([0.5, 0.3, 0.2]), means, 0.05**2)
        self.noise = LogUniform(kind="log_uniform", low=0.01, high=10.0)

    def draw(self, count, generator):
        """Points and unit noise, (count, 1, 1, 2)."""
        k = torch.multinomial(self.prior.weights, count, replacement=True, generator=generator)
        deviation, noise = torch.randn(2, count, 1, 1, 2, generator=generator)
        return self.prior.means[k] + 0.05 * deviation, noise

    def fit(self, loss, steps, start=None, rate=5e-3, batch=128):
        """A denoiser trained with a loss, from another one or from random weights: the average of the last phase."""
        torch.manual_seed(0)
        denoiser = EDMDenoiser(MLP(), 1, sigma_data=0.33, centre=0.45)
        if start:
            denoiser.load_state_dict(start.state_dict())
        objective = loss.objective(denoiser, self.noise)
        rng, generator, average = np.random.default_rng(0), torch.Generator().manual_seed(3), denoiser
        for step in range(steps):
            phase = loss.phase(step, steps)
            if step == phase.start:
                if step:
                    objective.turn(average)
                    denoiser.load_state_dict(average.state_dict())
                optimiser = torch.optim.Adam(denoiser.parameters(), rate, (0.9, 0.99), foreach=True)
                average = copy.deepcopy(denoiser)
            objective.at(step, steps)
            optimiser.param_groups[0]["lr"] = rate * min(1.0, 1.5 * (1 - (step - phase.start) / len(phase)))
            sigma = torch.from_numpy(loss.draw(self.noise, batch, rng, step, steps, None)[0]).float()
            optimiser.zero_grad()
            objective(*self.draw(batch, generator), sigma)[0].mean().backward()
            optimiser.step()
            with torch.no_grad():
                beta = (1 - 1 / (step - phase.start + 1)) ** 10
                torch._foreach_lerp_(list(average.parameters()), list(denoiser.parameters()), 1 - beta)
        return average

    def share_near(self, denoiser, integrator, sigmas, count=2000):
        """The share of samples within four standard deviations of a component, and how many of all each has nearest, (3,)."""
        generator = torch.Generator().manual_seed(4)

        def draw():
            return torch.randn(count, 1, 1, 2, generator=generator)

        with torch.no_grad():
            *_, last = integrator(denoiser, sigmas, 0.45 + float(sigmas[0]) * draw(), draw)
        distance = torch.cdist(last.x.flatten(1), self.prior.means.flatten(1))
        return float((distance.amin(1) < 0.2).double().mean()), torch.bincount(distance.argmin(1), minlength=3) / count


@pytest.fixture
def points():
    return Points()
