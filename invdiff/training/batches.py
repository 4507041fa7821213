"""The batches of a run, made ahead of time in threads. A batch is a function of (seed, step), so nothing of this is state."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class PatchSource(Protocol):
    """`Patches`, `ComplexPatches`, `WholeImages` or `Latents`: clean images, which of them are grey, and, from the last two,
    their classes."""

    def __len__(self) -> int: ...

    def batch(self, count: int, size: int, rng: np.random.Generator, mine: slice) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True)
class Batch:
    """A step's share of clean patches x0 and unit noise (B, C, H, W), and of their classes (B,), where they have some.

    `count` is the size of the whole batch, over all processes, and `rng` the step's generator, from which its noise levels
    come next."""

    x0: Tensor
    noise: Tensor
    count: int
    rng: np.random.Generator
    classes: Tensor | None = None


def brightness_of(patches: PatchSource, size: int) -> list[float]:
    """The root mean square of eight patches, always the same ones: it tells whether a run goes on with the images that it had.
    Numbers and no digest, as decoders differ in the last digit."""
    x0, *_ = patches.batch(8, size, np.random.default_rng(0), slice(None))
    return [float(f"{value:.5g}") for value in x0.square().mean(dim=(1, 2, 3)).sqrt().tolist()]


class Batches:
    """What a process sees of each batch: every `processes`-th item, from item `rank` on.

    Args:
        patches: where clean images come from.
        sizes: of the patches, which steps take in turn.
        batch: patches of the smallest size in a batch; there are as many pixels of the others.
        workers: threads; with 0 a batch is made when it is asked for.
        pinned: in page-locked memory, which copies to a GPU faster.
    """

    def __init__(self, patches: PatchSource, sizes: Sequence[int], batch: int, seed: int, *, rank: int = 0,
                 processes: int = 1, workers: int = 0, pinned: bool = False):
        self.patches, self.sizes, self.batch, self.seed, self.pinned = patches, sizes, batch, seed, pinned
        self.mine = slice(rank, None, processes)
        self.workers = workers
        self.pool: ThreadPoolExecutor | None = None
        self.ahead: dict[int, Future[Batch]] = {}

    def count(self, step: int) -> int:
        """Patches in the whole batch of a step."""
        return max(1, round(self.batch * (min(self.sizes) / self.sizes[step % len(self.sizes)]) ** 2))

    def get(self, step: int, end: int) -> Batch:
        """The batch of `step`; those that follow, of the steps before `end`, are begun."""
        if not self.workers:
            return self.make(step)
        self.pool = self.pool or ThreadPoolExecutor(self.workers, "batches")
        for later in range(step, min(step + self.workers + 2, end)):
            if later not in self.ahead:
                self.ahead[later] = self.pool.submit(self.make, later)
        return self.ahead.pop(step).result()

    def make(self, step: int) -> Batch:
        """The noise is the same on all channels where the patch is grey."""
        rng = np.random.default_rng([self.seed, step])
        count, size = self.count(step), self.sizes[step % len(self.sizes)]
        x0, grey, *classes = self.patches.batch(count, size, rng, self.mine)
        # drawn for all items, so that an item's noise does not depend on the number of processes
        noise = rng.standard_normal((count, *x0.shape[1:]), dtype=np.float32)[self.mine]
        noise[grey.numpy()] = noise[grey.numpy()][:, :1]
        batch = torch.from_numpy(np.ascontiguousarray(noise))
        return Batch(x0.pin_memory() if self.pinned else x0, batch.pin_memory() if self.pinned else batch, count, rng, *classes)

    def close(self) -> None:
        """Drop what was made ahead, and end the threads; `get` starts new ones."""
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool, self.ahead = None, {}
