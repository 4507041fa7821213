"""Closed forms that several operators share: proximal steps, packed real Fourier bases, circulant systems."""

from __future__ import annotations

import torch
from deepinv.physics import DecomposablePhysics, LinearPhysics
from torch import Tensor

from operators._precision import matmul

# Singular values below this fraction of the largest count as zero where there is no noise to weigh them against:
# dividing by them would only amplify the rounding of y.
RANK_TOLERANCE = 1e-5


def per_image(value: float | Tensor, like: Tensor) -> Tensor:
    """A scalar, (B,) or (B, 1, ..., 1) as a tensor that broadcasts against `like` (B, ...), in its dtype.

    It may have been made for another number of axes than those of `like`: only its first counts.
    Raises ValueError on a negative number, and on another shape. Tensors are not searched for negative ones: to look at one
    on a GPU takes as long as to use it.
    """
    if isinstance(value, int | float) and not value >= 0:
        raise ValueError(f"gamma or sigma: expected a number >= 0, got {value}")
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if value.ndim and (len(value) not in (1, len(like)) or value.numel() > len(value)):
        raise ValueError(f"gamma or sigma: expected one, or one for each of {len(like)} images, got {tuple(value.shape)}")
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value


def inner(u: Tensor, v: Tensor) -> Tensor:
    """The inner product of each item of u and v (B, ...), (B, 1, ..., 1)."""
    return (u * v).flatten(1).sum(1).reshape(-1, *[1] * (u.ndim - 1))


def starting_point(physics: LinearPhysics, z: Tensor | float | None, y: Tensor) -> Tensor:
    """The z of a proximal step as images (B, *img_size): deepinv also allows a number, or None for zero."""
    if isinstance(z, Tensor):
        return z
    return y.new_full((y.shape[0], *physics.img_size), 0.0 if z is None else float(z))


def prox_orthogonal_rows(
    physics: DecomposablePhysics, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, sq_norm: float | Tensor
) -> Tensor:
    """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|² for orthogonal rows of A, each of squared norm `sq_norm` or zero."""
    z = starting_point(physics, z, y)
    gamma = per_image(gamma, z)
    return z + gamma / (1 + gamma * sq_norm) * physics.A_adjoint(y - physics.A(z))


def mix_channels(matrix: Tensor, x: Tensor) -> Tensor:
    """The channels of x (..., C, H, W) mixed by a matrix (k, C): (..., k, H, W)."""
    return matmul(matrix, x.flatten(-2)).unflatten(-1, x.shape[-2:])


def filter_fourier(x: Tensor, response: Tensor) -> Tensor:
    """Circular convolution of x (..., H, W) with the filter of half spectrum `response` (..., H, W // 2 + 1)."""
    spectrum = torch.fft.rfft2(x)
    alike = response.shape == spectrum.shape[-response.ndim :] and torch.result_type(spectrum, response) == spectrum.dtype
    if alike and not response.requires_grad:
        spectrum *= response  # in place: new memory costs more than the product
    else:
        spectrum = spectrum * response
    return torch.fft.irfft2(spectrum, s=x.shape[-2:])


def negate_frequencies(spectrum: Tensor) -> Tensor:
    """The spectrum (..., H, W) read at -k instead of k."""
    return spectrum.flip((-2, -1)).roll((1, 1), (-2, -1))


def packing(height: int, width: int) -> Tensor:
    """Weights w (H, W) such that x -> Re(conj(w) fft2(x)) is an orthonormal basis of the real images (H, W).

    The spectrum of a real image repeats itself: F(-k) = conj F(k). Where k and -k differ, one of the two places gets
    sqrt(2) Re F(k) and the other sqrt(2) Im F(k); where they coincide, F is real and is kept. The inverse is
    c -> Re ifft2(w c); both transforms with norm="ortho".
    """
    place = torch.arange(height * width).reshape(height, width)
    opposite = negate_frequencies(place)
    weights = torch.full((height, width), 2**0.5, dtype=torch.complex128)
    weights[place > opposite] *= -1j
    weights[place == opposite] = 1
    return weights


def pack(x: Tensor, weights: Tensor) -> Tensor:
    """Coefficients (..., H, W) of the images x (..., H, W)."""
    return (weights.conj() * torch.fft.fft2(x, norm="ortho")).real


def unpack(coefficients: Tensor, weights: Tensor) -> Tensor:
    """Images (..., H, W) of the coefficients: the inverse and transpose of `pack`."""
    return torch.fft.ifft2(weights * coefficients, norm="ortho").real


def half_power(power: Tensor, like: Tensor, height: int, width: int) -> Tensor:
    """`power` on the device and at least in the precision of `like`, its last two dimensions (H, W // 2 + 1)."""
    grid = (height, width // 2 + 1)
    power = power.to(device=like.device, dtype=torch.promote_types(power.dtype, like.dtype))
    try:
        return power.expand(torch.broadcast_shapes(power.shape, grid)[:-2] + grid)
    except RuntimeError:
        raise ValueError(
            f"power: expected (B, C, H, W // 2 + 1) with {grid} as its last two, got {tuple(power.shape)}"
        ) from None


def full_power(half: Tensor, width: int) -> Tensor:
    """The symmetric spectrum (..., H, W) whose half is (..., H, W // 2 + 1)."""
    missing = half[..., 1 : (width + 1) // 2].flip((-2, -1)).roll(1, -2)
    return torch.cat([half, missing], dim=-1)


def solve_circulant(spectrum: Tensor, r: Tensor) -> Tensor:
    """Pseudo-inverse of the circulant of half spectrum `spectrum` (..., h, w // 2 + 1), applied to r (..., h, w)."""
    # the reciprocal of less, times the sum of a large image, overflows
    invertible = spectrum >= 2**24 * torch.finfo(spectrum.dtype).tiny
    inverse = torch.where(invertible, 1 / torch.where(invertible, spectrum, 1), 0)
    return filter_fourier(r, inverse)


def solve_decimated(power: Tensor, r: Tensor, sigma: float | Tensor, gain_rows: Tensor, gain_columns: Tensor) -> Tensor:
    """(A C Aᵀ + sigma² I)^{-1} r for an A that is a circular separable filter, read at every factor-th pixel.

    gain_rows (H,), gain_columns (W,): squared moduli of the filter's response. r: (B, C, h, w). power, sigma, C, and
    the result where sigma is 0: as in `Blur.solve_stationary`.
    A C Aᵀ is circulant too: its spectrum is the mean of the filtered one over the factor² frequencies that alias.
    """
    height, width = len(gain_rows), len(gain_columns)
    h, w = r.shape[-2:]

    def fold(half: Tensor) -> Tensor:
        rows = half.unflatten(-2, (height // h, h)).mean(-3)
        return full_power(rows, width).unflatten(-1, (width // w, w)).mean(-2)[..., : w // 2 + 1]

    power = half_power(power, r, height, width)
    gain = (gain_rows[:, None] * gain_columns[: width // 2 + 1]).to(power)
    seen = fold(gain)  # squared singular values
    noise = per_image(sigma, r) ** 2
    counts = (noise > 0) | (seen > RANK_TOLERANCE**2 * seen.max())
    return solve_circulant(torch.where(counts, fold(power * gain), 0) + noise, r)
