"""ESPIRiT: coil sensitivity maps from the fully sampled centre of k-space (Uecker et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from operators import _check
from operators.mri import _fourier
from operators.mri.coils import complex_data

RELATIVE_THRESHOLD = 0.02  # of the singular values, where the noise is lower still
NOISE_MARGIN = 1.2  # blocks overlap: the largest singular value of noise, squared, is up to 1.1 times the expected
ENERGY_LOST = 1e-3  # by the automatic crop, at most
HIGHEST_CROP = 0.95  # where objects overlap, eigenvalues are a little lower than elsewhere
SQUARINGS = 8  # of a matrix: its 256th power
WIDTHS = (4, 6)  # of a kernel: narrowest and widest
CHUNK = 2**19  # complex numbers that are worked on together, to stay in the cache of a CPU


class Calibration(NamedTuple):
    """maps (B, M, N, ...), eigenvalues (B, M, ...) in [0, 1], crop (B,) and kernels (B,), how many were kept."""

    maps: Tensor
    eigenvalues: Tensor
    crop: Tensor
    kernels: Tensor


def espirit(
    kspace: Tensor,
    calib: int | Sequence[int] = 24,
    sets: int = 1,
    *,
    kernel: int | None = None,
    threshold: float | None = None,
    crop: float | None = None,
    soft: bool = False,
) -> Tensor:
    """Coil maps (B, N, H, W), complex64, of unit norm over coils or zero, from k-space (B, N, H, W).

    calib: side, or sides, of the fully sampled centre of k-space. sets: of maps; more than one, for a field of view
    smaller than the object, gives (B, M, N, H, W), orthogonal, in falling order of eigenvalue. kernel: side in k-space;
    None: `kernel_width` of the centre.
    threshold: singular values of the calibration matrix above this fraction of the largest count as signal; None: those
    above 0.02 and above the noise, which is estimated. crop: the maps are zero where their eigenvalue is lower; None: the
    highest crop with 99.9 % of the energy of the calibration image, seen by the first set and less the noise, above it,
    but 0.95 at most.
    soft: fade out with the eigenvalue instead, for soft-SENSE. Volumes (B, N, D, H, W) give maps (B, N, D, H, W).
    The phase is relative to the first principal component of the coils. Gradients do not pass.

    Prewhiten k-space first, where there is a noise scan. Raises ValueError if the centre is larger than k-space, not
    fully sampled or too small for the kernel, and for real, non-finite or all-zero k-space.
    """
    maps = calibrate(kspace, calib, sets, kernel=kernel, threshold=threshold, crop=crop, soft=soft).maps
    return maps[:, 0] if sets == 1 else maps


@torch.no_grad()
def calibrate(
    kspace: Tensor,
    calib: int | Sequence[int] = 24,
    sets: int = 1,
    *,
    kernel: int | None = None,
    threshold: float | None = None,
    crop: float | None = None,
    soft: bool = False,
) -> Calibration:
    """`espirit` with its eigenvalues, and the crop and number of kernels that it chose for each item of the batch."""
    complex_data("kspace", kspace, 4)
    if kspace.ndim > 5:
        raise ValueError(f"kspace: expected (B, N, H, W) or (B, N, D, H, W), got {tuple(kspace.shape)}")
    if _check.integer("sets", sets, 1) > kspace.shape[1]:
        raise ValueError(f"sets: expected at most {kspace.shape[1]}, the coils of kspace, got {sets}")
    for name, value in (("threshold", threshold), ("crop", crop)):
        if value is not None:
            _check.real(name, value, 0, 1)
    sides, width = _calibration_region(kspace, calib, kernel)
    items = [_calibrate_item(item, sides, sets, width, threshold, crop, soft) for item in kspace]
    return Calibration(*map(torch.stack, zip(*items, strict=True)))


def kernel_width(sides: Sequence[int]) -> int:
    """Side of a kernel for a calibration region: its narrowest side has twice as many places for it as it is wide, so that
    its null space is seen; a wider one takes what it has not seen for it."""
    return min(max((min(sides) + 1) // 3, WIDTHS[0]), WIDTHS[1])


def _calibration_region(kspace: Tensor, calib: int | Sequence[int], kernel: int | None) -> tuple[list[int], int]:
    """Sides of the calibration region and of the kernel, after all checks that need no calculation."""
    size = kspace.shape[2:]
    sides = list(calib) if isinstance(calib, Sequence) else [calib] * len(size)
    sides = [_check.integer("calib", n, 1) for n in sides]
    if len(sides) != len(size) or any(n > m for n, m in zip(sides, size, strict=False)):
        raise ValueError(f"calib: expected a region that fits into {tuple(size)}, got {calib}")
    kernel = kernel_width(sides) if kernel is None else _check.integer("kernel", kernel, 1)
    if any(n < 2 * kernel - 1 for n in sides):  # less has fewer blocks than a kernel has samples: no null space in sight
        raise ValueError(f"calib: expected at least {2 * kernel - 1} per side, for a kernel of {kernel}, got {calib}")
    empty = ~kspace.flatten(1).any(1)
    if empty.any():
        raise ValueError(f"kspace: expected signal, got zeros everywhere in item {int(empty.nonzero()[0])}")
    missing = int((_centre(kspace, sides) == 0).all(1).sum())
    if missing:
        full = next((n for n in range(min(sides), 0, -1) if (_centre(kspace, [n] * len(size)) != 0).any(1).all()), 0)
        raise ValueError(
            f"calib: expected a fully sampled centre, got {missing} places that are zero in all coils within {sides}; "
            f"the largest fully sampled side is {full}"
        )
    return sides, kernel


def _calibrate_item(
    kspace: Tensor, sides: Sequence[int], sets: int, kernel: int, threshold: float | None, crop: float | None, soft: bool
) -> tuple[Tensor, ...]:
    """Maps (M, N, ...), eigenvalues (M, ...), crop and kernels of k-space (N, ...)."""
    size = kspace.shape[1:]
    centre = _centre(kspace[None], sides)[0]
    vectors, noise = _signal_space(_blocks(centre, kernel), threshold)
    maps, eigenvalues = _eigenmaps(_filters(vectors, len(kspace), kernel, len(size)), size, sets)
    image = _fourier.ifft(_zero_fill(centre, size), range(1, kspace.ndim))
    maps = maps * _phase_to(_first_component(centre), maps)
    if crop is None:
        energy = (maps[0].conj() * image).sum(0).abs().square()
        lowest = _automatic_crop(eigenvalues[0], energy - noise * centre[0].numel() / image[0].numel())
    else:
        lowest = torch.as_tensor(crop, dtype=eigenvalues.dtype, device=maps.device)
    if soft:
        rise = ((eigenvalues - lowest) / (1 - lowest).clamp(min=1e-6)).clamp(0, 1)
        weight = rise**2 * (3 - 2 * rise)
    else:
        weight = (eigenvalues >= lowest).to(eigenvalues.dtype)
    return maps * weight[:, None], eigenvalues, lowest, torch.tensor(vectors.shape[1], device=maps.device)


def _centre(kspace: Tensor, sides: Sequence[int]) -> Tensor:
    """The centre (B, N, *sides) of k-space (B, N, ...); index n // 2 is the origin."""
    for dim, n in enumerate(sides, 2):
        kspace = kspace.narrow(dim, kspace.shape[dim] // 2 - n // 2, n)
    return kspace


def _zero_fill(centre: Tensor, size: Sequence[int]) -> Tensor:
    full = centre.new_zeros(1, len(centre), *size)
    _centre(full, centre.shape[1:]).copy_(centre)
    return full[0]


def _blocks(centre: Tensor, kernel: int) -> Tensor:
    """The calibration matrix: each block of `kernel` samples per side, of all coils (N, ...), as a row."""
    dims = range(1, centre.ndim)
    for dim in dims:
        centre = centre.unfold(dim, kernel, 1)  # (N, blocks ..., kernel ...)
    rows = centre.movedim(0, centre.ndim // 2)
    return rows.reshape(rows.shape[: len(dims)].numel(), -1).to(torch.complex128)


def _signal_space(rows: Tensor, threshold: float | None) -> tuple[Tensor, Tensor]:
    """Orthonormal basis (columns) of the signal among the right singular vectors of `rows`, and E|n|² of the noise."""
    wide = rows.shape[0] < rows.shape[1]
    power, vectors = torch.linalg.eigh(rows @ rows.mH if wide else rows.mH @ rows)
    power, vectors = power.flip(0).clamp(min=0), vectors.flip(1)  # squared singular values, falling
    rank, noise = _noise_floor(power, max(rows.shape))
    count = (power > (RELATIVE_THRESHOLD if threshold is None else threshold) ** 2 * power[0]).sum()
    kept = max(int(torch.minimum(count, rank) if threshold is None else count), 1)
    vectors = vectors[:, :kept]
    return (rows.mH @ vectors / power[:kept].sqrt() if wide else vectors), noise


def _noise_floor(power: Tensor, longer: int) -> tuple[Tensor, Tensor]:
    """How many of the falling squared singular values `power` (n,) stand out of white noise, and that noise's E|n|².

    After r signals there is a noise matrix of m - r by n - r left, whose largest singular value is close to
    sqrt(E|n|²) (sqrt(m - r) + sqrt(n - r)) (Marchenko & Pastur 1967); the first r at which the next one is not larger ends
    the signal. E|n|² is the mean over what is left.
    """
    tail = power.flip(0).cumsum(0).flip(0)
    left = torch.arange(len(power), 0, -1, device=power.device, dtype=power.dtype)
    long_left = left + (longer - len(power))
    noise = tail / (left * long_left)
    is_noise = power <= NOISE_MARGIN * noise * (left.sqrt() + long_left.sqrt()) ** 2  # True for the last, always
    rank = is_noise.to(torch.uint8).argmax()
    return rank, noise[rank]


def _filters(vectors: Tensor, coils: int, kernel: int, dims: int) -> Tensor:
    """Convolution kernel (2k-1, ..., N, N): the projection of a block on the signal, averaged over the blocks of a place.

    vectors: right singular vectors, (N k^dims, kernels). Uecker et al. 2014, Eq. 13-17: in image space the convolution is
    the product with a matrix G(q) at each pixel. The kernel is a sum of autocorrelations, which a small FFT gives.
    """
    axes = list(range(dims))
    kernels = vectors.conj().reshape(coils, *[kernel] * dims, -1).movedim(0, -2)  # (k, ..., N, kernels)
    spectrum = torch.fft.fftn(kernels, s=[2 * kernel - 1] * dims, dim=axes)
    correlation = torch.fft.ifftn(spectrum @ spectrum.mH, dim=axes) / kernel**dims
    return torch.fft.fftshift(correlation, axes).to(torch.complex64)


def _eigenmaps(filters: Tensor, size: torch.Size, sets: int) -> tuple[Tensor, Tensor]:
    """The first `sets` eigenvectors (M, N, *size) and eigenvalues (M, *size) of G(q), the Fourier series of `filters`."""
    coils = filters.shape[-1]
    waves = [_waves(n, taps, filters) for n, taps in zip(size, filters.shape, strict=False)]
    rows = max(CHUNK // (coils**2 * size[1:].numel()), 1)
    vectors, values = [], []
    for first in waves[0].split(rows):
        g = filters
        for i, wave in enumerate([first, *waves[1:]]):
            places = 1 if i == 0 else g.shape[0]
            g = (wave @ g.reshape(places, wave.shape[1], -1)).flatten(0, 1)  # (places, ...)
        v, value = _leading_eigenvectors(g.reshape(-1, coils, coils), sets)
        vectors.append(v)
        values.append(value)
    maps = torch.cat(vectors, 1).permute(0, 2, 1).reshape(sets, coils, *size)
    return maps, torch.cat(values, 1).reshape(sets, *size)


def _waves(n: int, taps: int, like: Tensor) -> Tensor:
    """exp(2 pi i q d / n), (n, taps), of places q and shifts d that both have zero in the middle."""
    q = torch.arange(n, dtype=torch.float64) - n // 2
    d = torch.arange(taps, dtype=torch.float64) - taps // 2
    angle = (2 * torch.pi / n) * q[:, None] * d
    return torch.polar(torch.ones_like(angle), angle).to(like.device, like.dtype)


def _leading_eigenvectors(g: Tensor, sets: int) -> tuple[Tensor, Tensor]:
    """Unit eigenvectors (M, P, N) of the largest eigenvalues (M, P) of Hermitian matrices g (P, N, N), one after the other.

    Squaring a matrix over and over leaves a multiple of v vᴴ; its largest column has v. Many squarings of small matrices
    are faster than as good a power iteration, or a full decomposition, of each.
    """
    vectors, values = [], []
    tiny = torch.finfo(torch.float32).tiny
    for _ in range(sets):
        # what is left for a second set may be rounding alone, of either sign: its norm says how large it is, its trace does not
        power = g * torch.linalg.vector_norm(g, dim=(-2, -1)).clamp(min=tiny).reciprocal()[:, None, None]
        for i in range(SQUARINGS):
            power = power @ power
            if i % 3 == 2:  # trace one keeps the 8th power of the largest eigenvalue, 1 / N at least, in float32's range
                trace = power.diagonal(dim1=-2, dim2=-1).real.sum(-1).clamp(min=tiny)
                power = power * trace.reciprocal()[:, None, None]  # complex division takes as long as the product above
        column = power.diagonal(dim1=-2, dim2=-1).real.argmax(-1)
        v = power.gather(2, column[:, None, None].expand(-1, g.shape[1], 1))  # (P, N, 1)
        v = v * torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=tiny).reciprocal()
        gv = g @ v
        value = (v.conj() * gv).real.sum((1, 2))
        vectors.append(v[..., 0])
        values.append(value)
        if len(values) < sets:
            g = g - gv @ v.mH - v @ gv.mH + value[:, None, None] * (v @ v.mH)  # what is left at right angles to v
            g = (g + g.mH) / 2  # where that is rounding alone, its squares have a trace all the same
    return torch.stack(vectors), torch.stack(values).clamp(0, 1)


def _first_component(centre: Tensor) -> Tensor:
    """The first principal component (N,) of the coils of k-space (N, ...), its largest entry real and positive."""
    samples = centre.flatten(1)
    component = torch.linalg.eigh(samples @ samples.mH).eigenvectors[:, -1]
    return component * component[component.abs().argmax()].conj().sgn()


def _phase_to(component: Tensor, maps: Tensor) -> Tensor:
    """Phase factors (M, 1, ...) after which `component` sees maps (M, N, ...) as real and positive."""
    seen = torch.tensordot(component.conj().to(maps.dtype), maps, dims=([0], [1]))
    return torch.polar(torch.ones_like(seen.real), -seen.angle())[:, None]


def _automatic_crop(eigenvalues: Tensor, energy: Tensor) -> Tensor:
    """The highest crop of `eigenvalues` that loses at most the fraction `ENERGY_LOST` of `energy`, of the same shape."""
    order = eigenvalues.flatten().argsort()
    below = energy.flatten()[order].to(torch.float64).cumsum(0)
    first = (below > ENERGY_LOST * below[-1]).to(torch.uint8).argmax()
    return eigenvalues.flatten()[order[first]].clamp(max=HIGHEST_CROP)
