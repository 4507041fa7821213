"""Compressed sensing with a dense Gaussian matrix, for small images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check
from operators._precision import matmul
from operators.compressed_sensing import measurements

LARGEST_MATRIX = 2**26  # numbers: 256 MiB in single precision


class GaussianSensing(DecomposablePhysics):
    """y = G x + n in every channel, for a dense G (m, n) of independent normals of variance 1 / m.

    img_size: (C, H, W), small: n = H · W, and G must have at most 2^26 entries. rate: in (0, 1], m = round(rate · n).
    seed: an integer >= 0. noise_model, device: deepinv's. x is (B, C, H, W), y (B, C, m), and E |G x|² = |x|².

    The SVD is that of G, found once, in double precision: seconds at 64 x 64, minutes at the limit. The coefficients
    fill (C, H, W) row by row, the m singular values first, the largest of them first.
    Raises ValueError on values outside these ranges, on a G that would be too large, and when called on a tensor of
    another size.
    """

    mask: Tensor
    matrix: Tensor
    _u: Tensor
    _w: Tensor
    _reflectors: Tensor
    _scales: Tensor

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
        if m * n > LARGEST_MATRIX:
            raise ValueError(
                f"img_size: expected a dense matrix of at most {LARGEST_MATRIX} numbers, got {m} x {n} for (H, W) = "
                f"{(height, width)} at rate {rate:g}; CompressedSensing stores no matrix"
            )
        matrix = np.random.default_rng(_check.integer("seed", seed, 0)).standard_normal((m, n)) / m**0.5
        super().__init__(img_size=img_size, noise_model=noise_model, device=device)
        self.measurement_size = (channels, m)
        self.register_buffer("matrix", torch.from_numpy(matrix).to(device, torch.get_default_dtype()))
        for name in ("_u", "_w", "_reflectors", "_scales"):
            self.register_buffer(name, None)
        self._set_svd()

    def _set_svd(self) -> None:
        """G = U diag(s) (Q W)ᵀ for Gᵀ = Q R, R = W diag(s) Uᵀ; Q (n, n) is a product of m Householder reflections."""
        m, n = self.matrix.shape
        reflectors, scales = torch.geqrf(self.matrix.double().T)
        w, s, ut = torch.linalg.svd(reflectors[:m].triu())
        values = s.new_zeros(n)
        values[:m] = s
        self.mask = values.reshape(1, 1, *self.img_size[1:]).to(self.matrix)
        self._u, self._w = ut.T.contiguous().to(self.matrix), w.to(self.matrix)
        self._reflectors, self._scales = reflectors.to(self.matrix), scales.to(self.matrix)

    def _apply(self, fn, recurse=True):
        before = self._buffers.get("matrix")
        super()._apply(fn, recurse)
        if before is not None and self.matrix.dtype != before.dtype:
            self._set_svd()  # anew, so that A = U diag(s) Vᵀ holds to the precision of the new dtype
        return self

    update_parameters = _check.keep_parameters

    @property
    def singular_values(self) -> Tensor:
        """(1, 1, H, W), the m of G first, then zeros."""
        return self.mask

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """Measurements (B, C, m) of x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return matmul(x.flatten(-2), self.matrix.T)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """(B, C, H, W), of y (B, C, m)."""
        _check.images(self, "y", y, self.measurement_size)
        return matmul(y, self.matrix).unflatten(-1, self.img_size[1:])

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᵀA x, (B, C, H, W)."""
        return self.A_adjoint(self.A(x))

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A Aᵀ y, (B, C, m)."""
        return self.A(self.A_adjoint(y))

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """Pseudo-inverse, (B, C, H, W); singular values below 1e-5 of the largest count as zero."""
        kept = self.mask > _algebra.RANK_TOLERANCE * self.mask.max()
        return self.V(torch.where(kept, 1 / torch.where(kept, self.mask, 1), 0) * self.U_adjoint(y))

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        z = _algebra.starting_point(self, z, y)
        gamma = _algebra.per_image(gamma, z)
        return z + self.V(gamma * self.mask / (1 + gamma * self.mask**2) * self.U_adjoint(y - self.A(z)))

    def U(self, x: Tensor) -> Tensor:
        """Measurement (B, C, m) of the coefficients x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return matmul(x.flatten(-2)[..., : len(self._u)], self._u.T)

    def U_adjoint(self, x: Tensor, **kwargs) -> Tensor:
        """Coefficients (B, C, H, W) of a measurement (B, C, m), zero beyond the singular values."""
        _check.images(self, "y", x, self.measurement_size)
        coefficients = F.pad(matmul(x, self._u), (0, self.mask.numel() - len(self._u)))
        return coefficients.unflatten(-1, self.img_size[1:])

    def V(self, x: Tensor, **kwargs) -> Tensor:
        """Image (B, C, H, W) of the coefficients x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        flat, m = x.flatten(-2), len(self._u)
        turned = torch.cat([matmul(flat[..., :m], self._w.T), flat[..., m:]], dim=-1)
        return self._reflect(turned, transpose=False).reshape(x.shape)

    def V_adjoint(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, H, W) of the image x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        turned, m = self._reflect(x.flatten(-2), transpose=True), len(self._u)
        return torch.cat([matmul(turned[..., :m], self._w), turned[..., m:]], dim=-1).reshape(x.shape)

    def _reflect(self, x: Tensor, transpose: bool) -> Tensor:
        """Q or Qᵀ applied to vectors x (..., n)."""
        dtype = torch.promote_types(x.dtype, self._scales.dtype)
        columns, reflectors, scales = (t.to(dtype) for t in (x.reshape(-1, x.shape[-1]).T, self._reflectors, self._scales))
        return torch.ormqr(reflectors, scales, columns, left=True, transpose=transpose).T.reshape(x.shape)
