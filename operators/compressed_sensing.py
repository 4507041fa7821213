"""Compressed sensing: a few random linear combinations of all pixels, by fast transforms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check
from operators._precision import exact
from operators._transforms import dct, idct


class CompressedSensing(DecomposablePhysics):
    """y = P T S Π x + n in every channel: subsampled randomised Hadamard measurements (Do et al. 2012, Sec. III).

    img_size: (C, H, W), any size. rate: in (0, 1], the m = round(rate · H · W) measurements per pixel of a channel.
    seed: an integer >= 0; one seed, one operator. noise_model, device: deepinv's. x is (B, C, H, W), y (B, C, m).

    Π shuffles the n = H · W pixels, S flips signs at random, P keeps m rows at random in ascending order. T is the
    orthonormal Walsh-Hadamard transform where n is a power of two, and for n = 2^k · odd its Kronecker product with the
    orthonormal DCT-II of the odd factor: orthonormal at any size, at the cost of a fast transform.
    The rows of A are orthonormal: a white x keeps its variance in y, and a fixed x about the fraction m / n of |x|².
    The singular values are 1 at the m kept rows and 0 elsewhere; the coefficients T S Π x fill (C, H, W) row by row.
    Raises ValueError on values outside these ranges, and when called on a tensor of another size.
    """

    mask: Tensor
    _order: Tensor
    _inverse_order: Tensor
    _signs: Tensor
    _kept: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        rate: float = 0.25,
        seed: int = 0,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        channels, height, width = img_size = _check.image_size(img_size)
        n, m = height * width, measurements(img_size, rate)
        rng = np.random.default_rng(_check.integer("seed", seed, 0))
        order = torch.from_numpy(rng.permutation(n))
        signs = torch.from_numpy(rng.integers(0, 2, n) * 2 - 1).to(torch.get_default_dtype())
        kept = torch.from_numpy(np.sort(rng.permutation(n)[:m]))
        mask = torch.zeros(n).index_fill_(0, kept, 1).reshape(1, 1, height, width)
        super().__init__(img_size=img_size, mask=mask, noise_model=noise_model, device=device)
        self.measurement_size = (channels, m)
        buffers = {"_order": order, "_inverse_order": order.argsort(), "_signs": signs, "_kept": kept}
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer.to(device))

    @staticmethod
    def _transform(x: Tensor) -> Tensor:
        """T along the last dimension."""
        odd = _odd_factor(x.shape[-1])
        if odd > 1:
            x = dct(x.unflatten(-1, (-1, odd))).flatten(-2)
        return _hadamard(x, odd)

    @staticmethod
    def _inverse_transform(c: Tensor) -> Tensor:
        """Tᵀ along the last dimension."""
        odd = _odd_factor(c.shape[-1])
        c = _hadamard(c, odd)
        return idct(c.unflatten(-1, (-1, odd))).flatten(-2) if odd > 1 else c

    update_parameters = _check.keep_parameters

    @property
    def singular_values(self) -> Tensor:
        """(1, 1, H, W): 1 at the rows of T that are kept, 0 elsewhere."""
        return self.mask

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """Measurements (B, C, m) of x (B, C, H, W)."""
        return self.U(self.V_adjoint(x))

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """(B, C, H, W), of y (B, C, m)."""
        return self.V(self.U_adjoint(y))

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᵀA x, (B, C, H, W): a projection."""
        return self.A_adjoint(self.A(x))

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A copy of y: the rows are orthonormal."""
        _check.images(self, "y", y, self.measurement_size)
        return y.clone()

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """The same as A_adjoint: the rows are orthonormal."""
        return self.A_adjoint(y)

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        return _algebra.prox_orthogonal_rows(self, z, y, gamma, sq_norm=1.0)

    def U(self, x: Tensor) -> Tensor:
        """Measurement (B, C, m): the kept coefficients of x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return _pick(x.flatten(-2), self._kept)

    def U_adjoint(self, x: Tensor, **kwargs) -> Tensor:
        """Coefficients (B, C, H, W) of a measurement (B, C, m), zero where nothing is measured."""
        _check.images(self, "y", x, self.measurement_size)
        plane = x.new_zeros(*x.shape[:-1], self.mask.numel())
        return plane.scatter(-1, self._kept.expand_as(x), x).unflatten(-1, self.img_size[1:])

    def V(self, x: Tensor, **kwargs) -> Tensor:
        """Image (B, C, H, W) of the coefficients x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        shuffled = self._signs * self._inverse_transform(x.flatten(-2))
        return _pick(shuffled, self._inverse_order).unflatten(-1, self.img_size[1:])

    def V_adjoint(self, x: Tensor) -> Tensor:
        """Coefficients T S Π x, (B, C, H, W), of the image x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return self._transform(self._signs * _pick(x.flatten(-2), self._order)).unflatten(-1, self.img_size[1:])


class DCTSensing(CompressedSensing):
    """The same with the orthonormal DCT-II of all n pixels for T, at any size."""

    _transform = staticmethod(dct)
    _inverse_transform = staticmethod(idct)


def measurements(img_size: tuple[int, int, int], rate: float) -> int:
    """How many measurements round(rate · H · W) a channel has. Raises ValueError unless it is at least one."""
    _, height, width = img_size
    rate = _check.real("rate", rate, 0, 1, low_included=False)
    m = round(rate * height * width)
    if m == 0:
        raise ValueError(f"rate: expected at least one measurement of {height} x {width} pixels, got rate = {rate}")
    return m


def _pick(x: Tensor, places: Tensor) -> Tensor:
    """x[..., places] for x (..., n): many times faster than indexing on a CPU, and backwards too."""
    return x.gather(-1, places.expand(*x.shape[:-1], -1))


def _odd_factor(n: int) -> int:
    return n // (n & -n)  # n & -n is the largest power of two that divides n


@exact
def _hadamard(x: Tensor, stride: int) -> Tensor:
    """H ⊗ I for x (..., 2^k · stride) with the orthonormal symmetric Walsh-Hadamard H (2^k, 2^k) and I (stride, stride).

    In natural order, by multiplying four of the k binary digits of the index at a time by a matrix (16, 16).
    """
    n = x.shape[-1]
    shape = x.shape
    while stride < n:
        size = min(16, n // stride)
        matrix = _small_hadamard(size, x.dtype, x.device)
        if stride == 1:
            x = x.reshape(*shape[:-1], n // size, size) @ matrix
        else:
            x = matrix @ x.reshape(*shape[:-1], n // (size * stride), size, stride)
        stride *= size
    return x.reshape(shape)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # gradients must pass what was first made without them
def _small_hadamard(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal Walsh-Hadamard matrix (size, size), for a power of two. Shared: do not change it."""
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / size**0.5
