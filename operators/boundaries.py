"""Blur with other boundaries than a circle: what the kernel sees outside of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import Physics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _check, _convolution, _parameters, kernels
from operators.blur import Blur
from operators.iterative import IterativePhysics
from operators.reflect import ReflectBlur
from operators.separable import Separable

_LARGEST_SVD = 2048  # pixels a side; the two matrices of this size take a minute


def blur(
    img_size: Sequence[int],
    kernel: Tensor | np.ndarray,
    boundary: str = "circular",
    *,
    noise_model: NoiseModel | None = None,
    device: torch.device | str = "cpu",
) -> Physics:
    """Convolution with `kernel`, by the class that knows most about it: one with an SVD where there is one.

    img_size, kernel, noise_model, device: as for `Blur`. boundary: what is outside of a row a b c d of the image,

        circular     b c d | a b c d | a b c     `Blur`
        reflect      c b a | a b c d | d c b     `ReflectBlur` if the kernel is symmetric in each axis, otherwise one of
        replicate    a a a | a b c d | d d d     `SeparableBlur` if the kernel is an outer product, and no side of the
        zero         0 0 0 | a b c d | 0 0 0     image above 2048 pixels, and
        valid        none: y is (B, C, H - kh + 1, W - kw + 1)     `PaddedBlur`, which has no SVD

    SciPy calls them wrap, reflect, nearest and constant. Raises ValueError on another boundary, and as `Blur` does.
    """
    size = _check.image_size(img_size)
    _convolution.check_boundary(boundary)
    weights = kernels.as_kernel(kernel, size)
    if boundary == "circular":
        return Blur(size, weights, noise_model=noise_model, device=device)
    if boundary == "reflect" and _convolution.symmetric(weights) is not None:
        return ReflectBlur(size, weights, noise_model=noise_model, device=device)
    if max(size[1:]) <= _LARGEST_SVD and _convolution.factors(weights) is not None:
        return SeparableBlur(size, weights, boundary, noise_model=noise_model, device=device)
    return PaddedBlur(size, weights, boundary, noise_model=noise_model, device=device)


@_parameters.also_in_calls
class PaddedBlur(IterativePhysics):
    """y = kernel * x + n with any kernel and any boundary, the same in every channel.

    img_size: (C, H, W). kernel: real (kh, kw), tensor or array, no larger than the image; its centre is (kh // 2, kw // 2).
    boundary: "circular", "reflect", "replicate", "zero" or "valid", as for `blur`. noise_model, device: deepinv's.
    tol, max_iter: of the conjugate gradients behind A_dagger and prox_l2. x is (B, C, H, W), and so is y, but for "valid":
    (B, C, H - kh + 1, W - kw + 1). The adjoint is the exact one: what was read outside is added where it came from.
    Raises ValueError on a kernel as `Blur` does, on another boundary, and when called on a tensor of another size.
    """

    def __init__(
        self,
        img_size: Sequence[int],
        kernel: Tensor | np.ndarray,
        boundary: str = "reflect",
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
        tol: float = 1e-4,
        max_iter: int = 100,
    ):
        img_size = _check.image_size(img_size)
        _convolution.check_boundary(boundary)
        kernel = kernels.as_kernel(kernel, img_size)
        super().__init__(img_size=img_size, noise_model=noise_model, tol=tol, max_iter=max_iter, device=device)
        self.boundary = boundary
        self.convolution = _convolution.Convolution(img_size[1:], kernel, boundary).to(device)
        self.measurement_size = (img_size[0], *self.convolution.output_size)

    def update_parameters(self, kernel=None, filter=None, **kwargs) -> None:
        """Take another kernel, or `filter`, as `Blur.update_parameters` does.

        Raises ValueError on one for measurements of another size, as "valid" makes them of kernels of another size.
        """
        kernel = _parameters.either_name(kernel, filter)
        if kernel is not None:
            weights = kernels.as_kernel(kernel, self.img_size, self.kernel.dtype).to(self.kernel)
            self.convolution = _same_output(self.convolution, weights)

    @property
    def kernel(self) -> Tensor:
        """(kh, kw)."""
        return self.convolution.kernel

    @property
    def response_power(self) -> Tensor:
        """|spectrum of the kernel|² on a circle, (H, W // 2 + 1): what AᵀA does to frequencies, but for the borders."""
        return self.convolution.interior_power

    @property
    def border(self) -> _convolution.Margins:
        """Rows (above, below) and columns (left, right) of the image on which no pixel of y is centred; some if "valid"."""
        return self.convolution.border

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The blurred image, (B, C, H, W) or the smaller size of "valid"."""
        _check.images(self, "x", x, self.img_size)
        return self.convolution(x)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """Aᵀy, (B, C, H, W)."""
        _check.images(self, "y", y, self.measurement_size)
        return self.convolution.transpose(y)

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᵀA x, (B, C, H, W)."""
        return self.A_adjoint(self.A(x))

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A Aᵀ y, of y's size."""
        return self.A(self.A_adjoint(y))


@_parameters.also_in_calls
class SeparableBlur(Separable):
    """y = kernel * x + n with a kernel that is an outer product, such as a Gaussian's, and any boundary.

    img_size: (C, H, W). kernel: real (kh, kw) of rank one but for rounding, tensor or array, no larger than the image; its
    centre is (kh // 2, kw // 2). boundary: "circular", "reflect", "replicate", "zero" or "valid", as for `blur`.
    noise_model, device: deepinv's. x is (B, C, H, W), and so is y, but for "valid": (B, C, H - kh + 1, W - kw + 1).

    SVD, coefficients and attributes are those of `Separable`, with the matrices (., H) and (., W) of the kernel's two
    factors; their SVD, at construction and when the dtype changes, takes seconds for sides of 1000. Raises ValueError on
    a kernel of higher rank, as `Blur` does, on another boundary, and when called on a tensor of another size.
    """

    down: Tensor
    across: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        kernel: Tensor | np.ndarray,
        boundary: str = "reflect",
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        size = _check.image_size(img_size)
        _convolution.check_boundary(boundary)
        factors = _factors(kernels.as_kernel(kernel, size))
        convolution = _convolution.Convolution(size[1:], torch.outer(*factors), boundary)
        super().__init__(size, *convolution.matrices(*factors), noise_model=noise_model, device=device)
        self.boundary = boundary
        self.convolution = convolution.to(device)
        self.register_buffer("down", factors[0].to(device))
        self.register_buffer("across", factors[1].to(device))
        self._set_kernel()

    def _set_kernel(self) -> None:
        self.convolution.set_kernel(torch.outer(self.down.double(), self.across.double()))

    def _set_svd(self) -> None:
        if "across" in self._buffers:  # the dtype has changed: everything anew from the factors, to its precision
            self._set_kernel()
            rows, columns = self.convolution.matrices(self.down, self.across)
            self.rows, self.columns = rows.to(self.rows), columns.to(self.columns)
        super()._set_svd()

    def update_parameters(self, kernel=None, filter=None, **kwargs) -> None:
        """Take another kernel, or `filter`, as `Blur.update_parameters` does.

        Raises ValueError on one for measurements of another size, as "valid" makes them of kernels of another size.
        """
        kernel = _parameters.either_name(kernel, filter)
        if kernel is not None:
            down, across = _factors(kernels.as_kernel(kernel, self.img_size, self.down.dtype).to(self.down))
            self.convolution = _same_output(self.convolution, torch.outer(down, across))
            self.down, self.across = down, across
            self._set_svd()

    @property
    def kernel(self) -> Tensor:
        """(kh, kw)."""
        return self.convolution.kernel

    @property
    def response_power(self) -> Tensor:
        """|spectrum of the kernel|² on a circle, (H, W // 2 + 1): what AᵀA does to frequencies, but for the borders."""
        return self.convolution.interior_power

    @property
    def border(self) -> _convolution.Margins:
        """Rows (above, below) and columns (left, right) of the image on which no pixel of y is centred; some if "valid"."""
        return self.convolution.border

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The blurred image, (B, C, H, W) or the smaller size of "valid"."""
        _check.images(self, "x", x, self.img_size)
        return self.convolution(x)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """Aᵀy, (B, C, H, W)."""
        _check.images(self, "y", y, self.measurement_size)
        return self.convolution.transpose(y)


def _factors(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """down (kh,) and across (kw,). Raises ValueError unless the kernel is their outer product, but for rounding."""
    factors = _convolution.factors(kernel)
    if factors is None:
        raise ValueError(
            "kernel: expected an outer product of two vectors, got one of higher rank; PaddedBlur takes any kernel"
        )
    return factors


def _same_output(convolution: _convolution.Convolution, kernel: Tensor) -> _convolution.Convolution:
    """The convolution with another kernel. Raises ValueError if its result would be of another size."""
    other = _convolution.Convolution(convolution.size, kernel, convolution.boundary)
    if other.output_size != convolution.output_size:
        size = tuple(convolution.kernel.shape)
        raise ValueError(f"kernel: expected {size}, so that measurements keep their size, got {tuple(kernel.shape)}")
    return other
