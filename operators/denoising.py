"""Denoising: the image is seen whole, y = x + n."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check


class Denoising(DecomposablePhysics):
    """The identity, y = x + n.

    img_size: (C, H, W). noise_model, device: deepinv's; without a noise model `physics(x)` is x.
    x and y are (B, C, H, W), so measurement_size = img_size. All singular values are 1.
    Raises ValueError on a bad img_size, and when called on a tensor of another size.
    """

    mask: Tensor

    def __init__(
        self, img_size: Sequence[int], *, noise_model: NoiseModel | None = None, device: torch.device | str = "cpu"
    ):
        img_size = _check.image_size(img_size)
        super().__init__(
            img_size=img_size, mask=torch.ones(1, 1, *img_size[1:]), noise_model=noise_model, device=device
        )
        self.measurement_size = img_size

    update_parameters = _check.keep_parameters

    @property
    def singular_values(self) -> Tensor:
        """(1, 1, H, W), all 1."""
        return self.mask

    @property
    def response(self) -> Tensor:
        """Its spectrum as a circular filter, all 1, (H, W // 2 + 1)."""
        return self.mask[0, 0, :, : self.img_size[2] // 2 + 1]

    @property
    def response_power(self) -> Tensor:
        """|response|², the same."""
        return self.response

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """A copy of x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return x.clone()

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A copy of y (B, C, H, W)."""
        _check.images(self, "y", y, self.measurement_size)
        return y.clone()

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """A copy of x."""
        return self.A(x)

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A copy of y."""
        return self.A_adjoint(y)

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """A copy of y."""
        return self.A_adjoint(y)

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |x - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        return _algebra.prox_orthogonal_rows(self, z, y, gamma, sq_norm=1.0)

    def solve_stationary(self, power: Tensor, r: Tensor, sigma: float | Tensor) -> Tensor:
        """(C + sigma² I)^{-1} r, (B, C, H, W); arguments as in `Blur.solve_stationary`."""
        _check.images(self, "r", r, self.measurement_size)
        power = _algebra.half_power(power, r, *self.img_size[1:])
        return _algebra.solve_circulant(power + _algebra.per_image(sigma, r) ** 2, r)
