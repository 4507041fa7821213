"""Super-resolution: a sensor whose pixels are larger than the image's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check


class SuperResolution(DecomposablePhysics):
    """y = the mean of x over blocks of factor x factor pixels, plus noise.

    img_size: (C, H, W) of the high-resolution image. factor: an integer >= 1 that divides H and W.
    noise_model, device: deepinv's. x is (B, C, H, W), y (B, C, H / factor, W / factor) in the same units.

    Singular values are 1 / factor, one a block. V is the orthonormal DCT-II of each block; its coefficients lie in
    the block's place, the constant one first. U carries that one to y.
    Raises ValueError on a factor that does not divide H and W, and when called on a tensor of another size.
    """

    mask: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        factor: int = 2,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        channels, height, width = img_size = _check.image_size(img_size)
        factor = _check.integer("factor", factor, 1)
        if height % factor or width % factor:
            larger = tuple(-(-n // factor) * factor for n in (height, width))
            smaller = tuple(max(n // factor * factor, factor) for n in (height, width))
            raise ValueError(
                f"img_size: expected (H, W) divisible by the factor {factor}, such as {smaller} or {larger}, "
                f"got {(height, width)}"
            )
        super().__init__(
            img_size=img_size, mask=torch.zeros(1, 1, height, width), noise_model=noise_model, device=device
        )
        self.measurement_size = (channels, height // factor, width // factor)
        self.factor = factor
        self._set_singular_values()

    def _set_singular_values(self) -> None:
        self.mask[..., :: self.factor, :: self.factor] = 1 / self.factor

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        if hasattr(self, "factor"):  # not while deepinv's constructor runs
            self._set_singular_values()  # 1/3 rounded to float32 is not 1/3 in float64
        return self

    @property
    def singular_values(self) -> Tensor:
        """(1, 1, H, W): 1 / factor at the first pixel of each block, 0 elsewhere."""
        return self.mask

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """Block means, (B, C, h, w), of x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return F.avg_pool2d(x, self.factor)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """(B, C, H, W): each pixel of y (B, C, h, w) spread over its block, divided by factor²."""
        return self.A_dagger(y) / self.factor**2

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᵀA x, (B, C, H, W)."""
        return self.A_adjoint(self.A(x))

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A Aᵀ y = y / factor²."""
        _check.images(self, "y", y, self.measurement_size)
        return y / self.factor**2

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """(B, C, H, W): each pixel of y (B, C, h, w) copied over its block."""
        _check.images(self, "y", y, self.measurement_size)
        return y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        return _algebra.prox_orthogonal_rows(self, z, y, gamma, sq_norm=1 / self.factor**2)

    def U(self, x: Tensor) -> Tensor:
        """Measurement (B, C, h, w): the first coefficient of each block of x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return x[..., :: self.factor, :: self.factor]

    def U_adjoint(self, x: Tensor, **kwargs) -> Tensor:
        """Coefficients (B, C, H, W) of a measurement (B, C, h, w): the first of each block, the others zero."""
        _check.images(self, "y", x, self.measurement_size)
        coefficients = x.new_zeros(*x.shape[:-3], *self.img_size)
        coefficients[..., :: self.factor, :: self.factor] = x
        return coefficients

    def V(self, x: Tensor, **kwargs) -> Tensor:
        """Image (B, C, H, W) of the coefficients x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return self._transform_blocks(x, _dct(self.factor, x))

    def V_adjoint(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, H, W) of the image x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return self._transform_blocks(x, _dct(self.factor, x).T)

    def _transform_blocks(self, x: Tensor, matrix: Tensor) -> Tensor:
        _, h, w = self.measurement_size
        blocks = x.unflatten(-1, (w, self.factor)).unflatten(-3, (h, self.factor))  # (..., h, factor, w, factor)
        return torch.einsum("...yixj,ki,lj->...ykxl", blocks, matrix, matrix).reshape(x.shape)

    def solve_stationary(self, power: Tensor, r: Tensor, sigma: float | Tensor) -> Tensor:
        """(A C Aᵀ + sigma² I)^{-1} r, (B, C, h, w); arguments as in `Blur.solve_stationary`.

        The blocks' means are a circular box filter read at every factor-th pixel, so A C Aᵀ is circulant too: its
        spectrum is the mean of the filtered one over the factor² frequencies that alias.
        """
        _check.images(self, "r", r, self.measurement_size)
        _, height, width = self.img_size
        _, h, w = self.measurement_size
        power = _algebra.full_power(_algebra.half_power(power, r, height, width), width)
        power = power * _box_gain(height, self.factor, power)[:, None] * _box_gain(width, self.factor, power)
        folded = power.unflatten(-1, (self.factor, w)).unflatten(-3, (self.factor, h)).mean((-4, -2))
        return _algebra.solve_circulant(folded[..., : w // 2 + 1] + _algebra.per_image(sigma, r) ** 2, r)


def _dct(n: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II basis (n, n), a column a frequency, the constant one first."""
    k = torch.arange(n, dtype=like.dtype, device=like.device)
    basis = torch.cos(torch.pi / n * (k[:, None] + 0.5) * k) * (2 / n) ** 0.5
    basis[:, 0] = n**-0.5
    return basis


def _box_gain(n: int, factor: int, like: Tensor) -> Tensor:
    """Squared modulus (n,) of the response of the mean over `factor` samples, on a circle of n."""
    box = torch.full((factor,), 1 / factor, dtype=like.dtype, device=like.device)
    return torch.fft.fft(box, n=n).abs() ** 2
