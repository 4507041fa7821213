"""Multi-coil MRI on a Cartesian grid: SENSE, with one or several sets of coil maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check, _parameters
from operators.iterative import IterativePhysics
from operators.mri import _cartesian

# Complex numbers worked on at a time: about what a CPU's cache holds, and 256 MiB of a GPU's memory.
CPU_CHUNK = 2**17
GPU_CHUNK = 2**25
SMALLEST_WEIGHT = 1e-12  # its square is no zero in single precision


@_parameters.also_in_calls
class MultiCoilMRI(IterativePhysics):
    """y_n = mask · (w F Σ_m s_mn x_m + n): the k-space that N coils see of M complex images, one for each set of maps.

    mask: (H, W), (D, H, W) or, one for each frame of a series, (T, H, W); (B, 1, *) of that, one for each item of a batch;
    bool or 0/1, True = sampled, the centre of k-space at index n // 2. coil_maps: complex, (N, H, W), (B, N, H, W), or
    (B, M, N, H, W) for M sets, where B is 1 or the batch; (D, H, W) in the place of (H, W) for volumes.
    weights: positive numbers w of the shape of one mask, or None for ones. Where the noise of k-space is not the same
    everywhere, w in proportion to 1 over its standard deviation, and measurements times w, make it so.
    img_size: (2 M, H, W), (2 M, D, H, W), or (2 M, T, H, W) with spatial_dims=2, a series whose frames share the maps;
    without it, that of the maps. spatial_dims: how many of the last axes are Fourier transformed, all of img_size's by
    default, or 2 without it. device: that of coil_maps by default. noise_model: deepinv's. tol, max_iter: of the
    conjugate gradients in A_dagger and prox_l2.

    x is (B, 2 M, *grid), real and imaginary part of one set after the other (`combine_sets` makes a magnitude of it);
    y is (B, 2, N, *grid), zero where k-space is not sampled. F is centred and orthonormal. The arithmetic has the
    precision of the maps, complex64 or complex128; `.to(torch.bfloat16)` halves their memory and computes in float32.
    Gradients reach x and y, not the maps.
    Raises ValueError on maps that are not complex, not finite or all zero, on a mask of another shape, with other values,
    or under which nothing is sampled, on weights that are no positive numbers, and when called on a tensor of another size.
    Source: Pruessmann et al. 1999, SENSE; Uecker et al. 2014, ESPIRiT, section "soft SENSE", for several sets.
    """

    mask: Tensor
    weights: Tensor
    coil_maps: Tensor
    _before: Tensor
    _after: Tensor
    _spectrum: Tensor

    def __init__(
        self,
        mask: Tensor | np.ndarray,
        coil_maps: Tensor | np.ndarray,
        *,
        weights: Tensor | np.ndarray | None = None,
        img_size: Sequence[int] | None = None,
        spatial_dims: int | None = None,
        noise_model: NoiseModel | None = None,
        device: torch.device | str | None = None,
        tol: float = 1e-4,
        max_iter: int = 100,
    ):
        img_size, spatial_dims, coil_maps = _sizes(img_size, spatial_dims, coil_maps)
        mask = _cartesian.sampling_mask(mask, img_size[1:], spatial_dims)
        _check_batch(mask, coil_maps)
        device = coil_maps.device if device is None else device
        super().__init__(img_size=img_size, noise_model=noise_model, device=device, tol=tol, max_iter=max_iter)
        self.measurement_size = (2, coil_maps.shape[2], *img_size[1:])
        self.spatial_dims = spatial_dims
        self.register_buffer("coil_maps", _cartesian.complex_pairs(coil_maps).to(device))  # (B, M, N, *spatial, 2)
        self.register_buffer("mask", mask.to(self.coil_maps))  # (B, 1, *grid)
        self.register_buffer("weights", _weights(weights, img_size[1:], spatial_dims).to(self.coil_maps))  # likewise, or ()
        for name in _cartesian.CONSTANTS:
            self.register_buffer(name, None, persistent=False)
        self._set_constants()

    def _set_constants(self) -> None:
        weights = (self.mask * self.weights).to(_cartesian.working_dtype(self.mask))
        before, after = (p.to(weights) for p in _cartesian.centring_pairs(self.img_size[-self.spatial_dims :]))
        self._before, self._after = before, after * weights[:, 0, ..., None]
        self._spectrum, self._axes = _cartesian.normal_spectrum(weights.square(), self.spatial_dims)

    def _apply(self, fn, recurse=True):
        before = self._buffers.get("mask")
        super()._apply(fn, recurse)
        if before is not None and self.mask.dtype != before.dtype:
            self._set_constants()  # anew, to the precision of the new dtype
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in _cartesian.CONSTANTS:
            state_dict.pop(prefix + name, None)  # of a state that still holds them
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._set_constants()

    def update_parameters(self, mask=None, weights=None, coil_maps=None, **kwargs) -> None:
        """Take new ones, where they are not None, as the constructor does. Other parameters are ignored.

        Raises ValueError on another number of coils, too.
        """
        grid, coils = self.img_size[1:], self.measurement_size[1]
        new_mask = self.mask if mask is None else _cartesian.sampling_mask(mask, grid, self.spatial_dims)
        new_weights = self.weights if weights is None else _weights(weights, grid, self.spatial_dims)
        new_maps = self.coil_maps
        if coil_maps is not None:
            new_maps = _cartesian.complex_pairs(_sizes(self.img_size, self.spatial_dims, coil_maps)[-1])
        if new_maps.shape[2] != coils:
            raise ValueError(f"coil_maps: expected {coils} coils, as before, got {new_maps.shape[2]}")
        _check_batch(new_mask, new_maps)
        self.mask, self.weights = new_mask.to(self.mask), new_weights.to(self.weights)
        self.coil_maps = new_maps.to(self.coil_maps)
        if mask is not None or weights is not None:
            self._set_constants()

    def _ready(self, name: str, value: Tensor, size: tuple[int, ...]) -> Tensor:
        _cartesian.batch_of(self, name, value, size, {"the maps": self.coil_maps, "the masks": self.mask})
        return value.to(_cartesian.working_dtype(value, self.mask))

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """k-space of every coil, (B, 2, N, *grid)."""
        return _cartesian.linear(self._forward, self._adjoint, self._ready("x", x, self.img_size))

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """The zero-filled images, of k-space times the weights, combined by the conjugate maps, (B, 2 M, *grid)."""
        return _cartesian.linear(self._adjoint, self._forward, self._ready("y", y, self.measurement_size))

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᴴA x, (B, 2 M, *grid), coil by coil, with no transform along axes where mask and weights are constant."""
        return _cartesian.linear(self._normal, self._normal, self._ready("x", x, self.img_size))

    def prox_l2(self, z, y, gamma, x_init=None, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        z = self._ready("z", _algebra.starting_point(self, z, y), self.img_size)
        return super().prox_l2(z, y, gamma, x_init, **kwargs)

    def noise(self, x: Tensor, **kwargs) -> Tensor:
        """The noisy measurement; what is not sampled stays zero."""
        return self.noise_model(self._ready("y", x, self.measurement_size), **kwargs) * self.mask[:, :, None]

    def _blocks(self, batch: int, axes: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
        chunk = CPU_CHUNK if self.mask.device.type == "cpu" else GPU_CHUNK
        return _cartesian.blocks(batch, self.measurement_size[1], self.img_size[1:], axes, chunk)

    def _expanded(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Views for a batch: maps (B, M, N, *grid, 2), Fourier weights (B, *grid) and the normal operator's (B, *grid, 2)."""
        grid, maps = self.img_size[1:], self.coil_maps
        if len(grid) > self.spatial_dims:
            maps = maps.unsqueeze(3)  # shared by the frames
        weights = torch.view_as_complex(self._after).expand(batch, *grid)
        return maps.expand(batch, -1, -1, *grid, 2), weights, self._spectrum.expand(batch, *grid, 2)

    def _forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(-self.spatial_dims, 0))
        maps, weights, _ = self._expanded(len(x))
        z = torch.complex(x[:, 0::2], x[:, 1::2]).mul_(torch.view_as_complex(self._before))
        y = x.new_empty(len(x), *self.measurement_size)
        for item, coil, row in self._blocks(len(x), axes):
            k = _cartesian.coil_images(_complex(maps[item, :, coil, row], x), z[item, :, row])
            k = torch.fft.fftn(k, dim=axes).mul_(weights[item, None, row])
            y[item, :, coil, row] = torch.view_as_real(k).movedim(-1, 1)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y = conj(Aᵀ conj(y)), without a conjugate of the maps; i conj(y) is y with its channels swapped."""
        axes = tuple(range(-self.spatial_dims, 0))
        maps, weights, _ = self._expanded(len(y))
        z = y.new_zeros(len(y), maps.shape[1], *self.img_size[1:], dtype=y.dtype.to_complex())
        for item, coil, row in self._blocks(len(y), axes):
            k = torch.complex(y[item, 1, coil, row], y[item, 0, coil, row]).mul_(weights[item, None, row])
            _add_combined(z[item, :, row], _complex(maps[item, :, coil, row], y), torch.fft.fftn(k, dim=axes))
        z.mul_(torch.view_as_complex(self._before))
        return torch.stack([z.imag, z.real], dim=2).flatten(1, 2)

    def _normal(self, x: Tensor) -> Tensor:
        maps, _, spectrum = self._expanded(len(x))
        z = torch.complex(x[:, 0::2], x[:, 1::2])
        result = torch.zeros_like(z)
        for item, coil, row in self._blocks(len(x), self._axes):
            some = _complex(maps[item, :, coil, row], x)
            k = _cartesian.circulant_(_cartesian.coil_images(some, z[item, :, row]), spectrum[item, None, row], self._axes)
            _add_combined(result[item, :, row], some, k)
        return torch.stack([result.real, -result.imag], dim=2).flatten(1, 2)


def combine_sets(x: Tensor) -> Tensor:
    """Magnitude (B, 1, *grid) of the images x (B, 2 M, *grid) of M sets of maps: the root of their sum of squares."""
    return x.square().sum(1, keepdim=True).sqrt()


def _complex(pairs: Tensor, like: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.to(like.dtype))


def _add_combined(result: Tensor, maps: Tensor, images: Tensor) -> None:
    """Add Σ_n s_mn images_n to the result (B, M, *grid)."""
    for m in range(maps.shape[1]):
        seen = maps[:, m] * images
        result[:, m] += seen[:, 0] if seen.shape[1] == 1 else seen.sum(1)


def _check_batch(mask: Tensor, maps: Tensor) -> None:
    """Raise unless the two are for batches of the same size, or one is for any."""
    if mask.shape[0] > 1 and maps.shape[0] not in (1, mask.shape[0]):
        raise ValueError(f"mask: expected a batch of 1 or {maps.shape[0]}, as the maps, got {tuple(mask.shape)}")


def _weights(weights: Tensor | np.ndarray | None, grid: tuple[int, ...], spatial_dims: int) -> Tensor:
    """Weights (1, 1, *grid), or a one for all."""
    if weights is None:
        return torch.ones(())
    weights = _check.own_tensor(weights)
    while weights.ndim > spatial_dims and len(weights) == 1:  # as another operator has them
        weights = weights[0]
    if tuple(weights.shape) not in (grid, grid[-spatial_dims:]):
        raise ValueError(f"weights: expected {grid[-spatial_dims:]}, as the mask, got {tuple(weights.shape)}")
    if weights.is_complex() or not (weights.isfinite() & (weights > SMALLEST_WEIGHT)).all():
        raise ValueError(f"weights: expected numbers above {SMALLEST_WEIGHT:g}, got others, NaN or infinity among them")
    return weights.reshape((1,) * (len(grid) + 2 - weights.ndim) + tuple(weights.shape))


def _sizes(
    img_size: Sequence[int] | None, spatial_dims: int | None, coil_maps: Tensor | np.ndarray
) -> tuple[tuple[int, ...], int, Tensor]:
    """Image size, number of Fourier axes, and the maps as a copy (1 or B, M, N, *spatial)."""
    if img_size is not None:
        img_size, axes = _cartesian.grid_size(img_size, spatial_dims)
    else:
        axes = 2 if spatial_dims is None else spatial_dims
        if axes not in (2, 3):
            raise ValueError(f"spatial_dims: expected 2 or 3, got {spatial_dims!r}")
    maps = _cartesian.own_maps(coil_maps, axes, img_size and img_size[-axes:])
    img_size = img_size or (2 * maps.shape[1], *maps.shape[-axes:])
    if img_size[0] != 2 * maps.shape[1]:
        raise ValueError(
            f"img_size: expected {2 * maps.shape[1]} channels, 2 for each of {maps.shape[1]} sets of maps, got {img_size}"
        )
    return img_size, axes, maps
