"""Separable operators: one matrix for the rows of the image, one for the columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check, _parameters
from operators._precision import exact


@_parameters.also_in_calls
class Separable(DecomposablePhysics):
    """y = rows · x · columnsᵀ + n, the same in every channel.

    img_size: (C, H, W). rows: real (h, H). columns: real (w, W). noise_model, device: deepinv's.
    x is (B, C, H, W), y is (B, C, h, w), for any h and w.

    The SVD is the product of those of the two matrices. Coefficients have the image's size; singular values are
    (1, 1, H, W), the largest first along both axes, zero where the matrices have no more of them.
    Raises ValueError on a matrix of another shape or that is not real, finite and nonzero, and when called on a tensor
    of another size.
    """

    mask: Tensor
    rows: Tensor
    columns: Tensor
    _u_rows: Tensor
    _v_rows: Tensor
    _u_columns: Tensor
    _v_columns: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        rows: Tensor | np.ndarray,
        columns: Tensor | np.ndarray,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        channels, height, width = img_size = _check.image_size(img_size)
        rows, columns = _as_matrix("rows", rows, None, height), _as_matrix("columns", columns, None, width)
        super().__init__(img_size=img_size, noise_model=noise_model, device=device)
        self.measurement_size = (channels, len(rows), len(columns))
        self.register_buffer("rows", rows.to(device, torch.get_default_dtype()))
        self.register_buffer("columns", columns.to(device, torch.get_default_dtype()))
        for name in ("_u_rows", "_v_rows", "_u_columns", "_v_columns"):
            self.register_buffer(name, None)
        self._set_svd()

    def _set_svd(self) -> None:
        s_rows, self._u_rows, self._v_rows = _svd(self.rows)
        s_columns, self._u_columns, self._v_columns = _svd(self.columns)
        self.mask = (s_rows[:, None] * s_columns)[None, None].to(self.rows)

    def _apply(self, fn, recurse=True):
        before = self._buffers.get("rows")
        super()._apply(fn, recurse)
        if before is not None and self.rows.dtype != before.dtype:
            self._set_svd()  # anew, so that A = U diag(s) Vᵀ holds to the precision of the new dtype
        return self

    def update_parameters(self, *, rows=None, columns=None, **kwargs) -> None:
        """Take other `rows` or `columns` of the same shape, where they are not None. Other parameters are ignored."""
        given = {name: matrix for name, matrix in (("rows", rows), ("columns", columns)) if matrix is not None}
        taken = {name: _as_matrix(name, matrix, *getattr(self, name).shape) for name, matrix in given.items()}
        for name, matrix in taken.items():
            setattr(self, name, matrix.to(self.rows))
        if taken:
            self._set_svd()

    @property
    def singular_values(self) -> Tensor:
        """(1, 1, H, W), in the order of the coefficients."""
        return self.mask

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """(B, C, h, w), of x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return _product(self.rows, x, self.columns.T)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """(B, C, H, W), of y (B, C, h, w)."""
        _check.images(self, "y", y, self.measurement_size)
        return _product(self.rows.T, y, self.columns)

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᵀA x, (B, C, H, W)."""
        return self.A_adjoint(self.A(x))

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A Aᵀ y, (B, C, h, w)."""
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
        """Measurement (B, C, h, w) of the coefficients x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        kept = x[..., : self._u_rows.shape[1], : self._u_columns.shape[1]]
        return _product(self._u_rows, kept, self._u_columns.T)

    def U_adjoint(self, x: Tensor, **kwargs) -> Tensor:
        """Coefficients (B, C, H, W) of a measurement (B, C, h, w), zero where there is no singular value."""
        _check.images(self, "y", x, self.measurement_size)
        kept = _product(self._u_rows.T, x, self._u_columns)
        coefficients = kept.new_zeros(*x.shape[:-2], *self.img_size[1:])
        coefficients[..., : kept.shape[-2], : kept.shape[-1]] = kept
        return coefficients

    def V(self, x: Tensor, **kwargs) -> Tensor:
        """Image (B, C, H, W) of the coefficients x (B, C, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return _product(self._v_rows, x, self._v_columns.T)

    def V_adjoint(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, H, W) of the image x (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return _product(self._v_rows.T, x, self._v_columns)


@exact
def _product(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """left · x · right, in the wider of the dtypes of x and of the two matrices."""
    if x.dtype != left.dtype:
        dtype = torch.promote_types(x.dtype, left.dtype)
        left, x, right = left.to(dtype), x.to(dtype), right.to(dtype)
    return left @ (x @ right)


def _as_matrix(name: str, matrix: Tensor | np.ndarray, height: int | None, width: int) -> Tensor:
    """A copy of the matrix (height, width), of any height if that is None."""
    matrix = _check.own_tensor(matrix)
    if matrix.ndim != 2 or len(matrix) == 0 or tuple(matrix.shape) != (height or len(matrix), width):
        raise ValueError(f"{name}: expected a matrix ({height or 'n'}, {width}), got {tuple(matrix.shape)}")
    if matrix.is_complex():
        raise ValueError(f"{name}: expected real numbers, got {matrix.dtype}")
    _check.finite(name, matrix)
    if not matrix.any():
        raise ValueError(f"{name}: expected a matrix that is not all zero, got {tuple(matrix.shape)} of zeros")
    return matrix


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values (n,), U (m, min(m, n)) and V (n, n) of a matrix (m, n), computed in double precision."""
    u, s, v = torch.linalg.svd(matrix.double())
    values = s.new_zeros(matrix.shape[1])
    values[: len(s)] = torch.where(s > 1e-14 * s[0], s, 0)  # zero where it is only rounding
    return values.to(matrix), u[:, : len(s)].to(matrix), v.T.contiguous().to(matrix)
