"""Batches made ahead in threads are those made on the spot."""

import numpy as np
import pytest
import torch

from invdiff.errors import InputError
from invdiff.training.batches import Batches
from invdiff.training.patches import Patches


@pytest.fixture
def patches():
    rng = np.random.default_rng(0)
    return Patches([rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(3)], 32, grey=0.4)


def same(a, b):
    return torch.equal(a.x0, b.x0) and torch.equal(a.noise, b.noise) and a.rng.random() == b.rng.random()


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing_wherever_a_run_begins(patches, workers):
    now, ahead = (Batches(patches, (16, 32), 8, 1, workers=n) for n in (0, workers))
    for start, end in ((0, 9), (4, 6), (5, 6)):
        for step in range(start, end):
            assert same(ahead.get(step, end), now.get(step, end))
        assert not ahead.ahead          # none beyond the end
        ahead.close()


def test_the_shares_of_processes_make_the_batch(patches):
    whole = Batches(patches, (16,), 7, 1).make(3)
    shares = [Batches(patches, (16,), 7, 1, rank=rank, processes=3).make(3) for rank in range(3)]
    assert [len(s.x0) for s in shares] == [3, 2, 2]
    for rank, share in enumerate(shares):
        assert torch.equal(share.x0, whole.x0[rank::3])
        assert torch.equal(share.noise, whole.noise[rank::3])
        assert share.count == whole.count == 7
        assert share.rng.bit_generator.state == whole.rng.bit_generator.state        # so their noise levels are the same, too


def test_an_error_in_a_thread_comes_out_at_its_step(patches):
    class Damaged:
        def batch(self, count, size, rng, mine):
            raise InputError("3.png: not a readable image")

    batches = Batches(Damaged(), (16,), 4, 0, workers=1)
    with pytest.raises(InputError, match=r"3\.png"):
        batches.get(0, 5)
    batches.close()
