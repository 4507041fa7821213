"""Single-coil MRI on a Cartesian grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _parameters
from operators.mri import _cartesian


@_parameters.also_in_calls
class MRI(DecomposablePhysics):
    """y = mask · (F x + n): the centred orthonormal Fourier transform of a complex image, sampled at some places.

    img_size: (2, H, W), channels = (real, imaginary); (2, D, H, W), a volume; (2, T, H, W), a series of T frames, with
    spatial_dims=2. mask: (H, W), (D, H, W) or, one for each frame, (T, H, W); (B, 1, *) of that, one for each item of a
    batch; bool or 0/1, True = sampled, the centre of k-space at index n // 2. spatial_dims: how many of the last axes are
    transformed, all of img_size's by default. noise_model, device: deepinv's.
    x and y are (B, *img_size); y is zero where k-space is not sampled.

    F is unitary, so on (real, imaginary) pairs it is an orthonormal basis over the reals: V is its inverse, the singular
    values are the mask, and U and U_adjoint put zeros at the places that are not sampled.
    Raises ValueError on a mask of another shape, with other values, or under which nothing is sampled, and when called
    on a tensor of another size.
    """

    mask: Tensor
    _before: Tensor
    _after: Tensor
    _spectrum: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        mask: Tensor | np.ndarray,
        spatial_dims: int | None = None,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size, spatial_dims = _cartesian.grid_size(img_size, spatial_dims)
        if img_size[0] != 2:
            raise ValueError(f"img_size: expected 2 channels, (real, imaginary), got {img_size}")
        mask = _cartesian.sampling_mask(mask, img_size[1:], spatial_dims).to(torch.get_default_dtype())
        super().__init__(img_size=img_size, mask=mask, noise_model=noise_model, device=device)
        self.measurement_size = img_size
        self.spatial_dims = spatial_dims
        for name in _cartesian.CONSTANTS:
            self.register_buffer(name, None, persistent=False)
        self._set_constants()

    def _set_constants(self) -> None:
        mask = self.mask.to(_cartesian.working_dtype(self.mask))
        self._before, self._after = (p.to(mask) for p in _cartesian.centring_pairs(self.img_size[-self.spatial_dims :]))
        self._spectrum, self._axes = _cartesian.normal_spectrum(mask, self.spatial_dims)

    def _apply(self, fn, recurse=True):
        before = self._buffers.get("mask")
        super()._apply(fn, recurse)
        if before is not None and self.mask.dtype != before.dtype and self._before is not None:
            self._set_constants()  # anew, to the precision of the new dtype
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in _cartesian.CONSTANTS:
            state_dict.pop(prefix + name, None)  # of a state that still holds them
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._set_constants()

    def update_parameters(self, mask: Tensor | np.ndarray | None = None, **kwargs) -> None:
        """Take another mask, unless it is None, as the constructor does. Other parameters are ignored."""
        if mask is not None:
            self.mask = _cartesian.sampling_mask(mask, self.img_size[1:], self.spatial_dims).to(self.mask)
            self._set_constants()

    @property
    def singular_values(self) -> Tensor:
        """The mask, 0 or 1, (1 or B, 1, H, W), or with an axis more."""
        return self.mask

    def _ready(self, name: str, value: Tensor) -> Tensor:
        _cartesian.batch_of(self, name, value, self.img_size, {"the masks": self.mask})
        return value.to(_cartesian.working_dtype(value, self.mask))

    def _masked(self, name: str, value: Tensor) -> Tensor:
        return self._ready(name, value) * self.mask

    def _transform(self, x: Tensor) -> Tensor:
        """F x, on channels."""
        z = torch.complex(x[:, 0], x[:, 1]).mul_(torch.view_as_complex(self._before))
        z = torch.fft.fftn(z, dim=tuple(range(-self.spatial_dims, 0))).mul_(torch.view_as_complex(self._after))
        return torch.stack([z.real, z.imag], dim=1)

    def _inverse(self, k: Tensor) -> Tensor:
        """F⁻¹ k = conj(Fᵀ conj(k)), on channels; i conj(k) is k with its channels swapped, and Fᵀ has its ramps swapped."""
        z = torch.complex(k[:, 1], k[:, 0]).mul_(torch.view_as_complex(self._after))
        z = torch.fft.fftn(z, dim=tuple(range(-self.spatial_dims, 0))).mul_(torch.view_as_complex(self._before))
        return torch.stack([z.imag, z.real], dim=1)

    def _project(self, x: Tensor) -> Tensor:
        """Fᴴ mask F x, on channels."""
        z = _cartesian.circulant_(torch.complex(x[:, 0], x[:, 1]), self._spectrum, self._axes)
        return torch.stack([z.real, -z.imag], dim=1)

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """k-space with zeros at the places that are not sampled, (B, *img_size)."""
        return self.V_adjoint(x) * self.mask

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """The zero-filled image, (B, *img_size)."""
        return self._inverse(self._masked("y", y))

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """The same as A_adjoint: the rows of A are orthonormal or zero."""
        return self.A_adjoint(y)

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """A projection, (B, *img_size); axes along which the mask is constant are not transformed at all."""
        return self._project(self._ready("x", x))

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """y with zeros at the places that are not sampled."""
        return self._masked("y", y)

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        return _algebra.prox_orthogonal_rows(self, z, y, gamma, sq_norm=1.0)

    def V_adjoint(self, x: Tensor) -> Tensor:
        """All of k-space, F x, (B, *img_size)."""
        return self._transform(self._ready("x", x))

    def V(self, x: Tensor, **kwargs) -> Tensor:
        """The image whose k-space the coefficients x are, (B, *img_size)."""
        return self._inverse(self._ready("coefficients", x))

    def U(self, x: Tensor) -> Tensor:
        """Measurement of the coefficients, (B, *img_size)."""
        return self._masked("coefficients", x)

    def U_adjoint(self, x: Tensor, **kwargs) -> Tensor:
        """Coefficients of a measurement, (B, *img_size), zero where k-space is not sampled."""
        return self._masked("y", x)

    def noise(self, x: Tensor, **kwargs) -> Tensor:
        """The noisy measurement; what is not sampled stays zero."""
        return self._masked("y", self.noise_model(x, **kwargs))
