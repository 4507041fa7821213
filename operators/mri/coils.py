"""Coil tools: noise prewhitening, simulated birdcage coils, combination of coil images.

K-space, coil images and coil maps are complex tensors (B, N, ...) of N coils over two or three spatial dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators import _check


def complex_data(name: str, value: Tensor, low: int = 2) -> None:
    """Raise unless `value` is a finite complex tensor of at least `low` dimensions, none of them empty."""
    if not isinstance(value, Tensor) or not value.is_complex():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"{name}: expected a complex tensor (two real channels (B, 2, ...) become one by "
            f"torch.complex(y[:, 0], y[:, 1])), got {kind}"
        )
    if value.ndim < low or not value.numel():
        raise ValueError(f"{name}: expected at least {low} dimensions, none of them empty, got {tuple(value.shape)}")
    _check.finite(name, value)


def mix_coils(x: Tensor, matrix: Tensor, axis: int | None = None) -> Tensor:
    """Linear combinations (B, M, ...) of the coils of x (B, N, ...): k-space, images or maps.

    matrix: (M, N) or (B, M, N). With an `axis`, a spatial dimension of x in image space with R positions, a matrix for
    each position, (R, M, N) or (B, R, M, N). Raises ValueError if the shapes do not fit.
    """
    complex_data("x", x, 3)
    if axis is None:
        _fits(matrix, x, (x.shape[1],))
        return (matrix.to(x.dtype) @ x.flatten(2)).unflatten(2, x.shape[2:])
    axis = spatial_axis(x, axis)
    _fits(matrix, x, (x.shape[axis], x.shape[1]))
    by_position = x.movedim(axis, 1)  # (B, R, N, ...)
    mixed = (matrix.to(x.dtype) @ by_position.flatten(3)).unflatten(3, by_position.shape[3:])
    return mixed.movedim(1, axis)


def _fits(matrix: Tensor, x: Tensor, expected: tuple[int, ...]) -> None:
    own = (*matrix.shape[-len(expected) - 1 : -2], matrix.shape[-1])
    batch = matrix.shape[: -len(expected) - 1]
    if own != expected or batch not in ((), (1,), x.shape[:1]):
        shape = f"(..., {', '.join(map(str, expected[:-1]))}{', ' if expected[:-1] else ''}M, {expected[-1]})"
        raise ValueError(f"matrix: expected {shape} for x of shape {tuple(x.shape)}, got {tuple(matrix.shape)}")
    if matrix.device != x.device:
        raise ValueError(f"matrix: expected a tensor on {x.device}, where x is, got one on {matrix.device}")


def spatial_axis(x: Tensor, axis: int) -> int:
    """`axis` counted from the front, if it is a spatial dimension of x (B, N, ...); ValueError if not."""
    positive = axis + x.ndim if axis < 0 else axis
    if not 2 <= positive < x.ndim:
        raise ValueError(f"axis: expected a spatial dimension, 2 to {x.ndim - 1} or -1 to {2 - x.ndim}, got {axis}")
    return positive


def noise_covariance(noise: Tensor) -> Tensor:
    """Covariance E[n nᴴ] (N, N) of complex noise samples (N, ...), of mean zero, from a scan without excitation.

    The diagonal is E|n|² = 2 sigma² of each coil, sigma per real channel. Raises ValueError if there are fewer samples
    than coils.
    """
    complex_data("noise", noise)
    samples = noise.flatten(1)
    coils, count = samples.shape
    if count < coils:
        raise ValueError(f"noise: expected at least {coils} samples, one for each coil, got {count}")
    return samples @ samples.mH / count


def border_samples(kspace: Tensor, border: float = 0.1, dims: Sequence[int] = (-2, -1)) -> Tensor:
    """Samples (N, S) from the border of k-space (B, N, ...), nearly free of signal, for `noise_covariance`.

    Taken are places in the outer `border` of each one of `dims`: of both dimensions, the corners; of the readout alone,
    dims=(-1,), its two edges. border: fraction of the half width, in (0, 1]. Places that are zero in all coils were not
    sampled and are left out. The batch is pooled. Raises ValueError if fewer samples are left than coils.
    """
    complex_data("kspace", kspace, 3)
    border = _check.real("border", border, 0, 1, low_included=False)
    inside = (kspace != 0).any(1)  # (B, ...)
    for dim in dims:
        axis = spatial_axis(kspace, dim)
        n = kspace.shape[axis]
        distance = (torch.arange(n, device=kspace.device) - n // 2).abs()
        outer = distance > (1 - border) * (n / 2)
        inside = inside & outer.reshape(-1, *[1] * (kspace.ndim - 1 - axis))
    samples = kspace.movedim(1, 0)[:, inside]
    if samples.shape[1] < len(samples):
        raise ValueError(
            f"border: expected at least {len(samples)} sampled places in the outer {border:g} of dimensions "
            f"{tuple(dims)}, got {samples.shape[1]}; a wider border or fewer dimensions have more"
        )
    return samples


def prewhitening(covariance: Tensor, sigma: float = 1.0) -> Tensor:
    """The matrix (N, N) after which noise of `covariance` (N, N) is white, of standard deviation `sigma` per real channel.

    sqrt(2) sigma L⁻¹ with covariance = L Lᴴ (Pruessmann et al. 2001, Eq. 28-30), so that E|n|² = 2 sigma² in each coil.
    It acts on maps as well: maps estimated from prewhitened k-space are those of the mixed coils, and
    `mix_coils(maps, torch.linalg.inv(matrix))` are those of the scanner's. Raises ValueError if `covariance` is not a
    Hermitian, positive definite matrix.
    """
    complex_data("covariance", covariance)
    sigma = _check.real("sigma", sigma, 0, math.inf, low_included=False)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"covariance: expected a square matrix (N, N), got {tuple(covariance.shape)}")
    psi = covariance.to(torch.complex128)
    scale = psi.abs().amax()
    asymmetry = (psi - psi.mH).abs().amax()
    if asymmetry > 1e-4 * scale:
        raise ValueError(f"covariance: expected a Hermitian matrix, got one {asymmetry / scale:.2g} (relative) away from it")
    values = torch.linalg.eigvalsh(psi)
    if values[0] <= 1e-6 * values[-1]:
        raise ValueError(
            f"covariance: expected a positive definite matrix, got eigenvalues from {values[0]:.2g} to {values[-1]:.2g}; "
            "a dead or repeated coil, or too few samples, make it singular"
        )
    factor = torch.linalg.cholesky(psi)
    identity = torch.eye(len(psi), dtype=psi.dtype, device=psi.device)
    inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
    return (2**0.5 * sigma * inverse).to(covariance.dtype)


def prewhiten(kspace: Tensor, covariance: Tensor, sigma: float = 1.0) -> Tensor:
    """K-space (B, N, ...) with white noise of standard deviation `sigma` per real channel; see `prewhitening`."""
    return mix_coils(kspace, prewhitening(covariance, sigma))


def birdcage_maps(
    img_size: Sequence[int], coils: int = 8, rings: int = 1, radius: float = 1.5, normalize: bool = True
) -> Tensor:
    """Maps (1, N, H, W) or (1, N, D, H, W), complex64, of a birdcage of straight wires, for simulation.

    img_size: (H, W) or (D, H, W); half the image is one unit of length. coils: in all, in `rings` rings along D, one unit
    apart. radius: of the cage. A coil's magnitude is one over the distance to it, and its phase the direction to it
    less its angle on the cage. normalize: divide by the root sum of squares over coils. Raises ValueError for other sizes.
    """
    size = [_check.integer("img_size", n, 1) for n in img_size]
    if len(size) not in (2, 3):
        raise ValueError(f"img_size: expected (H, W) or (D, H, W), got {tuple(img_size)}")
    coils, rings = _check.integer("coils", coils, 1), _check.integer("rings", rings, 1)
    if coils % rings or (rings > 1 and len(size) == 2):
        raise ValueError(f"rings: expected a divisor of the {coils} coils, and 1 for a single slice, got {rings}")
    radius = _check.real("radius", radius, 0, math.inf, low_included=False)
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / (n / 2) for n in size]
    *z, y, x = torch.meshgrid(*axes, indexing="ij")
    number = torch.arange(coils, dtype=torch.float64).reshape(-1, *[1] * len(size))
    ring = torch.div(number, coils // rings, rounding_mode="floor")
    angle = number * (2 * math.pi * rings / coils)
    dx, dy = x - radius * angle.cos(), y - radius * angle.sin()
    dz = z[0] - (ring - 0.5 * (rings - 1)) if z else torch.zeros_like(dx)
    distance = (dx**2 + dy**2 + dz**2).sqrt().clamp(min=1e-6)  # a wire may cross the image where radius is small
    phase = torch.atan2(dx, -dy) - angle - ring * (2 * math.pi * rings / coils)
    maps = torch.polar(1 / distance, phase)
    if normalize:
        maps = maps / rss(maps[None])[0]
    return maps.to(torch.complex64)[None]


def rss(images: Tensor, dim: int = 1) -> Tensor:
    """Root sum of squares over the coils, (B, ...), of images (B, N, ...). dim: of the coils."""
    return torch.linalg.vector_norm(images, dim=dim)


def combine(images: Tensor, maps: Tensor, dim: int = 1) -> Tensor:
    """Coil images (B, N, ...) as one complex image (B, ...): sum of conj(maps) images over sum of |maps|², zero off the maps.

    The least-squares image, of the highest SNR where the coils' noise is white (Roemer et al. 1990). dim: of the coils.
    Several orthogonal sets of maps (B, M, N, ...) give an image each, (B, M, ...), by
    `combine(images[:, None], maps, dim=2)`. Raises ValueError for shapes that do not fit or maps that are zero everywhere.
    """
    complex_data("images", images, 3)
    complex_data("maps", maps, 3)
    if maps.device != images.device:
        raise ValueError(f"maps: expected a tensor on {images.device}, where the images are, got one on {maps.device}")
    try:
        product = maps.conj() * images
    except RuntimeError:
        raise ValueError(f"maps: expected a shape that fits images {tuple(images.shape)}, got {tuple(maps.shape)}") from None
    power = maps.abs().square().sum(dim)
    if not power.any():
        raise ValueError("maps: expected coil sensitivities, got zeros everywhere")
    return product.sum(dim) / torch.where(power > 0, power, 1)
