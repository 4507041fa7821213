"""Several measurements of one image, as one: exposures, views, contrasts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from deepinv.physics import LinearPhysics, Physics
from deepinv.physics.noise import NoiseModel
from torch import Tensor, nn

from operators import _check
from operators.iterative import IterativePhysics


class Parts(nn.Module):
    """Operators for one image, and their measurements (B, ...) as one tensor (B, M): each flattened, and scaled by `scales`.

    sizes: shapes of the measurements, without the batch. noise: standard deviation of each, if it was said.
    """

    scales: Tensor
    operators: Any

    def __init__(self, physics: Sequence[Physics], noise: Sequence[float] | None, img_size: Sequence[int] | None):
        super().__init__()
        if not physics:
            raise ValueError("physics: expected one operator or more, got none")
        self.img_size = _image_size(physics, img_size)
        self.operators = nn.ModuleList(physics)
        self.noise = None if noise is None else tuple(noise)
        self.sizes = [_measurement_size(part, self.img_size) for part in physics]
        self.register_buffer("scales", _scales(noise, len(physics)))

    def join(self, measurements: Iterable[Tensor]) -> Tensor:
        """(B, M) of measurements (B, ...), one for each operator. Raises ValueError on others."""
        parts = list(measurements)
        if [tuple(part.shape[1:]) if isinstance(part, Tensor) else None for part in parts] != self.sizes:
            found = (tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts)
            wanted = ", ".join(f"(B, {', '.join(map(str, size))})" for size in self.sizes)
            raise ValueError(f"measurements: expected tensors {wanted}, got {', '.join(map(str, found))}")
        return torch.cat([scale * part.flatten(1) for scale, part in zip(self.scales, parts, strict=True)], 1)

    def split(self, y: Tensor) -> list[Tensor]:
        """The inverse of `join`."""
        return [part / scale for scale, part in zip(self.scales, self._cut(y), strict=True)]

    def scaled(self, y: Tensor) -> list[Tensor]:
        """The adjoint of `join`."""
        return [part * scale for scale, part in zip(self.scales, self._cut(y), strict=True)]

    def _cut(self, y: Tensor) -> list[Tensor]:
        counts = [math.prod(size) for size in self.sizes]
        _check.images(self, "y", y, (sum(counts),))
        return [part.unflatten(1, size) for part, size in zip(y.split(counts, 1), self.sizes, strict=True)]


class Stacked(IterativePhysics):
    """y = (A_1 x, ..., A_n x) of linear operators, each measurement flattened, in one tensor (B, M).

    `parts.join` makes y of a list of measurements, `parts.split` takes it apart.

    physics: linear operators, ours or deepinv's, for images of one size; calls pass their keywords on to each.
    noise: standard deviation of each one's white noise, > 0. What has more than the least is scaled down to it, by `A` as by
        `join`, so that the noise of y is white too, of that least level. Without it they are all alike.
    img_size: (C, H, W), where no operator knows it. noise_model, max_iter, tol: deepinv's.
    Raises ValueError: no operator, one that is not linear, no image size, a wrong noise.
    """

    def __init__(
        self,
        physics: Sequence[Physics],
        noise: Sequence[float] | None = None,
        *,
        img_size: Sequence[int] | None = None,
        noise_model: NoiseModel | None = None,
        max_iter: int = 100,
        tol: float = 1e-4,
    ):
        if strange := [type(part).__name__ for part in physics if not isinstance(part, LinearPhysics)]:
            raise ValueError(f"physics: expected linear operators, got {strange[0]}; StackedNonlinear takes any")
        parts = Parts(physics, noise, img_size)
        super().__init__(img_size=parts.img_size, noise_model=noise_model, max_iter=max_iter, tol=tol)
        self.parts = parts
        self.measurement_size = (sum(map(math.prod, parts.sizes)),)

    def forward(self, x: Tensor, **kwargs) -> Tensor:
        """A x, with the noise that each operator's own noise_model adds, and then that of this one."""
        return self.noise(self.parts.join(part(x, **kwargs) for part in self.parts.operators))

    def A(self, x: Tensor, **kwargs) -> Tensor:
        return self.parts.join(part.A(x, **kwargs) for part in self.parts.operators)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        pairs = zip(self.parts.operators, self.parts.scaled(y), strict=True)
        return torch.stack([part.A_adjoint(v, **kwargs) for part, v in pairs]).sum(0)

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        pairs = zip(self.parts.operators, self.parts.scales, strict=True)
        return torch.stack([scale**2 * part.A_adjoint_A(x, **kwargs) for part, scale in pairs]).sum(0)

    def update_parameters(self, **kwargs) -> None:
        """Passed on to each operator."""
        for part in self.parts.operators:
            part.update_parameters(**kwargs)


class StackedNonlinear(Physics):
    """The same of operators that need not be linear; arguments and errors as of `Stacked`."""

    def __init__(
        self,
        physics: Sequence[Physics],
        noise: Sequence[float] | None = None,
        *,
        img_size: Sequence[int] | None = None,
        noise_model: NoiseModel | None = None,
    ):
        super().__init__(noise_model=noise_model)
        self.parts = Parts(physics, noise, img_size)
        self.img_size = self.parts.img_size
        self.measurement_size = (sum(map(math.prod, self.parts.sizes)),)

    def forward(self, x: Tensor, **kwargs) -> Tensor:
        """A x, with the noise that each operator's own noise_model adds, and then that of this one."""
        return self.noise(self.parts.join(part(x, **kwargs) for part in self.parts.operators))

    def A(self, x: Tensor, **kwargs) -> Tensor:
        return self.parts.join(part.A(x, **kwargs) for part in self.parts.operators)

    def A_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J(x)^T v, (B, C, H, W), for v (B, M)."""
        pairs = zip(self.parts.operators, self.parts.scaled(v), strict=True)
        return torch.stack([part.A_vjp(x, w) for part, w in pairs]).sum(0)

    def update_parameters(self, **kwargs) -> None:
        """Passed on to each operator."""
        for part in self.parts.operators:
            part.update_parameters(**kwargs)


def stack(
    *physics: Physics, noise: Sequence[float] | None = None, img_size: Sequence[int] | None = None
) -> Stacked | StackedNonlinear:
    """`Stacked` of linear operators, `StackedNonlinear` of others. Raises ValueError as they do."""
    linear = all(isinstance(part, LinearPhysics) for part in physics)
    return (Stacked if linear else StackedNonlinear)(physics, noise, img_size=img_size)


def _image_size(physics: Sequence[Physics], given: Sequence[int] | None) -> tuple[int, ...]:
    said = (given, *(getattr(part, "img_size", None) for part in physics))
    known = [tuple(size) for size in said if size is not None and len(size) == 3]  # deepinv's coils say (H, W) until called
    if not known:
        raise ValueError("img_size: no operator knows the image's size; expected (C, H, W)")
    if other := [size for size in known if size != known[0]]:
        raise ValueError(f"physics: expected operators for images of one size, got {known[0]} and {other[0]}")
    return known[0]


def _measurement_size(physics: Physics, img_size: tuple[int, ...]) -> tuple[int, ...]:
    size = getattr(physics, "measurement_size", None)
    if size is not None:
        return tuple(size)
    device = next((held.device for held in (*physics.buffers(), *physics.parameters())), torch.device("cpu"))
    with torch.no_grad():
        return tuple(physics.A(torch.full((1, *img_size), 0.5, device=device)).shape[1:])


def _scales(noise: Sequence[float] | None, count: int) -> Tensor:
    levels = [_check.real("noise", level, 0, math.inf, low_included=False) for level in (noise or [1.0] * count)]
    if len(levels) != count:
        raise ValueError(f"noise: expected one level for each of {count} operators, got {len(levels)}")
    return torch.tensor([min(levels) / level for level in levels])
