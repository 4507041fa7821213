"""Blur on a circle: with any kernel, a Gaussian, a camera shake, a mean over a rectangle, or out of focus."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check, _parameters, kernels


@_parameters.also_in_calls
class Blur(DecomposablePhysics):
    """y = kernel * x + n, circular convolution, the same in every channel.

    img_size: (C, H, W). kernel: real (kh, kw), or (1, 1, kh, kw) as deepinv has it, tensor or array, no larger than the image,
    used as it is (normalise it to keep brightness); its centre is (kh // 2, kw // 2). noise_model, device: deepinv's.
    x and y are (B, C, H, W). Gradients reach x and y, not the kernel.

    V is the packed real Fourier basis (see `_algebra.packing`), the singular values are the moduli of the kernel's
    spectrum, and U is V with its phases.
    Raises ValueError on a kernel of another shape, that is not real, finite and nonzero, or is larger than the image,
    and when called on a tensor of another size.
    """

    mask: Tensor
    kernel: Tensor
    _response: Tensor
    _gain: Tensor  # squared modulus of the response
    _u: Tensor
    _v: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        kernel: Tensor | np.ndarray,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size = _check.image_size(img_size)
        kernel = kernels.as_kernel(kernel, img_size)
        super().__init__(img_size=img_size, noise_model=noise_model, device=device)
        self.measurement_size = img_size
        self.register_buffer("kernel", kernel.to(device))
        for name in ("_response", "_gain", "_u", "_v"):  # complex numbers as pairs: Module.to(dtype) would drop imaginary parts
            self.register_buffer(name, None)
        self._set_spectrum()

    def _set_spectrum(self) -> None:
        _, height, width = self.img_size
        kernel = self.kernel.detach().cpu().double()
        padded = torch.zeros(height, width, dtype=torch.float64)
        padded[: kernel.shape[0], : kernel.shape[1]] = kernel
        response = torch.fft.fft2(padded.roll([-(n // 2) for n in kernel.shape], (0, 1)))
        # exactly Hermitian, or the phases would spoil the orthonormality of U; and zero where it is only rounding
        response = (response + _algebra.negate_frequencies(response).conj()) / 2
        response[response.abs() < 1e-14 * kernel.abs().sum()] = 0
        modulus = response.abs()
        phase = torch.where(modulus > 0, response / modulus, 1)
        weights = _algebra.packing(height, width)
        self.mask = modulus.to(self.kernel)[None, None]
        half = response[:, : width // 2 + 1].contiguous()
        self._response, self._gain = torch.view_as_real(half).to(self.kernel), half.abs().square().to(self.kernel)
        self._u = torch.view_as_real(phase * weights).to(self.kernel)
        self._v = torch.view_as_real(weights).to(self.kernel)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        if "_v" in self._buffers:  # not while deepinv's constructor runs
            self._set_spectrum()  # anew, so that A = U diag(s) Vᵀ holds to the precision of the new dtype
        return self

    def update_parameters(self, kernel=None, filter=None, **kwargs) -> None:
        """Take another kernel of any size, unless it is None, as the constructor does; `filter` is deepinv's name of it.

        Other parameters are ignored. Raises ValueError on both names.
        """
        kernel = _parameters.either_name(kernel, filter)
        if kernel is not None:
            self.kernel = kernels.as_kernel(kernel, self.img_size, self.kernel.dtype).to(self.kernel)
            self._set_spectrum()

    @property
    def singular_values(self) -> Tensor:
        """(1, 1, H, W), in the order of the coefficients."""
        return self.mask

    @property
    def response(self) -> Tensor:
        """Spectrum of the kernel, complex (H, W // 2 + 1), on the grid of torch.fft.rfft2."""
        return torch.view_as_complex(self._response)

    @property
    def response_power(self) -> Tensor:
        """|response|², (H, W // 2 + 1)."""
        return self._gain

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The blurred image, (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return _algebra.filter_fourier(x, self.response)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """Circular correlation of y (B, C, H, W) with the kernel."""
        _check.images(self, "y", y, self.measurement_size)
        return _algebra.filter_fourier(y, self.response.conj())

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᵀA x, (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return _algebra.filter_fourier(x, self._gain)

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A Aᵀ y, which is AᵀA y."""
        _check.images(self, "y", y, self.measurement_size)
        return _algebra.filter_fourier(y, self._gain)

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """Pseudo-inverse, (B, C, H, W); singular values below 1e-5 of the largest count as zero."""
        _check.images(self, "y", y, self.measurement_size)
        kept = _significant(self._gain) > 0
        return _algebra.filter_fourier(y, torch.where(kept, self.response.conj() / torch.where(kept, self._gain, 1), 0))

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        _check.images(self, "y", y, self.measurement_size)
        z = _algebra.starting_point(self, z, y)
        _check.images(self, "z", z, self.img_size)
        gamma = _algebra.per_image(gamma, z)
        spectrum = torch.fft.rfft2(z) + gamma * self.response.conj() * torch.fft.rfft2(y)
        return torch.fft.irfft2(spectrum / (1 + gamma * self._gain), s=self.img_size[1:])

    def U(self, x: Tensor) -> Tensor:
        """Measurement (B, C, H, W) of the coefficients x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return _algebra.unpack(x, torch.view_as_complex(self._u))

    def U_adjoint(self, x: Tensor, **kwargs) -> Tensor:
        """Coefficients (B, C, H, W) of a measurement (B, C, H, W)."""
        _check.images(self, "y", x, self.measurement_size)
        return _algebra.pack(x, torch.view_as_complex(self._u))

    def V(self, x: Tensor, **kwargs) -> Tensor:
        """Image (B, C, H, W) of the coefficients x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return _algebra.unpack(x, torch.view_as_complex(self._v))

    def V_adjoint(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, H, W) of the image x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return _algebra.pack(x, torch.view_as_complex(self._v))

    def solve_stationary(self, power: Tensor, r: Tensor, sigma: float | Tensor) -> Tensor:
        """(A C Aᵀ + sigma² I)^{-1} r, (B, C, H, W), for a circulant covariance C.

        power: >= 0, the eigenvalues of C on the grid of torch.fft.rfft2, broadcastable to (B, C, H, W // 2 + 1); that
        is, C x = irfft2(power · rfft2(x)). It belongs to a real symmetric C, so power(-k) = power(k).
        r: (B, C, H, W). sigma: >= 0, a scalar, (B,) or (B, 1, 1, 1). Where sigma is 0 this is the pseudo-inverse, with
        the singular values that A_dagger counts as zero. Raises ValueError on a power or r of another size.
        """
        _check.images(self, "r", r, self.measurement_size)
        power = _algebra.half_power(power, r, *self.img_size[1:])
        noise = _algebra.per_image(sigma, r) ** 2
        gain = torch.where(noise > 0, self._gain, _significant(self._gain))
        return _algebra.solve_circulant(power * gain + noise, r)


class GaussianBlur(Blur):
    """Circular blur with a Gaussian kernel that sums to 1.

    img_size: (C, H, W). sigma: its standard deviation in pixels, > 0; a pair has its own for each principal axis, (down,
    across) at angle 0. angle: degrees by which both are turned counter-clockwise in the displayed image. The kernel
    reaches 5 standard deviations on each side and must fit in the image. kwargs: noise_model and device, as for Blur.
    """

    def __init__(
        self,
        img_size: Sequence[int] = (3, 256, 256),
        sigma: float | tuple[float, float] = 2.0,
        angle: float = 0.0,
        **kwargs,
    ):
        img_size = _check.image_size(img_size)
        down, across = kernels.gaussian_radii(sigma, angle)
        if 2 * down + 1 > img_size[1] or 2 * across + 1 > img_size[2]:
            most = (min(img_size[1:]) - 1) // 2 / 5
            raise ValueError(
                f"sigma: expected at most {most:g} pixels, so that the kernel fits in (H, W) = {img_size[1:]}, got {sigma}"
            )
        super().__init__(img_size, kernels.gaussian_kernel(sigma, angle), **kwargs)


class MotionBlur(Blur):
    """Circular blur with the trace of a shaking camera, `motion_kernel`.

    img_size: (C, H, W). size: width of the square kernel in pixels, odd, >= 3. intensity: 0 for a straight line in a
    random direction, 1 for a trace that turns back on itself. seed: an integer >= 0; one seed, one kernel.
    The kernel sums to 1, its centre of mass is its centre. kwargs: noise_model and device, as for Blur.
    """

    def __init__(
        self,
        img_size: Sequence[int] = (3, 256, 256),
        size: int = 21,
        intensity: float = 0.5,
        seed: int = 0,
        **kwargs,
    ):
        img_size = _check.image_size(img_size)
        kernels.check_fits(kernels.as_size(size), img_size)
        super().__init__(img_size, kernels.motion_kernel(size, intensity, seed), **kwargs)


class UniformBlur(Blur):
    """Circular blur with the mean over a rectangle of pixels.

    img_size: (C, H, W). size: of the rectangle, an integer or (kh, kw), at most (H, W); an even size is centred half a
    pixel off. kwargs: noise_model and device, as for Blur.
    """

    def __init__(self, img_size: Sequence[int] = (3, 256, 256), size: int | tuple[int, int] = 9, **kwargs):
        img_size = _check.image_size(img_size)
        kernels.check_fits(kernels.as_size(size), img_size)
        super().__init__(img_size, kernels.uniform_kernel(size), **kwargs)


class DefocusBlur(Blur):
    """Circular blur with a disc, as of a camera out of focus.

    img_size: (C, H, W). radius: of the disc in pixels, > 0; its kernel must fit in the image. The kernel sums to 1; a
    pixel weighs as much as its area in the disc. kwargs: noise_model and device, as for Blur.
    """

    def __init__(self, img_size: Sequence[int] = (3, 256, 256), radius: float = 3.0, **kwargs):
        img_size = _check.image_size(img_size)
        radius = _check.real("radius", radius, 0, math.inf, low_included=False)
        most = (min(img_size[1:]) - 1) // 2 + 0.5
        if radius > most:
            raise ValueError(
                f"radius: expected at most {most:g} pixels, so that the kernel fits in (H, W) = {img_size[1:]}, got {radius:g}"
            )
        super().__init__(img_size, kernels.disc_kernel(radius), **kwargs)


def _significant(gain: Tensor) -> Tensor:
    """Squared singular values with those that count as zero set to zero."""
    return torch.where(gain > _algebra.RANK_TOLERANCE**2 * gain.max(), gain, 0)
