"""Averages of the weights over a run, several lengths at once."""

import copy
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class Averages(Generic[Network]):
    """Power-function averages (Karras et al. 2024, Eqs. 1 to 3): after step n the weights of step t count as t^gamma.

    Each spans a fixed share of the run, however long it is; the smaller gamma, the longer. `copies` are the network with
    the averaged weights, one for each gamma, in evaluation mode.
    """

    def __init__(self, network: Network, gammas: Sequence[float]):
        self.gammas = tuple(gammas)
        self.copies = [copy.deepcopy(network).requires_grad_(False).eval() for _ in gammas]

    @torch.no_grad()
    def update(self, parameters: Sequence[nn.Parameter], step: int) -> None:
        """Take in the weights after `step`, which counts from 1: the first ones are the average."""
        for gamma, average in zip(self.gammas, self.copies, strict=True):
            beta = (1 - 1 / step) ** (gamma + 1)
            torch._foreach_lerp_(list(average.parameters()), list(parameters), 1 - beta)


def relative_width(gamma: float) -> float:
    """Standard deviation of the profile t^gamma on [0, 1], the share of the run that an average spans (ibid., Eq. 2 and
    appendix C)."""
    return ((gamma + 1) / (gamma + 3)) ** 0.5 / (gamma + 2)
