"""Multi-coil MRI along any trajectory in k-space: radial, spiral, one's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check, _parameters
from operators.iterative import IterativePhysics, conjugate_gradients
from operators.mri import _cartesian, _noncartesian, _nufft, toeplitz

# Complex numbers that one call of a NUFFT may hold: 1 GiB.
CHUNK = 2**26


@_parameters.also_in_calls
class NonCartesianMRI(IterativePhysics):
    """y_n(k) = Σ_m (F s_mn x_m)(k) + n: what N coils measure of M complex images, one a set of maps, at the points k.

    (F x)(k) = Σ_r x(r) exp(-2 pi i k · r / size) / sqrt(prod(size)), r = 0 at index size // 2: on the points of the grid
    this is the centred orthonormal FFT of the Cartesian operators.

    trajectory: (K, 2) or (shots, samples, 2), the points (ky, kx), ky along the rows; in cycles per field of view, that
    is, in [-H / 2, H / 2] x [-W / 2, W / 2], the unit of SigPy and BART. (..., 3), (kz, ky, kx), for volumes. For a
    series of T frames, T of these, (T, ..., 2). K below is the number of points, of one frame.
    img_size: (H, W), or (2 M, H, W) for M sets of maps, or (2 M, T, H, W) for a series; (D, H, W) in the place of (H, W)
    for volumes. coil_maps: complex, (N, H, W), (B, N, H, W), or (B, M, N, H, W) for M sets, where B is 1 or the batch;
    frames share them; None is one coil, of ones. density: weight of each point, >= 0, (K,) or the shape of the trajectory
    without its last axis; see `trajectories.radial_density` and `iterative_density`. device: that of coil_maps by default.
    noise_model: deepinv's. tol, max_iter: of the conjugate gradients in A_dagger and prox_l2.

    x is (B, 2 M, H, W), or (B, 2 M, T, H, W); y is (B, 2, N, K), or (B, 2, N, T, K).
    A and A_adjoint are NUFFTs by finufft, on the CPU also where x is on a GPU; they are each other's adjoint to rounding.
    A_adjoint_A has none: it is `toeplitz.normal`, on the device of x, so the iterations of A_dagger and prox_l2 run there.
    The density never changes A or A_adjoint: it is for `gridding`, from which A_dagger then starts.
    The precision is that of the maps, or torch's default dtype: errors of 1e-6, or 1e-13 in float64. Gradients reach x and
    y, of any order, but neither the trajectory nor the maps.
    Raises ImportError without mri-nufft and finufft (`pip install 'invdiff[mri]'`), ValueError on a trajectory of another
    shape, that reaches beyond H / 2 or W / 2, or no further than 0.5 (radians pass for one of low resolution), on maps that
    are not complex, not finite or all zero, on a density that is negative or of another shape, and when called on a tensor
    of another size.
    Source: Pruessmann et al. 2001, SENSE with arbitrary trajectories; Barnett et al. 2019, finufft; Fessler et al. 2005.
    """

    trajectory: Tensor
    coil_maps: Tensor
    density: Tensor | None

    def __init__(
        self,
        trajectory: Tensor | np.ndarray,
        img_size: Sequence[int],
        coil_maps: Tensor | np.ndarray | None = None,
        density: Tensor | np.ndarray | None = None,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str | None = None,
        tol: float = 1e-4,
        max_iter: int = 100,
    ):
        _nufft.require()
        points = _check.own_tensor(trajectory)
        img_size, frames, self._grid = _noncartesian.sizes(img_size, points)
        maps = _noncartesian.coil_maps(coil_maps, img_size[0] // 2, self._grid)
        self._shape = tuple(points.shape[:-1])  # as the points were given: shots and samples, perhaps
        weights = _noncartesian.density(density, self._shape, frames)
        points = _noncartesian.trajectory(points, frames, self._grid)
        device = maps.device if device is None else device
        super().__init__(img_size=img_size, noise_model=noise_model, device=device, tol=tol, max_iter=max_iter)
        series = () if frames is None else (frames,)
        self.measurement_size = (2, maps.shape[2], *series, points.shape[-2])
        self.register_buffer("coil_maps", _cartesian.complex_pairs(maps).to(device))  # (1 or B, M, N, *grid, 2)
        self.register_buffer("trajectory", points.to(self.coil_maps))  # (K, d) or (T, K, d)
        self.register_buffer("density", None if weights is None else weights.to(self.coil_maps))  # (K,) or (T, K)
        self._nuffts = _nufft.Derived(_plan)
        self._spectra = _nufft.Derived(_spectra)

    def _apply(self, fn, recurse=True):
        before = self._buffers.get("trajectory")
        super()._apply(fn, recurse)
        if before is not None and self.trajectory.dtype not in (torch.float32, torch.float64):
            self.trajectory = before.to(self.trajectory.device, torch.float32)  # half precision would move the points
        return self

    def update_parameters(self, trajectory=None, coil_maps=None, density=None, **kwargs) -> None:
        """Take new ones, where they are not None, as the constructor does. Other parameters are ignored.

        A trajectory without a density has none. Raises ValueError on another number of points or of coils, too.
        """
        points, maps, weights, shape = self.trajectory, self.coil_maps, self.density, self._shape
        coils, frames = self.measurement_size[1], len(points) if points.ndim == 3 else None
        if trajectory is not None:
            given = _check.own_tensor(trajectory)
            if given.ndim < points.ndim or given.numel() != points.numel() or given.shape[-1] != points.shape[-1]:
                raise ValueError(f"trajectory: expected {tuple(points.shape)}, as before, got {tuple(given.shape)}")
            _noncartesian.sizes(self.img_size, given)
            points, shape = _noncartesian.trajectory(given, frames, self._grid), tuple(given.shape[:-1])
        if trajectory is not None or density is not None:
            weights = _noncartesian.density(density, shape, frames)
        if coil_maps is not None:
            maps = _noncartesian.coil_maps(coil_maps, self.img_size[0] // 2, self._grid)
            if maps.shape[2] != coils:
                raise ValueError(f"coil_maps: expected {coils} coils, as before, got {maps.shape[2]}")
            maps = _cartesian.complex_pairs(maps)
        self._shape, self.density = shape, None if weights is None else weights.to(self.coil_maps)
        self.trajectory, self.coil_maps = points.to(self.trajectory), maps.to(self.coil_maps)

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """k-space of every coil, (B, 2, N, K) or (B, 2, N, T, K)."""
        return _cartesian.linear(self._forward, self._adjoint, self._ready("x", x, self.img_size))

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """The exact adjoint, without any weights, in the shape of x."""
        return _cartesian.linear(self._adjoint, self._forward, self._ready("y", y, self.measurement_size))

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᴴA x, in the shape of x, by FFTs alone; the same as A_adjoint(A(x)) to the precision of A."""
        return _cartesian.linear(self._normal, self._normal, self._ready("x", x, self.img_size))

    def gridding(self, y: Tensor) -> Tensor:
        """AᴴW y, the classical reconstruction without iterations, in the shape of x, with the weights `density`.

        Raises ValueError if the operator has no density.
        """
        if self.density is None:
            raise ValueError("density: expected weights for gridding, got None; trajectories.iterative_density computes some")
        return self.A_adjoint(y * self.density)

    def A_dagger(self, y, x_init=None, *, max_iter: int | None = None, tol: float | None = None, **kwargs) -> Tensor:
        """Least-squares solution, the one of least norm if x_init is None; the density, if any, gives it a better start."""
        if x_init is not None or self.density is None:
            return super().A_dagger(y, x_init, max_iter=max_iter, tol=tol)
        b, start = self.A_adjoint(y), self.gridding(y)  # in the range of Aᴴ, as the solution of least norm is
        along, total = _algebra.inner(b, start), _algebra.inner(self.A_adjoint_A(start), start)
        start = start * torch.where(total > 0, along / torch.where(total > 0, total, 1), 0)  # its best multiple
        return conjugate_gradients(self.A_adjoint_A, b, start, **self._limits(max_iter, tol)).x

    def prox_l2(self, z, y, gamma, x_init=None, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        z = self._ready("z", _algebra.starting_point(self, z, y), self.img_size)
        return super().prox_l2(z, y, gamma, x_init, **kwargs)

    def _ready(self, name: str, value: Tensor, size: tuple[int, ...]) -> Tensor:
        _cartesian.batch_of(self, name, value, size, {"the maps": self.coil_maps})
        return value.to(_cartesian.working_dtype(value, self.coil_maps))

    def _pieces(self, batch: int, nuffts: list[_nufft.Nufft]) -> Iterator[tuple[int, int, slice]]:
        """Item, frame and coils of each call of a NUFFT."""
        coils, some = self.measurement_size[1], nuffts[0].transforms
        for item in range(batch):
            for frame in range(len(nuffts)):
                for coil in range(0, coils, some):
                    yield item, frame, slice(coil, coil + some)

    def _maps_of(self, x: Tensor) -> Tensor:
        """Maps (B, M, N, *grid) for an x (B, ...), as a view, in its precision."""
        maps = torch.view_as_complex(self.coil_maps.to(x.dtype))
        return maps.expand(len(x), *maps.shape[1:])

    def _images(self, x: Tensor) -> Tensor:
        """Complex (B, M, T, *grid) of x, where T = 1 unless it is a series."""
        z = torch.complex(x[:, 0::2], x[:, 1::2])
        return z.reshape(len(x), z.shape[1], -1, *self._grid)

    def _channels(self, z: Tensor) -> Tensor:
        """The inverse of `_images`."""
        return torch.stack([z.real, z.imag], dim=2).reshape(len(z), *self.img_size)

    def _forward(self, x: Tensor) -> Tensor:
        nuffts = self._nuffts(self.trajectory, self._grid, self.measurement_size[1])
        z, maps = self._images(x), self._maps_of(x)
        y = x.new_empty(len(x), 2, maps.shape[2], len(nuffts), self.measurement_size[-1])
        for i, t, coils in self._pieces(len(x), nuffts):
            images = _cartesian.coil_images(maps[i : i + 1, :, coils], z[i : i + 1, :, t])[0]
            y[i, :, coils, t] = torch.view_as_real(nuffts[t].forward(images)).movedim(-1, 0)
        return y.reshape(len(x), *self.measurement_size)

    def _adjoint(self, y: Tensor) -> Tensor:
        nuffts = self._nuffts(self.trajectory, self._grid, self.measurement_size[1])
        maps = self._maps_of(y)
        y = y.reshape(len(y), 2, maps.shape[2], len(nuffts), -1)
        z = torch.zeros(len(y), maps.shape[1], len(nuffts), *self._grid, dtype=maps.dtype, device=y.device)
        for i, t, coils in self._pieces(len(y), nuffts):
            images = nuffts[t].adjoint(torch.complex(y[i, 0, coils, t], y[i, 1, coils, t])).to(z)
            z[i, :, t] += toeplitz.combined(maps[i : i + 1, :, coils], images[None])[0]
        return self._channels(z)

    def _normal(self, x: Tensor) -> Tensor:
        spectra = self._spectra(self.trajectory, self._grid)
        z, maps = self._images(x), self._maps_of(x)
        frames = [toeplitz.normal(z[:, :, t], maps, spectrum.to(x.dtype)) for t, spectrum in enumerate(spectra)]
        return self._channels(torch.stack(frames, dim=2))


def _plan(trajectory: Tensor, grid: tuple[int, ...], coils: int) -> list[_nufft.Nufft]:
    """A NUFFT for each frame, of as many coils at a time as a chunk holds."""
    each = max(math.prod(grid), trajectory.shape[-2])
    at_once = max(n for n in range(1, coils + 1) if coils % n == 0 and (n == 1 or n * each <= CHUNK))
    tolerance = 1e-6 if trajectory.dtype == torch.float32 else 1e-13
    return [_nufft.Nufft(points, grid, at_once, tolerance) for points in trajectory.reshape(-1, *trajectory.shape[-2:])]


def _spectra(trajectory: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The spectrum of FᴴF for each frame, (T, *(2,) * d, *grid, 2)."""
    points = trajectory.reshape(-1, *trajectory.shape[-2:])
    return torch.stack([toeplitz.spectrum(p, grid).to(trajectory) for p in points])
