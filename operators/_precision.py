"""Arithmetic in the precision of the numbers at hand, whatever torch.autocast would make of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def exact(function: Callable[Concatenate[Tensor, P], T]) -> Callable[Concatenate[Tensor, P], T]:
    """`function` without torch.autocast, which would take its products and convolutions in bfloat16.

    What an iteration divides by, or adds and subtracts again, does not survive an error of 1 in 256. A backward pass belongs
    outside of autocast, as PyTorch asks: inside, it is not exact.
    """

    @functools.wraps(function)
    def call(x: Tensor, *args: P.args, **kwargs: P.kwargs) -> T:
        kind = x.device.type
        if kind == "meta" or not torch.is_autocast_enabled(kind):
            return function(x, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(x, *args, **kwargs)

    return call


@exact
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, in the wider of their dtypes."""
    if a.dtype != b.dtype:
        dtype = torch.promote_types(a.dtype, b.dtype)
        a, b = a.to(dtype), b.to(dtype)
    return a @ b
