"""Partial Fourier: real images of known phase, which half of k-space and a little more determine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _check, _parameters
from operators.iterative import IterativePhysics
from operators.mri.cartesian import MRI
from operators.mri.multicoil import MultiCoilMRI


@_parameters.also_in_calls
class PhaseConstrained(IterativePhysics):
    """y = A(x e^{i phase}) + n: an MRI operator on real images x, of either sign, whose phase is known.

    physics: `MRI`, or `MultiCoilMRI` with one set of maps. phase: radians, *grid (such as (H, W)), or (B, 1, *grid) for a
    batch. noise_model: deepinv's, that of `physics` by default. tol, max_iter: of the conjugate gradients.
    x is (B, 1, *grid), y as for `physics`. A_dagger is the least-squares form of homodyne reconstruction.
    Raises ValueError on another operator, on a phase of another shape or that is not real and finite, and when called on
    a tensor of another size.
    Source: Noll, Nishimura & Macovski 1991, homodyne detection.
    """

    _direction: Tensor

    def __init__(
        self,
        physics: MRI | MultiCoilMRI,
        phase: Tensor | np.ndarray,
        *,
        noise_model: NoiseModel | None = None,
        tol: float = 1e-4,
        max_iter: int = 100,
    ):
        if not isinstance(physics, (MRI, MultiCoilMRI)) or physics.img_size[0] != 2:
            raise ValueError(f"physics: expected MRI, or MultiCoilMRI with one set of maps, got {type(physics).__name__}")
        grid, device = physics.img_size[1:], physics.mask.device
        direction = _direction(phase, grid)
        super().__init__(
            img_size=(1, *grid), noise_model=noise_model or physics.noise_model, device=device, tol=tol, max_iter=max_iter
        )
        self.measurement_size = physics.measurement_size
        self.physics = physics
        self.register_buffer("_direction", direction.to(device, physics.mask.dtype))

    def update_parameters(self, phase: Tensor | np.ndarray | None = None, **kwargs) -> None:
        """Take another phase, unless it is None, as the constructor does; other parameters are those of `physics`."""
        direction = self._direction if phase is None else _direction(phase, self.img_size[1:])
        self.physics.update_parameters(**kwargs)
        self._direction = direction.to(self._direction)

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """k-space of x e^{i phase}, as `physics` has it."""
        return self.physics.A(self._turned(x))

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """Re(e^{-i phase} Aᴴ y), (B, 1, *grid)."""
        return (self.physics.A_adjoint(y) * self._direction).sum(1, keepdim=True)

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """Re(e^{-i phase} AᴴA e^{i phase} x), (B, 1, *grid)."""
        return (self.physics.A_adjoint_A(self._turned(x)) * self._direction).sum(1, keepdim=True)

    def noise(self, x: Tensor, **kwargs) -> Tensor:
        """The noisy measurement; what is not sampled stays zero."""
        mask = self.physics.mask
        return self.noise_model(x, **kwargs) * (mask if mask.ndim == x.ndim else mask[:, :, None])

    def _turned(self, x: Tensor) -> Tensor:
        _check.images(self, "x", x, self.img_size)
        return x * self._direction


def _direction(phase: Tensor | np.ndarray, grid: tuple[int, ...]) -> Tensor:
    """e^{i phase} as channels, float64 (1 or B, 2, *grid)."""
    angle = _check.own_tensor(phase)
    if angle.shape != grid and (angle.ndim != len(grid) + 2 or angle.shape[1:] != (1, *grid)):
        raise ValueError(f"phase: expected {grid} or (B, 1, *) of that, got {tuple(angle.shape)}")
    if not angle.is_floating_point():
        raise ValueError(f"phase: expected real radians, got {angle.dtype}")
    _check.finite("phase", angle)
    angle = angle.double().reshape(-1, 1, *grid)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def low_resolution_phase(physics: MRI | MultiCoilMRI, y: Tensor, center: Sequence[int]) -> Tensor:
    """Phase (B, 1, *grid), radians, of the image that the centre of k-space shows, for `PhaseConstrained`.

    y: (B, 2, *grid) or (B, 2, N, *grid), as measured by `physics`. center: the size, along each Fourier axis, of the
    block around the centre that is sampled on both sides; it is weighted with a Hann window against ringing.
    Raises ValueError on a block that is larger than k-space, or a number of sizes that is not that of the axes.
    """
    sizes = physics.img_size[-physics.spatial_dims :]
    center = tuple(_check.integer("center", n, 1) for n in center)
    if len(center) != len(sizes) or any(n > size for n, size in zip(center, sizes, strict=True)):
        raise ValueError(f"center: expected a size for each axis of {sizes}, none larger, got {center}")
    for axis, (n, size) in enumerate(zip(center, sizes, strict=True), start=-len(sizes)):
        place = torch.arange(size, device=y.device) - size // 2
        window = torch.cos(torch.pi * place / (n + 1)).square() * (place.abs() <= (n - 1) // 2)
        y = y * window.to(y.dtype).reshape([-1 if a == axis else 1 for a in range(-len(sizes), 0)])
    x = physics.A_adjoint(y)
    return torch.atan2(x[:, 1:], x[:, :1])
