"""Coil maps of a scan by ESPIRiT: where its calibration region is, and how many sets it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import operators
from invdiff.errors import InputError
from invdiff.io.scans.scan import Scan
from invdiff.mri.settings import ScanSettings
from operators import mri
from operators.mri.sensitivities import calibrate, kernel_width

WIDEST = 24             # side of a square calibration region, whose area others have; more costs time and gains nothing
SECOND = 0.003          # share of the energy behind a second set of maps that makes it worth having: 0.0001 where nothing folds


@dataclass(frozen=True)
class Maps:
    """maps (M, N, H, W) complex64, of unit norm over coils or zero, or, with `lift` (given, N), over the scanner's own coils
    that it makes of these; choices: for the report."""

    maps: Tensor
    choices: Mapping[str, Any]
    lift: Tensor | None = None

    def of_scanner(self, lift: Tensor) -> "Maps":
        """The same, scaled at each pixel: an image is then as bright as in the scanner's coils, however they were whitened."""
        return Maps(_scaled(self.maps, lift), self.choices, lift)


def _scaled(maps: Tensor, lift: Tensor) -> Tensor:
    norm = torch.einsum("gn,mnhw->mghw", lift.to(maps), maps).abs().square().sum(1, keepdim=True).sqrt()
    return maps / torch.where(norm > 0, norm, 1)


def cartesian_maps(scan: Scan, number: int, kspace: Tensor, mask: Tensor, calibration: Tensor | None,
                   settings: ScanSettings) -> Maps:
    """Maps from the fully sampled middle of k-space (N, H, W), or from calibration lines (N, h, w) measured apart.

    Raises InputError where there is no such region, or it is too small.
    """
    where, source = f"{scan.path}: slice {number}", "centre of k-space"
    if calibration is not None:
        kspace, source = on_grid(calibration, scan.size), "calibration lines"
        sampled = (kspace != 0).any(0)
    else:
        sampled = mask
    if len(kspace) == 1:
        return Maps(torch.ones(1, 1, *scan.size, dtype=torch.complex64), {"source": "a single coil, taken as uniform"})
    sides = _wanted(settings.calib) or _middle(sampled)
    return _espirit(where, kspace, sides, source, settings.sets)


def full_maps(scan: Scan, kspace: Tensor, settings: ScanSettings) -> Maps:
    """Maps (M, N, H, W) that reach everywhere, of fully sampled k-space (N, H, W)."""
    if len(kspace) == 1:
        return Maps(torch.ones(1, 1, *scan.size, dtype=torch.complex64), {})
    sides = (min(WIDEST, scan.size[0]), min(WIDEST, scan.size[1]))
    sets = settings.sets or len(_espirit(scan.path, kspace, sides, "", None).maps)      # where they reach on, noise adds up
    return _espirit(scan.path, kspace, sides, "", sets, crop=0.0)


def noncartesian_maps(scan: Scan, kspace: Tensor, trajectory: Tensor, settings: ScanSettings) -> Maps:
    """Maps from coil images (N, K) at low resolution, by least squares from the points within the calibration region."""
    if len(kspace) == 1:
        return Maps(torch.ones(1, 1, *scan.size, dtype=torch.complex64), {"source": "a single coil, taken as uniform"})
    sides = _wanted(settings.calib) or (min(WIDEST, scan.size[0]), min(WIDEST, scan.size[1]))
    inside = (trajectory.abs() <= torch.tensor(sides) * 0.75).all(1)
    if int(inside.sum()) < sides[0] * sides[1] / 2 or float(trajectory.norm(dim=1).min()) > 2:
        raise InputError(f"{scan.path}: coil maps need the middle of k-space, {sides[0]} x {sides[1]}, and its trajectory has "
                         f"{int(inside.sum())} points around there; measure more of it")
    physics = operators.NonCartesianMRI(trajectory[inside], scan.size)
    y = torch.stack([kspace[:, inside].real, kspace[:, inside].imag], 1)[:, :, None]             # coils as a batch
    images = operators.least_squares(physics, y, z=0.0, gamma=100.0, iterations=30).x
    gridded = mri.fft(mri.to_complex(images), (-2, -1))
    return _espirit(scan.path, gridded, sides, "middle of the trajectory", settings.sets)


def _wanted(calib: int | Sequence[int] | None) -> tuple[int, int] | None:
    return None if calib is None else (calib, calib) if isinstance(calib, int) else (calib[0], calib[1])


def _middle(sampled: Tensor) -> tuple[int, int]:
    """Sides of the fully sampled block around the origin of (H, W): as wide as can be, then as long; 0 where there is none."""
    def whole(h: int, w: int) -> bool:
        top, left = sampled.shape[0] // 2 - h // 2, sampled.shape[1] // 2 - w // 2
        return bool(sampled[top : top + h, left : left + w].all())

    (height, width), area = sampled.shape, WIDEST**2
    sizes = [(h, w) for h in range(1, min(area, height) + 1) for w in range(1, min(area // h, width) + 1)]
    best_first = sorted(sizes, key=lambda size: (min(size), sum(size)), reverse=True)
    return next((size for size in best_first if whole(*size)), (0, 0))


def finer_maps(found: Maps, lines: Tensor, size: tuple[int, int]) -> Tensor:
    """The same maps, (M, N, H, W), on a grid of more pixels; lines (N, h, w): the k-space that they come from."""
    known = found.choices
    if "region" not in known:
        return torch.ones(1, 1, *size, dtype=torch.complex64)
    maps = calibrate(on_grid(lines, size)[None], list(known["region"]), known["sets"], kernel=known["kernel"],
                     crop=known["crop"]).maps[0]
    return maps if found.lift is None else _scaled(maps, found.lift)


def on_grid(kspace: Tensor, size: tuple[int, int]) -> Tensor:
    """K-space, or images, (..., h, w) in the middle of a grid of `size`, or the middle of them where that is smaller."""
    given = kspace.shape[-2:]
    if tuple(given) == size:
        return kspace
    full = kspace.new_zeros(*kspace.shape[:-2], *size)
    h, w = (min(a, b) for a, b in zip(given, size, strict=True))
    (top, left), (first, start) = ((n // 2 - h // 2, m // 2 - w // 2) for n, m in (size, given))
    full[..., top : top + h, left : left + w] = kspace[..., first : first + h, start : start + w]
    return full


def _espirit(where: str, kspace: Tensor, sides: tuple[int, int], source: str, sets: int | None,
             crop: float | None = None) -> Maps:
    kernel = kernel_width(sides)
    least = 2 * kernel - 1
    if min(sides) < least:
        raise InputError(f"{where}: coil maps need a fully sampled centre of {least} x {least} points, and this one has "
                         f"{sides[0]} x {sides[1]}; scan with calibration lines, or measure them apart (ISMRMRD keeps both)")
    try:
        found = calibrate(kspace[None], list(sides), min(2, len(kspace)) if sets is None else sets, kernel=kernel,
                          crop=crop)
    except ValueError as error:
        raise InputError(f"{where}: coil maps: {error}") from error
    maps, share = found.maps[0], _second_share(kspace, found.maps[0], sides)
    if sets is None and share < SECOND:
        maps = maps[:1]
    return Maps(maps, {"method": "ESPIRiT", "source": source, "region": list(sides), "kernel": kernel,
                       "sets": len(maps), "second_set_energy": share, "crop": float(found.crop[0])})


def _second_share(kspace: Tensor, maps: Tensor, sides: tuple[int, int]) -> float:
    """Share of the energy of the low-resolution image that is seen by the second set of maps, where there is one."""
    if len(maps) == 1:
        return 0.0
    block = mri.sampling.center_block(tuple(kspace.shape[1:]), sides)
    images = mri.ifft(kspace * block, (-2, -1))
    seen = (maps.conj() * images).sum(1).abs().square().sum((1, 2))
    return float(seen[1] / seen.sum())
