"""A prior for as long as a run takes."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from deepinv.models import Denoiser
from torch import nn

_LOCK = Lock()
_RUNS: WeakKeyDictionary[nn.Module, tuple[int, list[tuple[nn.Module, bool]]]] = WeakKeyDictionary()


@contextmanager
def in_use(prior: nn.Module) -> Iterator[None]:
    """For a run: the prior in evaluation mode, and gradients possible. After the last of several at a time it is as it was."""
    with _LOCK:
        runs, modes = _RUNS.get(prior) or (0, [(module, module.training) for module in prior.modules()])
        _RUNS[prior] = runs + 1, modes
        prior.eval()
    try:
        with torch.inference_mode(False):
            yield
    finally:
        with _LOCK:
            runs, modes = _RUNS.pop(prior)
            if runs > 1:
                _RUNS[prior] = runs - 1, modes
            else:
                for module, training in modes:
                    module.training = training


def in_single(prior: Denoiser) -> Denoiser:
    """The prior, or a copy of one whose weights are float64 in float32, as samplers work."""
    weights = list(prior.parameters()) or list(prior.buffers())
    return copy.deepcopy(prior).float() if any(weight.dtype == torch.float64 for weight in weights) else prior
