"""Which chains of a run are drawn together, and what becomes of them when memory is short."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from invdiff.errors import InputError
from invdiff.machine import out_of_memory
from invdiff.posterior import Sampler
from invdiff.problem import Problem

Chain = tuple[int, int]                     # measurement, sample


@dataclass(frozen=True)
class Chunk:
    """Chains drawn together. whole: why they must be, or nothing if they need not."""

    chains: Sequence[Chain]
    whole: str = ""

    def parts(self, size: int) -> list["Chunk"]:
        """The same chains, at most `size` together where that is allowed."""
        if self.whole or len(self.chains) <= size:
            return [self]
        return [Chunk(self.chains[k : k + size]) for k in range(0, len(self.chains), size)]


@dataclass
class Costs:
    """What chains took: seconds, images through the network, products with its Jacobian, operator calls."""

    seconds: float = 0.0
    network_calls: int = 0
    network_gradients: int = 0
    operator_calls: int = 0

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Drawn:
    """A finished chunk: its samples by chain, (C, H, W) each, what they took, and the last step's info."""

    samples: Mapping[Chain, torch.Tensor]
    costs: Costs
    info: Mapping[str, Any] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """All but the samples, as plain values."""
        return {"chains": list(self.samples), "costs": vars(self.costs), "info": dict(self.info)}

    @classmethod
    def restored(cls, samples: torch.Tensor, about: Mapping[str, Any]) -> "Drawn":
        """From the samples (N, C, H, W) and what `about` gave."""
        chains = [(int(j), int(i)) for j, i in about["chains"]]
        return cls(dict(zip(chains, samples, strict=True)), Costs(**about["costs"]), about["info"])


def plan(problem: Problem, sampler: Sampler, samples: int, size: int, drawn: Sequence[Drawn] = ()) -> list[Chunk]:
    """The chunks of a run that are still to be drawn. Sample by sample, so that measurements are finished evenly; but for a
    population measurement by measurement. An operator with parameters of its own for each keeps the measurements together.

    Raises InputError for such an operator and a sampler of one measurement at a time, or an integrator that chooses each
    chain's levels.
    """
    count, adapts = len(problem.y), sampler.integrates and sampler.integrator.adaptive
    name = type(sampler.integrator if adapts else sampler).__name__
    done = {chain for chunk in drawn for chain in chunk.samples}
    if problem.together and (sampler.population or sampler.singly or adapts):
        raise InputError(f"{name} takes one measurement at a time, and this {type(problem.physics).__name__} has "
                         f"parameters of its own for each of {count}; restore them one by one")
    if sampler.population:
        why = f"{name} needs all samples of a measurement at once"
        chunks = [Chunk([(j, i) for i in range(samples)], why) for j in range(count)]
        return [chunk for chunk in chunks if not done.issuperset(chunk.chains)]
    if problem.together:
        why = f"the operator has parameters of its own for each of {count} measurements, and takes them together"
        chunks = [Chunk([(j, i) for j in range(count)], why) for i in range(samples)]
        return [chunk for chunk in chunks if not done.issuperset(chunk.chains)]
    every = Chunk([(j, i) for i in range(samples) for j in range(count)])
    return [Chunk(left) for chunk in every.parts(size) if (left := [c for c in chunk.chains if c not in done])]


def draw_all(pending: Sequence[Chunk], draw: Callable[[Chunk, int], None], sampler: Sampler) -> None:
    """Call draw(chunk, number of chunks after it) for all; short of memory, halve the chunk and those after it, and go on.

    Raises InputError where a chunk cannot be halved.
    """
    queue = list(pending)
    while queue:
        try:
            draw(queue[0], len(queue) - 1)
            queue.pop(0)
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if queue[0].whole:
                raise InputError(f"memory: {len(queue[0].chains)} chains do not fit, and {queue[0].whole}; take fewer or "
                                 "smaller ones, or a machine with more memory") from error
            if len(queue[0].chains) == 1:
                lighter = "" if getattr(sampler, "covariance", None) not in ("low-rank", "exact") else (
                    "sampler.covariance=local, which needs no gradients of the network, ")
                raise InputError(f"memory: a single chain does not fit; take {lighter}a smaller image, or a machine with more "
                                 "memory") from error
        half = (len(queue[0].chains) + 1) // 2          # outside of `except`: the error held on to the tensors
        queue = [part for chunk in queue for part in chunk.parts(half)]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
