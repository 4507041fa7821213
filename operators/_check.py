"""Validation of arguments: one sentence that names the quantity, its value and what would be right."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import Physics


def integer(name: str, value: object, low: int) -> int:
    """`value` as an int that is at least `low`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or number < low:
        raise ValueError(f"{name}: expected an integer >= {low}, got {value!r}")
    return number


def real(name: str, value: object, low: float, high: float, low_included: bool = True) -> float:
    """`value` as a finite float in [low, high], or in (low, high]."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    in_range = low <= number <= high if low_included else low < number <= high
    if not (in_range and math.isfinite(number)):
        interval = f"{'[' if low_included else '('}{low:g}, {high:g}{')' if math.isinf(high) else ']'}"
        raise ValueError(f"{name}: expected a number in {interval}, got {value!r}")
    return number


def image_size(img_size: Sequence[int]) -> tuple[int, int, int]:
    """`img_size` as three positive ints (C, H, W)."""
    try:
        channels, height, width = (operator.index(n) for n in img_size)
    except (TypeError, ValueError):
        raise ValueError(f"img_size: expected three integers (C, H, W), got {img_size!r}") from None
    if min(channels, height, width) < 1:
        raise ValueError(f"img_size: expected (C, H, W) of at least 1 each, got {tuple(img_size)}")
    return channels, height, width


def own_tensor(value: torch.Tensor | np.ndarray) -> torch.Tensor:
    """A copy of `value`: what the caller later writes into it must not reach the operator."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    array = np.asarray(value)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))  # torch knows only the machine's own


def keep_parameters(physics: Physics, **kwargs: object) -> None:
    """What `update_parameters` is where no parameter is a tensor: nothing. deepinv's would write to whatever has the name."""


def images(physics: Physics, name: str, value: torch.Tensor, size: Sequence[int]) -> None:
    """Raise unless `value` is a real floating tensor (..., *size), on the operator's device."""
    size = tuple(size)
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name}: expected a tensor (B, {', '.join(map(str, size))}), got {type(value).__name__}")
    if value.ndim < len(size) or tuple(value.shape[-len(size) :]) != size:
        raise ValueError(f"{name}: expected (B, {', '.join(map(str, size))}), got {tuple(value.shape)}")
    if not value.is_floating_point():
        raise ValueError(f"{name}: expected a real floating-point tensor, got {value.dtype}")
    own = _device(physics, value)
    if value.device != own:
        raise ValueError(f"{name}: expected a tensor on {own}, where the operator is, got one on {value.device}")


def _device(physics: Physics, default: torch.Tensor) -> torch.device:
    for buffer in physics._buffers.values():  # a walk through all submodules takes as long as masking an image
        if buffer is not None:
            return buffer.device
    return next(physics.buffers(), default).device


def finite(name: str, value: torch.Tensor) -> None:
    """Raise unless every entry of `value` is finite."""
    bad = int((~value.isfinite()).sum())
    if bad:
        raise ValueError(f"{name}: expected finite values, got NaN or infinity in {bad} of {value.numel()} places")
