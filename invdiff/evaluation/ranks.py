"""Are posterior samples spread as they should be? Ranks of the truth among them, which are uniform if they are.

Simulation-based calibration (Talts et al. 2018): the truth is drawn from the prior and the measurement from the truth; then any
statistic of the truth has a uniform rank among the same statistic of S posterior samples. TARP (Lemos et al. 2023): so has
the distance to a reference point, which tells more of many dimensions at once, and needs no statistic.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from deepinv.models import Denoiser
from deepinv.physics import Physics
from scipy.stats import chisquare
from torch import Tensor

from invdiff.diffusion.randomness import stream_seed
from invdiff.posterior import Sampler
from invdiff.problem import simulate

Statistics = Callable[[Tensor], Tensor]
_TOGETHER = 20_000          # chains


def simulated_ranks(draw: Callable[[int, torch.Generator], Tensor], prior: Denoiser, physics: Physics, sigma_y: float,
                    sampler: Sampler, statistics: Statistics, *, draws: int = 500, samples: int = 19, seed: int = 0) -> Tensor:
    """Ranks of the truth among posterior samples, (draws, K) integers from 0 to `samples`.

    Args:
        draw: so many images (N, C, H, W) of the prior's own law.
        prior, physics, sigma_y, sampler: what is held to the test.
        statistics: from images (N, C, H, W) to K numbers each, (N, K).
        samples: S of each measurement; S + 1 should divide well into bins.
    """
    truth = draw(draws, torch.Generator().manual_seed(seed))
    problem = simulate(physics, truth, sigma_y, seed + 1)
    chains = torch.arange(draws).repeat_interleave(samples)
    seeds = [stream_seed(seed, int(j), i % samples) for i, j in enumerate(chains)]
    found = []
    for part in torch.arange(len(chains)).split(1 if sampler.population else _TOGETHER):    # one population's are no strangers
        *_, last = sampler.steps(prior, problem.rows(chains[part]), [seeds[i] for i in part])
        found.append(statistics(last.x0))
    return (torch.cat(found).reshape(draws, samples, -1) < statistics(truth)[:, None]).sum(1)


def tarp_ranks(samples: Tensor, truth: Tensor, references: Tensor) -> Tensor:
    """How many of S samples are nearer to a reference point than the truth is, (B,) integers from 0 to S.

    samples (B, S, ...), truth and references (B, ...). The references must not depend on the truth but through y: any fixed
    points, or images of other draws.
    """
    near = (samples - references[:, None]).flatten(2).square().sum(2)
    return (near < (truth - references).flatten(1).square().sum(1, keepdim=True)).sum(1)


def uniformity(ranks: Tensor, samples: int, bins: int | None = None) -> np.ndarray:
    """p-values (K,) of Pearson's chi-squared test that ranks (N, K) or (N,), from 0 to `samples`, are uniform.

    bins: as many as ranks fill with five or more each, if not given; those of unequal width count as such.
    """
    table = ranks.reshape(len(ranks), -1).numpy()
    bins = min(samples + 1, max(2, len(table) // 5)) if bins is None else bins
    edges = np.linspace(0, samples + 1, bins + 1).round()
    expected = np.diff(edges) / (samples + 1) * len(table)
    return np.array([chisquare(np.histogram(column, edges)[0], expected).pvalue for column in table.T])


def expected_coverage(ranks: Tensor, samples: int, levels: Sequence[float]) -> list[float]:
    """The share of truths inside the credible regions of these levels, from `tarp_ranks`: the levels themselves if the samples
    are the posterior's, less if they are too sure (Lemos et al. 2023, Algorithm 2). A rank r stands for the places from
    r / (S + 1) to (r + 1) / (S + 1) alike, so that few samples make no steps."""
    return [float((level * (samples + 1) - ranks.double()).clamp(0, 1).mean()) for level in levels]
