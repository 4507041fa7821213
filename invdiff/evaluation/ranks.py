"""Are posterior samples spread as they should be? Ranks of the truth among them, which are uniform if they are.

The truth is drawn from the prior and the measurement from the truth; then the distance to a reference point has a uniform rank
among that of S posterior samples (TARP, Lemos et al. 2023). It tells of many dimensions at once, and needs no statistic.
"""

from collections.abc import Sequence

from torch import Tensor


def tarp_ranks(samples: Tensor, truth: Tensor, references: Tensor) -> Tensor:
    """How many of S samples are nearer to a reference point than the truth is, (B,) integers from 0 to S.

    samples (B, S, ...), truth and references (B, ...). The references must not depend on the truth but through y: any fixed
    points, or images of other draws.
    """
    near = (samples - references[:, None]).flatten(2).square().sum(2)
    return (near < (truth - references).flatten(1).square().sum(1, keepdim=True)).sum(1)


def expected_coverage(ranks: Tensor, samples: int, levels: Sequence[float]) -> list[float]:
    """The share of truths inside the credible regions of these levels, from `tarp_ranks`: the levels themselves if the samples
    are the posterior's, less if they are too sure (Lemos et al. 2023, Algorithm 2). A rank r stands for the places from
    r / (S + 1) to (r + 1) / (S + 1) alike, so that few samples make no steps."""
    return [float((level * (samples + 1) - ranks.double()).clamp(0, 1).mean()) for level in levels]
