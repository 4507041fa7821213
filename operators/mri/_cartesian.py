"""What the MRI operators share: shapes, masks, coil maps, the spectrum of the normal operator, linear maps to autograd."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from deepinv.physics import Physics
from torch import Tensor

from operators import _check
from operators.mri import _fourier

CONSTANTS = ("_before", "_after", "_spectrum")  # buffers that the others tell, and that no state holds


def grid_size(img_size: Sequence[int], spatial_dims: int | None) -> tuple[tuple[int, ...], int]:
    """`img_size` as (C, H, W), (C, D, H, W) or (C, T, H, W) positive ints, and how many of its last are Fourier axes."""
    try:
        size = tuple(operator.index(n) for n in img_size)
    except TypeError:
        size = ()
    if len(size) not in (3, 4) or min(size) < 1:
        raise ValueError(f"img_size: expected (2, H, W), (2, D, H, W) or (2, T, H, W), got {img_size!r}")
    if spatial_dims is None:
        return size, len(size) - 1
    if spatial_dims not in (2, 3) or spatial_dims > len(size) - 1:
        allowed = "2" if len(size) == 3 else "2 (a series) or 3 (a volume)"
        raise ValueError(f"spatial_dims: expected {allowed} for img_size {size}, got {spatial_dims!r}")
    return size, spatial_dims


def sampling_mask(mask: Tensor | np.ndarray, grid: tuple[int, ...], spatial_dims: int) -> Tensor:
    """A mask of 0 and 1 as float64 (1 or B, 1, *grid), with T = 1 where all frames of a series share it.

    Also (B, C, *), as deepinv's generators make it, if it is the same in all channels.
    """
    mask = _check.own_tensor(mask)
    shape = (1,) * (len(grid) + 2 - mask.ndim) + tuple(mask.shape)
    if len(shape) == len(grid) + 2 and shape[1] > 1:
        first = mask.reshape(shape)[:, :1]
        if (mask == first).all():
            mask, shape = first, tuple(first.shape)
    series = len(grid) > spatial_dims
    fits = spatial_dims <= mask.ndim <= len(grid) + 2 and shape[1] == 1 and shape[-spatial_dims:] == grid[-spatial_dims:]
    if not fits or (series and shape[2] not in (1, grid[0])):
        raise ValueError(
            f"mask: expected {grid[-spatial_dims:]}{f' or {grid}' if series else ''}, or (B, 1, *) of that for a batch, "
            f"got {tuple(mask.shape)}"
        )
    bad = (mask != 0) & (mask != 1)
    if bad.any():
        raise ValueError(
            f"mask: expected bool, or only 0 and 1 (1 = sampled), got values such as {mask[bad][0].item()}"
        )
    mask = mask.reshape(shape).double()
    if mask.shape[0] == 0 or not mask.flatten(1).any(dim=1).all():
        raise ValueError(f"mask: expected at least one sampled place an image, got none in {tuple(mask.shape)}")
    return mask


def own_maps(coil_maps: Tensor | np.ndarray, axes: int, grid: tuple[int, ...] | None = None) -> Tensor:
    """Coil maps as a copy (1 or B, M, N, *grid), of that grid, or of any of so many axes."""
    maps = _check.own_tensor(coil_maps)
    if maps.dtype not in (torch.complex64, torch.complex128):
        raise ValueError(f"coil_maps: expected complex64 or complex128, got {maps.dtype}")
    if not axes < maps.ndim <= axes + 3 or (grid is not None and tuple(maps.shape[-axes:]) != grid):
        wanted = grid or ("(H, W)" if axes == 2 else "(D, H, W)")
        raise ValueError(
            f"coil_maps: expected (N, *), (B, N, *) or (B, M, N, *) with * = {wanted}, got {tuple(maps.shape)}"
        )
    if maps.ndim < axes + 3:  # one set
        maps = maps.reshape((1,) * (axes + 2 - maps.ndim) + maps.shape).unsqueeze(1)
    _check.finite("coil_maps", maps)
    if maps.numel() == 0 or not maps.flatten(1).any(dim=1).all():
        raise ValueError(f"coil_maps: expected maps that are not all zero, got an item of zeros in {tuple(maps.shape)}")
    return maps


def coil_images(maps: Tensor, x: Tensor) -> Tensor:
    """What each coil sees, Σ_m s_mn x_m: (B, N, *grid) of maps (B, M, N, *grid) and x (B, M, *grid)."""
    images = maps[:, 0] * x[:, 0, None]
    for m in range(1, maps.shape[1]):
        images += maps[:, m] * x[:, m, None]
    return images


def batch_of(physics: Physics, name: str, value: Tensor, size: Sequence[int], constants: dict[str, Tensor]) -> None:
    """Raise unless `value` is (B, *size) on the operator's device, with a B that suits each of `constants`, (1 or B, ...)."""
    _check.images(physics, name, value, size)
    if value.ndim != len(size) + 1:
        raise ValueError(f"{name}: expected (B, {', '.join(map(str, size))}), got {tuple(value.shape)}")
    for what, constant in constants.items():
        if constant.shape[0] not in (1, value.shape[0]):
            raise ValueError(
                f"{name}: expected a batch of {constant.shape[0]}, one for each of {what}, got {tuple(value.shape)}"
            )


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """The widest of the real dtypes, single precision at least: there are no FFTs of half precision on a CPU."""
    return functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)


def normal_spectrum(mask: Tensor, spatial_dims: int) -> tuple[Tensor, tuple[int, ...]]:
    """What `circulant_` needs for Fᴴ m F: the spectrum (1 or B, *grid, 2), of length 1 along axes where m is constant, and
    the (negative) Fourier axes along which it is not.

    Along the others the two transforms cancel: where whole lines are sampled, half of the work or more is saved.
    mask: m, 0 and 1 or squares of weights, centred, (1 or B, 1, *grid).
    """
    axes = tuple(range(-spatial_dims, 0))
    spectrum = torch.fft.ifftshift(mask[:, 0], axes)
    for axis in range(-(mask.ndim - 2), 0):
        first = spectrum.narrow(axis, 0, 1)
        if (spectrum == first).all():
            spectrum = first
    axes = tuple(axis for axis in axes if spectrum.shape[axis] > 1)
    spectrum = spectrum / math.prod(mask.shape[axis] for axis in axes)  # FFTs are not normalised
    return torch.stack([spectrum, -spectrum], dim=-1), axes


def circulant_(z: Tensor, spectrum: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The conjugate of Fᴴ mask F z for complex z, which is overwritten. No shift is needed: F is centred in x and in k,
    and the shift of x commutes with the circulant. conj IFFT(m FFT(z)) = FFT(m conj FFT(z)) / n for real m.
    """
    if axes:
        z = torch.fft.fftn(z, dim=axes)
    torch.view_as_real(z).mul_(spectrum)  # the mask and the conjugate at once
    return torch.fft.fftn(z, dim=axes) if axes else z


def blocks(
    batch: int, coils: int, grid: tuple[int, ...], axes: tuple[int, ...], most: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Slices (items, coils, first axis of the grid) that cover (batch, coils, *grid) in pieces of about `most` numbers.

    The first axis of the grid is split only if it is not one of the (negative) Fourier axes.
    """
    plane = math.prod(grid[1:])
    rows = grid[0] if -len(grid) in axes else min(grid[0], max(1, most // plane))
    some = min(coils, max(1, most // (rows * plane)))
    items = max(1, most // (rows * plane * some))
    for item in range(0, batch, items):
        for row in range(0, grid[0], rows):
            for coil in range(0, coils, some):
                yield slice(item, item + items), slice(coil, coil + some), slice(row, row + rows)


def linear(apply: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """apply(x), for a linear function of real x; its gradient is by `adjoint`, so nothing is kept for it."""
    return _Linear.apply(x, apply, adjoint)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x, apply, adjoint):
        return apply(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.functions = inputs[1:]

    @staticmethod
    def backward(ctx, gradient):
        apply, adjoint = ctx.functions
        return _Linear.apply(gradient, adjoint, apply), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _Linear.apply(tangent, *ctx.functions)

    @staticmethod
    def vmap(info, in_dims, x, apply, adjoint):
        return torch.stack([_Linear.apply(item, apply, adjoint) for item in x.unbind(in_dims[0])]), 0


def complex_pairs(z: Tensor) -> Tensor:
    """Complex as real pairs (..., 2): what a buffer holds, since Module.to(dtype) would drop imaginary parts."""
    return torch.view_as_real(z.resolve_conj()).contiguous()


def centring_pairs(sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pairs p, q (1, *sizes, 2) in float64: the centred orthonormal FFT of x is q · FFT(p · x), FFT the unnormalised one."""
    ramp, constant = _fourier.centring(sizes)
    return complex_pairs(ramp[None]), complex_pairs(ramp[None] * (constant / math.prod(sizes) ** 0.5))
