"""An analytic multi-coil phantom: k-space from continuous Fourier transforms, so that no grid is shared with reconstruction.

    kspace = phantom.kspace((256, 256), coils=8, sigma=0.01)                          # (1, 8, 256, 256)
    samples = phantom.kspace((256, 256), coils=8, trajectory=points)                  # (1, 8, K)
    truth, maps = phantom.image((256, 256)), phantom.maps((256, 256), coils=8)        # to score with, and what belongs to it

The object is a sum of ellipses times a smooth phase. Each coil's sensitivity times that phase is a Fourier series of a
few terms whose period is twice the field of view, so a coil's transform is a sum of shifted transforms of the object, and
an ellipse's transform is a Bessel function: exact, with the truncation (Gibbs ringing) and the partial volumes of a
scanner. Guerquin-Kern et al. 2012, "Realistic analytical phantoms for parallel magnetic resonance imaging".

Positions are (y, x) in units of half the field of view, y down the rows, x along the columns: pixel (i, j) of (H, W) is at
((i - H // 2) / (H / 2), (j - W // 2) / (W / 2)). shape: (H, W). coils: their number. ellipses: the object, `HEAD` unless
given. phase: whether the object has a phase, of up to two radians; without it the object is real.
Raises ValueError for arguments that are out of range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from operators import _check
from operators.mri._fourier import to_channels
from operators.mri._head import HEAD, Ellipse
from operators.mri.coils import birdcage_maps

__all__ = ["HEAD", "Ellipse", "image", "kspace", "maps"]

ORDER = 5  # of the Fourier series: 11 x 11 terms
CHUNK = 2**18  # points where the object's spectrum is computed at once


def kspace(
    shape: Sequence[int],
    coils: int = 8,
    ellipses: Sequence[Ellipse] = HEAD,
    trajectory: Tensor | None = None,
    phase: bool = True,
    sigma: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """K-space complex64 (1, N, H, W), or (1, N, K) at the points of a trajectory.

    Scaled as the centred orthonormal FFT of an image on the grid (H, W), whose origin is index (H // 2, W // 2).
    trajectory: (K, 2) or (shots, samples, 2), points (ky, kx) in cycles per field of view, as `NonCartesianMRI` takes them.
    sigma: standard deviation of white noise per real channel, drawn with `seed`. 256 x 256 with 8 coils take a second
    or two; a trajectory takes some four seconds for 10,000 points, whatever the number of coils.
    """
    height, width = _size(shape)
    sigma, seed = _check.real("sigma", sigma, 0, math.inf), _check.integer("seed", seed, 0)
    terms = _series(_check.integer("coils", coils, 1), bool(phase))  # (N, 11, 11)
    data = _on_grid(height, width, terms, ellipses) if trajectory is None else _at(_points(trajectory), terms, ellipses)
    data = data * (0.25 * math.sqrt(height * width))  # the integral is over an area of 4, the sum over H W pixels
    if sigma:
        generator = torch.Generator().manual_seed(seed)
        data = data + sigma * torch.view_as_complex(torch.randn(*data.shape, 2, dtype=torch.float64, generator=generator))
    return data.to(torch.complex64)[None]


def image(shape: Sequence[int], ellipses: Sequence[Ellipse] = HEAD, phase: bool = True, supersample: int = 8) -> Tensor:
    """The truth, float32 (1, 2, H, W): the mean of the object over each pixel, by supersample² points, times the phase there.

    Coil images are this times `maps` of the same `phase`, up to the ringing at edges that comes with a finite k-space: at
    256 x 256 the image of full noiseless data is 36 dB from this one. To measure a reconstruction alone, score with that.
    """
    height, width = _size(shape)
    fine = _check.integer("supersample", supersample, 1)
    offset = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine - 0.5
    y, x = ((_axis(n)[:, None] + offset * (2 / n)).flatten() for n in (height, width))
    total = torch.zeros(height * fine, width * fine)
    for e in ellipses:
        rows, columns = (slice(*_reach(u, c, max(e.axes))) for u, c in zip((y, x), e.centre, strict=True))
        down, along = _turned(y[rows, None] - e.centre[0], x[columns] - e.centre[1], e.angle)
        inside = (down / e.axes[0]) ** 2 + (along / e.axes[1]) ** 2 <= 1
        total[rows, columns] += e.intensity * inside
    magnitude = total.reshape(height, fine, width, fine).mean((1, 3))
    turn = _object_phase(_axis(height)[:, None], _axis(width)) * bool(phase)
    return to_channels(torch.polar(torch.ones_like(turn), turn).mul(magnitude).to(torch.complex64)[None])


def maps(shape: Sequence[int], coils: int = 8, phase: bool = True) -> Tensor:
    """Sensitivities complex64 (1, N, H, W): the Fourier series behind `kspace`, at the pixels, without the object's phase.

    They are `birdcage_maps` to 3e-4 (root mean square) in the head, so their root sum of squares is 1 to that.
    """
    height, width = _size(shape)
    terms = _series(_check.integer("coils", coils, 1), bool(phase))
    y, x = _axis(height), _axis(width)
    series = torch.einsum("yp,npq,xq->nyx", _waves(y), terms, _waves(x))
    turn = -_object_phase(y[:, None], x) * bool(phase)
    return (series * torch.polar(torch.ones_like(turn), turn)).to(torch.complex64)[None]


def spectrum(ky: Tensor, kx: Tensor, ellipses: Sequence[Ellipse]) -> Tensor:
    """∫ object(u) exp(-i pi k · u) du, complex128 of the broadcast shape of ky and kx, in cycles per field of view.

    For one ellipse pi a b · 2 J1(r) / r · exp(-i pi k · centre), r = pi |(a ky', b kx')| with k turned by its angle.
    """
    total = torch.zeros(torch.broadcast_shapes(ky.shape, kx.shape), dtype=torch.complex128)
    for e in ellipses:
        down, along = _turned(ky, kx, e.angle)
        r = torch.hypot(math.pi * e.axes[0] * down, math.pi * e.axes[1] * along).clamp_(min=1e-12)
        area = e.intensity * math.pi * e.axes[0] * e.axes[1]
        turn = [torch.exp(-1j * math.pi * c * k) for c, k in zip(e.centre, (ky, kx), strict=True)]  # before k spread
        total += (torch.special.bessel_j1(r) / r).mul_(2 * area) * turn[0] * turn[1]
    return total


def _on_grid(height: int, width: int, terms: Tensor, ellipses: Sequence[Ellipse]) -> Tensor:
    """(N, H, W): the terms shift by half a cycle, so all of them meet on one lattice twice as dense as the grid."""
    ky, kx = (0.5 * torch.arange(-2 * (n // 2) - ORDER, 2 * (n - n // 2) - 1 + ORDER).double() for n in (height, width))
    rows = max(1, CHUNK // len(kx))
    lattice = torch.cat([spectrum(part[:, None], kx, ellipses) for part in ky.split(rows)])
    data = torch.zeros(len(terms), height * width, dtype=torch.complex128)
    for p in range(2 * ORDER + 1):  # the object's spectrum at k - (p - ORDER) / 2
        start = 2 * ORDER - p
        shifted = lattice[start : start + 2 * height - 1 : 2].unfold(1, 2 * width - 1, 1)[..., ::2].flip(1)  # (H, 11, W)
        data += terms[:, p] @ shifted.movedim(1, 0).flatten(1)
    return data.unflatten(1, (height, width))


def _at(points: Tensor, terms: Tensor, ellipses: Sequence[Ellipse]) -> Tensor:
    """(N, K) at points (K, 2)."""
    shift = 0.5 * torch.arange(-ORDER, ORDER + 1, dtype=torch.float64)

    def parts() -> Iterator[Tensor]:
        for part in points.split(CHUNK // (2 * ORDER + 1) ** 2):
            ky, kx = part[:, 0, None, None] - shift[:, None], part[:, 1, None, None] - shift
            yield terms.flatten(1) @ spectrum(ky, kx, ellipses).flatten(1).T

    return torch.cat(list(parts()), dim=1)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # whoever comes next may want gradients
def _series(coils: int, phase: bool) -> Tensor:
    """Coefficients (N, 11, 11), complex128, c of Σ c_pq exp(i pi (p y + q x) / 2): sensitivity times the object's phase.

    A least-squares fit over the field of view; the small singular values left out keep the coefficients small.
    """
    size = 49
    y, x = _axis(size)[:, None], _axis(size)
    turn = _object_phase(y, x) * phase
    wanted = birdcage_maps((size, size), coils)[0].to(torch.complex128) * torch.polar(torch.ones_like(turn), turn)
    waves = torch.einsum("yp,xq->yxpq", _waves(_axis(size)), _waves(_axis(size))).reshape(size * size, -1)
    terms = torch.linalg.lstsq(waves, wanted.flatten(1).T, rcond=1e-4, driver="gelsd").solution
    return terms.T.reshape(coils, 2 * ORDER + 1, 2 * ORDER + 1).contiguous()


def _waves(u: Tensor) -> Tensor:
    """exp(i pi p u / 2), (n, 11), at positions u (n,), p = -ORDER to ORDER."""
    turn = torch.outer(u, 0.5 * math.pi * torch.arange(-ORDER, ORDER + 1, dtype=torch.float64))
    return torch.polar(torch.ones_like(turn), turn)


def _object_phase(y: Tensor, x: Tensor) -> Tensor:
    """Radians at positions (y, x), as from an off-centre echo and a field that is not quite even."""
    return 0.5 + 0.6 * y - 0.5 * x + 0.6 * x * y + 0.7 * (x**2 - 0.5 * y**2)


def _turned(y: Tensor, x: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Coordinates along the axes of an ellipse that was turned by `angle` degrees."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return cos * y + sin * x, cos * x - sin * y


def _axis(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) - n // 2) / (n / 2)


def _reach(u: Tensor, centre: float, radius: float) -> tuple[int, int]:
    """First and last index + 1 of sorted positions u within `radius` of `centre`."""
    low, high = torch.searchsorted(u, torch.tensor([centre - radius, centre + radius], dtype=u.dtype)).tolist()
    return low, high


def _size(shape: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = (_check.integer("shape", n, 1) for n in shape)
    except (TypeError, ValueError):
        raise ValueError(f"shape: expected two positive integers (H, W), got {shape!r}") from None
    return height, width


def _points(trajectory: Tensor) -> Tensor:
    points = torch.as_tensor(trajectory)
    if points.is_complex() or points.ndim < 2 or points.shape[-1] != 2 or not points.numel():
        raise ValueError(f"trajectory: expected real points (K, 2), got {points.dtype} {tuple(points.shape)}")
    _check.finite("trajectory", points)
    return points.detach().cpu().double().reshape(-1, 2)
