"""Super-resolution: block means, bicubic reduction, and Gaussian blur with decimation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check
from operators._precision import exact
from operators.resampling import cubic_matrix, gaussian_matrix
from operators.separable import Separable


class SuperResolution(DecomposablePhysics):
    """y = the mean of x over blocks of factor x factor pixels, plus noise.

    img_size: (C, H, W) of the high-resolution image. factor: an integer >= 1 that divides H and W.
    noise_model, device: deepinv's. x is (B, C, H, W), y (B, C, H / factor, W / factor) in the same units.

    Singular values are 1 / factor, one a block. V is the orthonormal DCT-II of each block; its coefficients lie in
    the block's place, the constant one first. U carries that one to y.
    Raises ValueError on a factor that does not divide H and W, and when called on a tensor of another size.
    """

    mask: Tensor
    block_side = "factor"  # the parameter that divides the sides of an image

    def __init__(
        self,
        img_size: Sequence[int],
        factor: int = 2,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        channels, height, width = img_size = _check.image_size(img_size)
        factor = _as_factor(factor, img_size)
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

    update_parameters = _check.keep_parameters

    @property
    def singular_values(self) -> Tensor:
        """(1, 1, H, W): 1 / factor at the first pixel of each block, 0 elsewhere."""
        return self.mask

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """Block means, (B, C, h, w), of x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        # slices added up are several times as fast as avg_pool2d on a CPU
        rows = reduce(torch.add, (x[..., i :: self.factor, :] for i in range(self.factor)))
        return reduce(torch.add, (rows[..., i :: self.factor] for i in range(self.factor))) / self.factor**2

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
        return _transform_blocks(x, _dct(self.factor, x))

    def V_adjoint(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, H, W) of the image x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return _transform_blocks(x, _dct(self.factor, x).T)

    def solve_stationary(self, power: Tensor, r: Tensor, sigma: float | Tensor) -> Tensor:
        """(A C Aᵀ + sigma² I)^{-1} r, (B, C, h, w); arguments as in `Blur.solve_stationary`.

        The blocks' means are a circular box filter read at every factor-th pixel.
        """
        _check.images(self, "r", r, self.measurement_size)
        gains = [_box_gain(n, self.factor, r) for n in self.img_size[1:]]
        return _algebra.solve_decimated(power, r, sigma, *gains)


class BicubicSuperResolution(Separable):
    """y = x reduced by cubic interpolation (Keys 1981, Eq. 4), plus noise.

    img_size: (C, H, W) of the high-resolution image. factor: an integer >= 1 that divides H and W.
    x is (B, C, H, W), y (B, C, H / factor, W / factor) in the same units; a pixel of y sits at the middle of its block.
    noise_model, device: deepinv's.

    antialias: True widens the kernel (a = -0.5) by the factor and, at the border, scales what is left of it to sum to
    one: Pillow's `resize` with BICUBIC, torch's `interpolate` with antialias=True, and away from the border MATLAB's
    `imresize`. False interpolates between the four nearest pixels (a = -0.75), the border's repeated: torch's
    `interpolate` with antialias=False and align_corners=False, and OpenCV's INTER_CUBIC. It aliases, and for an odd
    factor it merely picks the middle pixel of each block.
    Raises ValueError on a factor that does not divide H and W, and when called on a tensor of another size.
    """

    block_side = "factor"

    def __init__(
        self,
        img_size: Sequence[int],
        factor: int = 4,
        antialias: bool = True,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size = _check.image_size(img_size)
        factor = _as_factor(factor, img_size)
        if not isinstance(antialias, bool):
            raise ValueError(f"antialias: expected True or False, got {antialias!r}")
        rows, columns = (cubic_matrix(n, factor, antialias) for n in img_size[1:])
        super().__init__(img_size, rows, columns, noise_model=noise_model, device=device)
        self.factor = factor

    update_parameters = _check.keep_parameters


class GaussianSuperResolution(Separable):
    """y = a circular Gaussian blur of x at every factor-th pixel, plus noise.

    img_size: (C, H, W) of the high-resolution image. factor: an integer >= 1 that divides H and W.
    sigma: standard deviation of the Gaussian in high-resolution pixels, in (0, max(H, W)]; factor / 2 by default, which
    leaves 29 % at the highest frequency that y can hold. It is sampled to 5 sigma on each side and sums to one, as in
    `GaussianBlur`, and wraps around where the image is smaller.
    first: the first pixel that is kept along each axis, in [0, factor). 0, as in deepinv's Downsampling and in USRNet
    (Zhang et al. 2020, Eq. 1), moves the image by half a block; (factor - 1) // 2 keeps it centred.
    x is (B, C, H, W), y (B, C, H / factor, W / factor) in the same units. noise_model, device: deepinv's.
    Raises ValueError on values outside these ranges, and when called on a tensor of another size.
    """

    block_side = "factor"

    def __init__(
        self,
        img_size: Sequence[int],
        factor: int = 4,
        sigma: float | None = None,
        first: int = 0,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size = _check.image_size(img_size)
        factor = _as_factor(factor, img_size)
        sigma = factor / 2 if sigma is None else _check.real("sigma", sigma, 0, max(img_size[1:]), low_included=False)
        if _check.integer("first", first, 0) >= factor:
            raise ValueError(f"first: expected a pixel of the first block, less than the factor {factor}, got {first}")
        rows, columns = (gaussian_matrix(n, factor, sigma, first) for n in img_size[1:])
        super().__init__(img_size, rows, columns, noise_model=noise_model, device=device)
        self.factor = factor

    update_parameters = _check.keep_parameters

    def solve_stationary(self, power: Tensor, r: Tensor, sigma: float | Tensor) -> Tensor:
        """(A C Aᵀ + sigma² I)^{-1} r, (B, C, h, w); arguments as in `Blur.solve_stationary`."""
        _check.images(self, "r", r, self.measurement_size)
        gains = [torch.fft.fft(matrix[0]).abs() ** 2 for matrix in (self.rows, self.columns)]
        return _algebra.solve_decimated(power, r, sigma, *gains)


def _as_factor(factor: int, img_size: tuple[int, int, int]) -> int:
    """`factor` as an int >= 1 that divides H and W."""
    factor = _check.integer("factor", factor, 1)
    size = img_size[1:]
    if any(n % factor for n in size):
        larger = tuple(-(-n // factor) * factor for n in size)
        smaller = tuple(max(n // factor * factor, factor) for n in size)
        raise ValueError(
            f"img_size: expected (H, W) divisible by the factor {factor}, such as {smaller} or {larger}, got {size}"
        )
    return factor


@exact
def _transform_blocks(x: Tensor, matrix: Tensor) -> Tensor:
    """matrix · block · matrixᵀ for each block of x (..., H, W) of the size of the matrix (n, n)."""
    n = len(matrix)
    blocks = x.unflatten(-1, (-1, n)).unflatten(-3, (-1, n))  # (..., H / n, n, W / n, n)
    return torch.einsum("...yixj,ki,lj->...ykxl", blocks, matrix, matrix).reshape(x.shape)


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
