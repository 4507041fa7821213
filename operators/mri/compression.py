"""Coil compression: fewer virtual coils that keep most of the signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from operators import _check
from operators.mri import _fourier
from operators.mri.coils import complex_data, mix_coils, spatial_axis


class Compressed(NamedTuple):
    """Virtual coils kspace (B, M, ...), the matrices that made them, and the fraction of energy kept, (B,).

    matrix: (B, M, N), for `mix_coils(x, matrix)`; after geometric compression (B, R, M, N), one for each of the R
    positions along the axis, for `mix_coils(x, matrix, axis)` of images or maps.
    """

    kspace: Tensor
    matrix: Tensor
    energy: Tensor


def compress_svd(kspace: Tensor, coils: int, calib: int | None = None) -> Compressed:
    """The `coils` virtual coils that keep most energy of k-space (B, N, ...), for each item of the batch.

    The rows of matrix (B, M, N) are the first principal directions of the samples, orthonormal (Huang et al. 2008), so
    white noise stays white. calib: use only the central `calib` samples of each dimension. energy: of all of kspace.
    Raises ValueError for more coils than kspace has, and for k-space that is all zero, not finite or not complex.
    """
    _check_input(kspace, coils)
    centre = _centre(kspace, calib, range(2, kspace.ndim)).flatten(2)
    matrix = _principal(centre, coils)
    compressed = mix_coils(kspace, matrix)
    return Compressed(compressed, matrix, _energy(compressed, kspace))


def compress_geometric(kspace: Tensor, coils: int, axis: int = -1, calib: int | None = None) -> Compressed:
    """Virtual coils of k-space (B, N, ...) with a matrix of their own for each position along `axis`, the readout.

    Fully sampled along `axis`, k-space there becomes an image, and each position is compressed by its own SVD; a rotation
    of the virtual coils aligns each position with its neighbour, so that the coils stay smooth (Zhang et al. 2013).
    Keeps at least the energy that `compress_svd` does. matrix: (B, R, M, N). calib: use only the central `calib` samples
    of the other dimensions; the energies are then no longer ordered so. Coil maps follow as
    `mix_coils(maps, matrix, axis)`. Raises ValueError as `compress_svd`.
    """
    _check_input(kspace, coils)
    axis = spatial_axis(kspace, axis)
    hybrid = _fourier.ifft(kspace, (axis,))
    others = [dim for dim in range(2, kspace.ndim) if dim != axis]
    centre = _centre(hybrid, calib, others).movedim(axis, 1).flatten(3)  # (B, R, N, samples)
    common = _principal(centre.transpose(1, 2).flatten(2), coils)
    matrix = _align(_principal(centre, coils), common)
    compressed = _fourier.fft(mix_coils(hybrid, matrix, axis), (axis,))
    return Compressed(compressed, matrix, _energy(compressed, kspace))


def _check_input(kspace: Tensor, coils: int) -> None:
    complex_data("kspace", kspace, 3)
    empty = ~kspace.flatten(1).any(1)
    if empty.any():
        raise ValueError(f"kspace: expected signal, got zeros everywhere in item {int(empty.nonzero()[0])}")
    if _check.integer("coils", coils, 1) > kspace.shape[1]:
        raise ValueError(f"coils: expected at most {kspace.shape[1]}, the coils of kspace, got {coils}")


def _centre(x: Tensor, calib: int | None, dims: Sequence[int]) -> Tensor:
    if calib is not None:
        _check.integer("calib", calib, 1)
        for dim in dims:
            n = x.shape[dim]
            x = x.narrow(dim, max(n // 2 - calib // 2, 0), min(calib, n))
    return x


def _principal(samples: Tensor, count: int) -> Tensor:
    """The first principal directions (..., count, N) of samples (..., N, S), as rows."""
    _, vectors = torch.linalg.eigh(samples @ samples.mH)
    return vectors[..., -count:].flip(-1).mH.resolve_conj()     # NumPy cannot hold a lazily conjugated tensor


def _align(matrix: Tensor, first: Tensor) -> Tensor:
    """Rotate the rows of matrix (B, R, M, N) to be close to their neighbour's: from the middle, like `first`, outwards."""
    aligned = list(matrix.unbind(1))
    middle = len(aligned) // 2
    for i in [*range(middle, len(aligned)), *range(middle - 1, -1, -1)]:
        neighbour = first if i == middle else aligned[i - 1] if i > middle else aligned[i + 1]
        u, _, vh = torch.linalg.svd(neighbour @ aligned[i].mH)  # the nearest rotation: orthogonal Procrustes
        aligned[i] = u @ vh @ aligned[i]
    return torch.stack(aligned, 1)


def _energy(compressed: Tensor, kspace: Tensor) -> Tensor:
    return compressed.abs().square().flatten(1).sum(1) / kspace.abs().square().flatten(1).sum(1)
