"""Blur of the mirrored image with a symmetric kernel, which the discrete cosine transform makes diagonal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check, _convolution, _parameters, _transforms, kernels


@_parameters.also_in_calls
class ReflectBlur(DecomposablePhysics):
    """y = kernel * x + n on the mirrored image, c b a | a b c d | d c b, for kernels symmetric in each axis.

    img_size: (C, H, W). kernel: real (kh, kw), tensor or array, no larger than the image, with the same values when
    mirrored about its centre (kh // 2, kw // 2) in either axis, but for rounding. noise_model, device: deepinv's.

    V is the orthonormal DCT-II (Strang 1999, The discrete cosine transform), the singular values are the moduli of the
    kernel's cosine series, and U is V with its signs. Raises ValueError on a kernel that has not this symmetry, as `Blur`
    does, and when called on a tensor of another size.
    """

    mask: Tensor
    _sign: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        kernel: Tensor | np.ndarray,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size = _check.image_size(img_size)
        symmetric = _symmetric(kernels.as_kernel(kernel, img_size))
        super().__init__(img_size=img_size, noise_model=noise_model, device=device)
        self.measurement_size = img_size
        self.convolution = _convolution.Convolution(img_size[1:], symmetric, "reflect").to(device)
        self.register_buffer("_sign", None)
        self._set_spectrum()

    def _set_spectrum(self) -> None:
        kernel = self.kernel.detach().cpu().double()
        down, across = (_convolution.cosines(n, k) for n, k in zip(self.img_size[1:], kernel.shape, strict=True))
        response = down @ kernel @ across.T
        response[response.abs() < 1e-14 * kernel.abs().sum()] = 0  # only rounding
        self.mask = response.abs().to(self.kernel)[None, None]
        self._sign = torch.where(response < 0, -1.0, 1.0).to(self.kernel)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        if "_sign" in self._buffers:  # not while deepinv's constructor runs
            self._set_spectrum()  # anew, so that A = U diag(s) Vᵀ holds to the precision of the new dtype
        return self

    @property
    def kernel(self) -> Tensor:
        """(kh, kw), both odd: with the zeros it takes to have its centre in the middle."""
        return self.convolution.kernel

    def update_parameters(self, kernel=None, filter=None, **kwargs) -> None:
        """Take another kernel, or `filter`, as `Blur.update_parameters` does."""
        kernel = _parameters.either_name(kernel, filter)
        if kernel is not None:
            symmetric = _symmetric(kernels.as_kernel(kernel, self.img_size, self.kernel.dtype)).to(self.kernel)
            self.convolution = _convolution.Convolution(self.img_size[1:], symmetric, "reflect")
            self._set_spectrum()

    @property
    def singular_values(self) -> Tensor:
        """(1, 1, H, W), in the order of the coefficients: by frequency, the constant first."""
        return self.mask

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The blurred image, (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return self.convolution(x)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """The same as A, which is symmetric."""
        _check.images(self, "y", y, self.measurement_size)
        return self.convolution(y)

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᵀA x, (B, C, H, W)."""
        return self.A_adjoint(self.A(x))

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A Aᵀ y, which is AᵀA y."""
        return self.A(self.A_adjoint(y))

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """Pseudo-inverse, (B, C, H, W); singular values below 1e-5 of the largest count as zero."""
        kept = self.mask > _algebra.RANK_TOLERANCE * self.mask.max()
        return self.V(torch.where(kept, 1 / torch.where(kept, self.mask, 1), 0) * self.U_adjoint(y))

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        z = _algebra.starting_point(self, z, y)
        _check.images(self, "z", z, self.img_size)
        gamma = _algebra.per_image(gamma, z)
        return self.V(self.V_adjoint(z + gamma * self.A_adjoint(y)) / (1 + gamma * self.mask**2))

    def U(self, x: Tensor) -> Tensor:
        """Measurement (B, C, H, W) of the coefficients x (B, C, H, W)."""
        return self.V(x * self._sign)

    def U_adjoint(self, x: Tensor, **kwargs) -> Tensor:
        """Coefficients (B, C, H, W) of a measurement (B, C, H, W)."""
        _check.images(self, "y", x, self.measurement_size)
        return self._sign * self.V_adjoint(x)

    def V(self, x: Tensor, **kwargs) -> Tensor:
        """Image (B, C, H, W) of the coefficients x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return _transforms.idct(_transforms.idct(x).mT).mT

    def V_adjoint(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, H, W) of the image x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return _transforms.dct(_transforms.dct(x).mT).mT


def _symmetric(kernel: Tensor) -> Tensor:
    """The kernel, exactly symmetric. Raises ValueError if it is not symmetric but for rounding."""
    symmetric = _convolution.symmetric(kernel)
    if symmetric is None:
        raise ValueError(
            "kernel: expected the same values when mirrored about its centre (kh // 2, kw // 2) in each axis, got others; "
            'PaddedBlur(img_size, kernel, "reflect") takes them'
        )
    return symmetric
