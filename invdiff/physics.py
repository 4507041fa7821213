"""What is asked of a physics, whoever wrote it."""

import copy
from typing import Any

import deepinv
import torch
from deepinv.physics import DecomposablePhysics, LinearPhysics, Physics, SequentialMRI, StackedPhysics
from deepinv.utils import TensorList
from torch import Tensor, nn

from operators import Inpainting, PaddedBlur, SeparableBlur, Stacked, StackedNonlinear, stack

Margins = list[tuple[int, int]]
NOTHING: Margins = [(0, 0), (0, 0)]
BORDERED = (PaddedBlur, SeparableBlur)      # by class, as an operator of one's own may call anything `border`


def copied(module: nn.Module) -> Any:
    """A copy that shares the tensors until they are replaced, and what else a module holds, such as the plan of a transform in
    another library, of which there is no copy."""
    other = copy.copy(module)
    other.__dict__.update(
        _buffers=dict(module._buffers),
        _parameters={name: held if held is None else nn.Parameter(held.detach(), held.requires_grad)     # replaced in place
                     for name, held in module._parameters.items()},
        _modules={name: held if held is None else copied(held) for name, held in module._modules.items()})
    return other


def in_single(physics: nn.Module, device: torch.device) -> Any:
    """The physics on a device in single precision: itself, or a copy where it is elsewhere or of another precision."""
    held = [t for t in (*physics.buffers(), *physics.parameters()) if t.is_floating_point() or t.is_complex()]
    if all(t.device == device and t.dtype == _single(t.dtype) for t in held):
        return physics
    physics = copied(physics).to(device)._apply(lambda t: t.to(_single(t.dtype)))
    for module in physics.modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.dtype):              # what some of deepinv's cast measurements to
                setattr(module, name, _single(value))
    return physics


def _single(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point else torch.complex64 if dtype.is_complex else dtype


def as_one(physics: Physics, y: Any, sigma_y: Any) -> tuple[Physics, Any, Any]:
    """deepinv's stack of operators, its list of measurements and a noise level for each, as one of each; others as they are."""
    if isinstance(physics, StackedPhysics):
        several = isinstance(sigma_y, list | tuple) or (isinstance(sigma_y, Tensor) and sigma_y.numel() > 1)
        levels = [float(level) for level in sigma_y] if several else None
        if levels:
            if 0 < sum(level > 0 for level in levels) < len(levels):
                raise ValueError(f"sigma_y: expected levels that are all 0, or all larger, got {levels}")
            sigma_y, levels = min(levels), levels if any(levels) else None
        size = None if isinstance(y, Tensor) or not isinstance(physics, LinearPhysics) else physics.A_adjoint(y).shape[1:]
        physics = stack(*physics.physics_list, noise=levels, img_size=size)
    if isinstance(physics, Stacked | StackedNonlinear) and isinstance(y, TensorList | list | tuple):
        y = physics.parts.join(y.x if isinstance(y, TensorList) else y)
    return physics, y, sigma_y


def image_shape(physics: Physics, y: Tensor) -> tuple[int, ...]:
    """(C, H, W) of the images that measurements y (B, ...) are of: img_size; of a linear operator where that has more or fewer
    numbers, as with deepinv's coils until they are called, of what A_adjoint makes of y. Raises ValueError if neither is known.
    """
    name, known = type(physics).__name__, _stated_size(physics)
    ours = getattr(physics, "measurement_size", None) is not None
    if known is not None and (len(known) == 3 or ours or not isinstance(physics, LinearPhysics)):
        return known
    if not isinstance(physics, LinearPhysics):
        raise ValueError(f"{name}: img_size is not set; expected (C, H, W), given by physics.img_size = (C, H, W)")
    try:
        with torch.no_grad():
            return tuple(physics.A_adjoint(y).shape[1:])        # of all: it may have parameters for each
    except Exception as error:
        raise ValueError(f"y: {name}.A_adjoint takes none of {tuple(y.shape)} ({said(error)}); expected measurements such as "
                         "A makes; set physics.img_size = (C, H, W) to be told their shape") from error


def said(error: Exception) -> str:
    """Its first line."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _stated_size(physics: Physics) -> tuple[int, ...] | None:
    for part in (physics, *getattr(physics, "physics_list", [])[:1]):       # of a product, the first to act
        if getattr(part, "img_size", None) is not None:
            return tuple(part.img_size)
    return None


def takes_one_at_a_time(physics: Physics, x: Tensor) -> bool:
    """Does A take the first of two images x (2, C, H, W), but not both?"""
    return _takes(physics, x[:1]) and not _takes(physics, x)


@torch.no_grad()
def _takes(physics: Physics, x: Tensor) -> bool:
    try:
        physics.A(x)
    except Exception:
        return False
    return True


def has_svd(physics: object) -> bool:
    """deepinv's SequentialMRI takes rows, but what it inherits of an SVD is that of another operator, of films."""
    return isinstance(physics, DecomposablePhysics) and not isinstance(physics, SequentialMRI)


def border(physics: object) -> Margins:
    """By how many pixels an image is larger than its measurement: above and below, left and right."""
    return physics.border if isinstance(physics, BORDERED) else NOTHING


def selects_pixels(physics: object) -> bool:
    """A = P, a selection of pixels, ours or deepinv's, whose masks may also be weights."""
    return isinstance(physics, Inpainting | deepinv.physics.Inpainting) and selects_orthonormal_rows(physics)


def selects_orthonormal_rows(physics: object) -> bool:
    """A = U P V^T with U and V orthonormal and P a selection: the singular values are 0 and 1."""
    if not isinstance(physics, DecomposablePhysics):
        return False
    mask = torch.as_tensor(physics.mask)
    return bool(((mask == 0) | (mask == 1)).all())
