"""Blur: circular convolution with any kernel, a Gaussian one, or a camera shake."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check


class Blur(DecomposablePhysics):
    """y = kernel * x + n, circular convolution, the same in every channel.

    img_size: (C, H, W). kernel: real (kh, kw), tensor or array, no larger than the image, used as it is (normalise it
    to keep brightness); its centre is (kh // 2, kw // 2). noise_model, device: deepinv's. x and y are (B, C, H, W).

    V is the packed real Fourier basis (see `_algebra.packing`), the singular values are the moduli of the kernel's
    spectrum, and U is V with its phases.
    Raises ValueError on a kernel that is not two-dimensional, real, finite and nonzero, or is larger than the image,
    and when called on a tensor of another size.
    """

    mask: Tensor
    kernel: Tensor
    _response: Tensor
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
        kernel = _as_kernel(kernel, img_size)
        super().__init__(img_size=img_size, noise_model=noise_model, device=device)
        self.measurement_size = img_size
        self.register_buffer("kernel", kernel.to(device))
        for name in ("_response", "_u", "_v"):  # complex numbers as pairs: Module.to(dtype) would drop imaginary parts
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
        self._response = torch.view_as_real(response[:, : width // 2 + 1].contiguous()).to(self.kernel)
        self._u = torch.view_as_real(phase * weights).to(self.kernel)
        self._v = torch.view_as_real(weights).to(self.kernel)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        if "_v" in self._buffers:  # not while deepinv's constructor runs
            self._set_spectrum()  # anew, so that A = U diag(s) Vᵀ holds to the precision of the new dtype
        return self

    @property
    def singular_values(self) -> Tensor:
        """(1, 1, H, W), in the order of the coefficients."""
        return self.mask

    @property
    def response(self) -> Tensor:
        """Spectrum of the kernel, complex (H, W // 2 + 1), on the grid of torch.fft.rfft2."""
        return torch.view_as_complex(self._response)

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
        return _algebra.filter_fourier(x, self._gain())

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A Aᵀ y, which is AᵀA y."""
        _check.images(self, "y", y, self.measurement_size)
        return _algebra.filter_fourier(y, self._gain())

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """Pseudo-inverse, (B, C, H, W); singular values below 1e-5 of the largest count as zero."""
        _check.images(self, "y", y, self.measurement_size)
        gain = self._gain()
        kept = _significant(gain) > 0
        return _algebra.filter_fourier(y, torch.where(kept, self.response.conj() / torch.where(kept, gain, 1), 0))

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        _check.images(self, "y", y, self.measurement_size)
        z = _algebra.starting_point(self, z, y)
        _check.images(self, "z", z, self.img_size)
        gamma = _algebra.per_image(gamma, y)
        spectrum = torch.fft.rfft2(z) + gamma * self.response.conj() * torch.fft.rfft2(y)
        return torch.fft.irfft2(spectrum / (1 + gamma * self._gain()), s=self.img_size[1:])

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
        gain = self._gain()
        return _algebra.solve_circulant(power * torch.where(noise > 0, gain, _significant(gain)) + noise, r)

    def _gain(self) -> Tensor:
        """Squared modulus of the response, (H, W // 2 + 1)."""
        return self._response.square().sum(-1)


class GaussianBlur(Blur):
    """Blur with a Gaussian kernel that sums to 1.

    img_size: (C, H, W). sigma: its standard deviation in pixels, > 0. The kernel is sampled to 5 sigma on each side
    and must fit in the image. kwargs: noise_model and device, as for Blur.
    """

    def __init__(self, img_size: Sequence[int] = (3, 256, 256), sigma: float = 2.0, **kwargs):
        _, height, width = img_size = _check.image_size(img_size)
        sigma = _check.real("sigma", sigma, 0, math.inf, low_included=False)
        radius = math.ceil(5 * sigma)
        if 2 * radius + 1 > min(height, width):
            most = (min(height, width) - 1) // 2 / 5
            raise ValueError(
                f"sigma: expected at most {most:g} pixels, so that the kernel fits in (H, W) = {(height, width)}, "
                f"got {sigma:g}"
            )
        profile = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        profile /= profile.sum()
        super().__init__(img_size, np.outer(profile, profile), **kwargs)


class MotionBlur(Blur):
    """Blur with the trace of a shaking camera.

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
        size = _check.integer("size", size, 3)
        if size % 2 == 0:
            raise ValueError(f"size: expected an odd number of pixels, got {size}")
        intensity = _check.real("intensity", intensity, 0, 1)
        super().__init__(img_size, _shake_kernel(size, intensity, _check.integer("seed", seed, 0)), **kwargs)


def _shake_kernel(size: int, intensity: float, seed: int) -> np.ndarray:
    """Kernel (size, size) of a path whose heading and log-speed follow smooth random walks."""
    rng = np.random.default_rng(seed)
    time = (np.arange(64 * size) + 0.5) / (64 * size)
    # the first terms of the Karhunen-Loève series of Brownian motion on [0, 1]: a walk without its jitter
    rates = (np.arange(6) + 0.5) * np.pi
    walk = np.sqrt(2) * np.sin(time[:, None] * rates) / rates
    start = rng.uniform(0, 2 * np.pi)
    heading = start + 5 * intensity * walk @ rng.standard_normal(len(rates))
    speed = np.exp(intensity * walk @ rng.standard_normal(len(rates)))

    path = np.cumsum(speed[:, None] * np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0)
    path -= path.mean(axis=0)
    path *= (size // 2) / np.linalg.norm(path, axis=1).max()
    corner = np.clip(np.floor(path + size // 2).astype(int), 0, size - 2)
    part = path + size // 2 - corner
    kernel = np.zeros((size, size))
    for down in (0, 1):  # bilinear weights: they antialias the trace and keep its centre of mass
        for right in (0, 1):
            weight = np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1])
            np.add.at(kernel, (corner[:, 0] + down, corner[:, 1] + right), weight)
    return kernel / kernel.sum()


def _as_kernel(kernel: Tensor | np.ndarray, img_size: tuple[int, int, int]) -> Tensor:
    """The kernel (kh, kw) in torch's default dtype."""
    kernel = _check.own_tensor(kernel)
    size = img_size[1:]
    if kernel.ndim != 2 or kernel.numel() == 0:
        raise ValueError(f"kernel: expected (kh, kw), got {tuple(kernel.shape)}")
    if kernel.shape[0] > size[0] or kernel.shape[1] > size[1]:
        raise ValueError(f"kernel: expected at most (H, W) = {size}, got {tuple(kernel.shape)}")
    if kernel.is_complex():
        raise ValueError(f"kernel: expected real numbers, got {kernel.dtype}")
    if not kernel.isfinite().all() or not kernel.any():
        low, high = kernel.min().item(), kernel.max().item()
        raise ValueError(f"kernel: expected finite numbers, not all zero, got values in [{low}, {high}]")
    return kernel.to(torch.get_default_dtype())


def _significant(gain: Tensor) -> Tensor:
    """Squared singular values with those that count as zero set to zero."""
    return torch.where(gain > _algebra.RANK_TOLERANCE**2 * gain.max(), gain, 0)
