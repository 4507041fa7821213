"""From a slice of raw k-space to a problem: white noise, few coils, coil maps, noise level and scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import operators
from invdiff.errors import InputError
from invdiff.io.scans.scan import RawSlice, Scan
from invdiff.mri.coil_maps import Maps, cartesian_maps, full_maps, noncartesian_maps
from invdiff.mri.fewer_coils import in_fewer_coils
from invdiff.mri.finer import Drawn, drawn_on, support_of
from invdiff.mri.settings import COILS, ScanSettings, retrospective_mask
from invdiff.mri.simulating import SimulatedScan
from invdiff.mri.unexplained import look, remains
from invdiff.mri.whitening import Whitening, find_whitening, of_virtual_coils
from invdiff.problem import Problem
from operators import mri
from operators.mri import sampling

LEVEL = 0.22            # of the head, root mean square, after scaling: where the prior's images lie when their peak is 1
PASSES = 2              # of whitening by what the maps leave: one is right for equal coils, and within a fifth for real ones
OFF_CENTRE = 1          # places that a block's middle may be off the origin, for rounding
FULL = 0.99             # of a block: in a file without a mask, a value that happens to be zero looks like one not measured


@dataclass(frozen=True)
class Prepared:
    """A slice as a problem.

    problem: of the scaled k-space, as it was measured. weighted: the same, with less weight on k-space where the coil maps
    explain it less well than the rest, and `problem` itself where that is hardly anywhere. drawn: that, on a finer grid where
    the scan's is coarse. lean: the problem of `drawn` in fewer coils, to draw samples with. support (1, 2 M, H, W): 1 where
    the coils see the image, 0 elsewhere. scale: what the data's unit was multiplied by. truth (H, W): magnitude of the fully
    sampled scan, before a retrospective mask, in the scan's unit; else None. choices: for the report.
    """

    problem: Problem
    weighted: Problem
    drawn: Drawn
    lean: Problem
    support: Tensor
    scale: float
    truth: Tensor | None
    choices: Mapping[str, Any]


def prepare(scan: Scan, number: int, settings: ScanSettings, sigma_y: float | None = None) -> Prepared:
    """Slice `number` of a scan, ready to be restored.

    sigma_y: standard deviation of the noise per real channel in the scan's unit; None estimates it.
    Raises InputError: what cannot be read, a mask over a scan that is undersampled already, and a calibration region that is
    missing or too small.
    """
    raw = scan.read(number)
    mask = raw.mask if settings.acceleration is None else retrospective(scan, raw, settings)
    unsaid = None if sigma_y is None or scan.noise is not None else "none"
    whitening = _whitening(scan, number, raw, mask, settings, settings.noise or unsaid)
    seen = _seen(scan, number, raw, mask, whitening, settings)
    truth = None if settings.acceleration is None else _truth(scan, raw.kspace, whitening, settings)
    choices: dict[str, Any] = {"noise": whitening.source}
    if mask is not None:
        choices["sampling"] = sampling.report(mask)
    problem, weighted, scale = _scaled(scan, seen, whitening, sigma_y, choices)
    support = support_of(seen.physics)
    if mask is None:
        drawn = Drawn(weighted, support, scan.size)
    else:
        drawn = drawn_on(weighted, seen.maps, seen.kspace if seen.calibration is None else seen.calibration, settings.grid)
        choices["drawn_on"] = list(drawn.support.shape[-2:])
    lean = drawn.problem if settings.coils else in_fewer_coils(drawn.problem)
    choices["coils"] = {**seen.coils, "drawn_with": lean.y.shape[2]}
    return Prepared(problem, weighted, drawn, lean, support, scale, truth, choices)


@dataclass(frozen=True)
class _Seen:
    """A slice in the coils of a whitening, compressed: kspace (N, ...), as the mask leaves it, calibration lines measured
    apart, matrix (N, given) of the compression, coil maps and the physics that they make. coils: for the report."""

    kspace: Tensor
    calibration: Tensor | None
    matrix: Tensor
    maps: Maps
    physics: Any
    coils: Mapping[str, Any]

    @property
    def y(self) -> Tensor:
        return torch.stack([self.kspace.real, self.kspace.imag])[None]


def _seen(scan: Scan, number: int, raw: RawSlice, mask: Tensor | None, whitening: Whitening, settings: ScanSettings) -> _Seen:
    kspace = whitening(raw.kspace)
    if mask is not None:
        kspace = kspace * mask
    calibration = None if raw.calibration is None else whitening(raw.calibration)
    kspace, calibration, matrix, coils = _compress(kspace, calibration, settings)
    lift = whitening.inverse @ matrix.mH
    if mask is None:
        assert raw.trajectory is not None
        maps = noncartesian_maps(scan, kspace, raw.trajectory, settings).of_scanner(lift)
        physics: Any = operators.NonCartesianMRI(raw.trajectory, (2 * len(maps.maps), *scan.size), maps.maps[None])
    else:
        maps = cartesian_maps(scan, number, kspace, mask, calibration, settings).of_scanner(lift)
        physics = operators.MultiCoilMRI(mask, maps.maps[None])
    return _Seen(kspace, calibration, matrix, maps, physics, coils)


def _whitening(scan: Scan, number: int, raw: RawSlice, mask: Tensor | None, settings: ScanSettings,
               source: str | None) -> Whitening:
    """That of the noise scan, or of what the maps of the coils as they are leave unexplained, where it tells a covariance."""
    if source not in (None, "residual") or (source is None and (scan.noise is not None or isinstance(scan, SimulatedScan))):
        return find_whitening(scan, raw, source)
    found = None
    for _ in range(PASSES):
        seen = _seen(scan, number, raw, mask, found or find_whitening(scan, raw, "none"), settings)
        left = remains(seen.physics, seen.y)
        covariance = None if left is None else left.covariance()
        if covariance is None:
            break
        found = of_virtual_coils(covariance, seen.matrix, after=found)
    if found is None and source == "residual":
        raise InputError(f"{scan.path}: what the coil maps leave of its k-space tells no covariance of the noise; expected "
                         "operator.noise=border or none")
    return found or find_whitening(scan, raw, None)


def retrospective(scan: Scan, raw: RawSlice, settings: ScanSettings) -> Tensor:
    """The mask (H, W) that the settings put over a fully sampled scan."""
    if raw.mask is None:
        raise InputError(f"{scan.path}: operator.acceleration puts a mask over Cartesian k-space, and this is on a trajectory")
    block = measured_block(raw.mask)
    if block is None:
        raise InputError(f"{scan.path}: operator.acceleration puts a mask over fully sampled k-space, and this is undersampled "
                         f"already ({sampled_share(raw.mask):.0%} is there); leave it out")
    mask = torch.zeros_like(raw.mask)
    inside = mask[block]
    inside[:] = retrospective_mask(settings, (inside.shape[0], inside.shape[1]))
    return mask


def _truth(scan: Scan, kspace: Tensor, whitening: Whitening, settings: ScanSettings) -> Tensor:
    """(H, W): all of k-space (N, H, W), combined by maps from its own middle, which are not cropped. Of all unbiased
    combinations it has the least noise (Roemer et al. 1990); a root sum of squares adds it up."""
    kspace = whitening(kspace)
    maps = full_maps(scan, kspace, settings).of_scanner(whitening.inverse)
    images = mri.combine(mri.ifft(kspace, (-2, -1))[None, None], maps.maps[None], dim=2)[0]
    return mri.rss(images, 0)


def measured_block(mask: Tensor) -> tuple[slice, slice] | None:
    """The rows and columns that were measured, where that is all of a block around the origin, but for single points (FULL):
    scanners leave zeros beside it. None for anything else."""
    sides = []
    for along in (mask.any(1), mask.any(0)):
        places, middle = along.nonzero()[:, 0].tolist(), len(along) // 2
        first, end = places[0], places[-1] + 1
        if abs(first + (end - first) // 2 - middle) > OFF_CENTRE or len(places) < end - first:
            return None
        sides.append(slice(first, end))
    block = (sides[0], sides[1])
    return block if float(mask[block].float().mean()) >= FULL else None


def sampled_share(mask: Tensor) -> float:
    """Of k-space that is not all there: at most 0.99, so that nobody reads "100%"."""
    return min(float(mask.float().mean()), 0.99)


def _compress(kspace: Tensor, calibration: Tensor | None, settings: ScanSettings) -> tuple[Tensor, Tensor | None, Tensor, dict]:
    """Fewer virtual coils, of k-space (N, ...) and of a calibration scan, and the matrix that makes them."""
    given, wanted = len(kspace), settings.coils or COILS
    if given <= wanted:
        return kspace, calibration, torch.eye(given, dtype=kspace.dtype), {"given": given, "used": given}
    made = mri.compress_svd(kspace[None], wanted)
    if calibration is not None:
        calibration = mri.mix_coils(calibration[None], made.matrix)[0]
    return made.kspace[0], calibration, made.matrix[0], {"given": given, "used": wanted, "energy": float(made.energy)}


def _scaled(scan: Scan, seen: _Seen, whitening: Whitening, sigma_y: float | None,
            choices: dict[str, Any]) -> tuple[Problem, Problem, float]:
    """The problem, and the weighted one, with the head at LEVEL and the noise level that the data show, and the scale."""
    physics, y, maps = seen.physics, seen.y, seen.maps
    looked = look(physics, y)
    magnitude = mri.combine_sets(looked)[0, 0]
    tissue = magnitude[magnitude > 0.2 * magnitude.quantile(0.995)]
    if not len(tissue) or not bool(tissue.isfinite().all()):
        raise InputError(f"{scan.path}: no image is to be seen in its k-space; are the values what they should be?")
    scale = LEVEL / float(tissue.square().mean().sqrt())
    given = whitening.sigma if sigma_y is None else sigma_y
    left = remains(physics, y, looked)
    misfit = 0.0 if left is None else left.level()
    level = given if sigma_y is not None else max(given, misfit)
    if level == 0 and sigma_y is None and not isinstance(scan, SimulatedScan):
        raise InputError(f"{scan.path}: neither a noise scan nor the border of k-space nor several coils tell the noise level; "
                         "give it in the unit of k-space, as in --set sigma_y=0.01")
    choices |= {"coil_maps": maps.choices, "scale": scale,
                "sigma_y": {"used": level, "noise": given, "misfit": misfit, "unit": "of the scan's k-space, per real channel"}}
    problem = weighted = Problem(physics, y * scale, level * scale)
    on_grid = isinstance(physics, operators.MultiCoilMRI)
    levels = left.levels(given) if left is not None and sigma_y is None and on_grid else None
    if levels is not None:
        quiet = float(levels.min())
        choices["sigma_y"] |= {"used": quiet, "largest": float(levels.max())}
        weighted = Problem(operators.MultiCoilMRI(physics.mask, maps.maps[None], weights=quiet / levels),
                           problem.y * (quiet / levels), quiet * scale)
    return problem, weighted, scale
