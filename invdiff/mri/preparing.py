"""From a slice of raw k-space to a problem: white noise, few coils, coil maps, noise level and scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import operators
from invdiff.errors import InputError
from invdiff.io.scans.scan import RawSlice, Scan
from invdiff.mri.coil_maps import Maps, cartesian_maps, full_maps, noncartesian_maps
from invdiff.mri.finer import Drawn, drawn_on, support_of
from invdiff.mri.settings import COILS, ScanSettings, retrospective_mask
from invdiff.mri.simulating import SimulatedScan
from invdiff.mri.whitening import Whitening, find_whitening
from invdiff.problem import Problem
from operators import mri
from operators.mri import sampling

LEVEL = 0.22            # of the head, root mean square, after scaling: where the prior's images lie when their peak is 1
RIDGE = 1e-3            # of least squares, to look at the data
TELLING = 0.02          # share of white noise that least squares must leave, for what they leave of the data to tell something
RING = 3.0              # width of the rings of k-space in which the misfit is looked at
ENOUGH = 50             # degrees of freedom that tell a ring's misfit to a tenth
OFF_CENTRE = 1          # places that a block's middle may be off the origin, for rounding
LOUDER, OFTEN = 1.25, 0.1       # a ring's noise level over the rest's, and share of k-space with it, that weights are worth


@dataclass(frozen=True)
class Prepared:
    """A slice as a problem.

    problem: of the scaled k-space, as it was measured. weighted: the same, with less weight on k-space where the coil maps
    explain it less well than the rest, and `problem` itself where that is hardly anywhere. drawn: that, to draw samples with,
    on a finer grid where the scan's is coarse. support (1, 2 M, H, W): 1 where the coils see the image, 0 elsewhere. scale:
    what the data's unit was multiplied by. truth (H, W): magnitude of the fully sampled scan, before a retrospective mask, in
    the scan's unit; else None. choices: for the report.
    """

    problem: Problem
    weighted: Problem
    drawn: Drawn
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
    unsaid = None if sigma_y is None or scan.noise is not None else "none"
    whitening = find_whitening(scan, raw, settings.noise or unsaid)
    kspace = whitening(raw.kspace)
    truth = None
    choices: dict[str, Any] = {"noise": whitening.source}
    mask = raw.mask
    if settings.acceleration is not None:
        mask, truth = _undersample(scan, raw, kspace, settings)
        kspace = kspace * mask
    calibration = None if raw.calibration is None else whitening(raw.calibration)
    kspace, calibration, choices["coils"] = _compress(kspace, calibration, settings)
    if mask is None:
        assert raw.trajectory is not None
        maps = noncartesian_maps(scan, kspace, raw.trajectory, settings)
        physics: Any = operators.NonCartesianMRI(raw.trajectory, (2 * len(maps.maps), *scan.size), maps.maps[None])
    else:
        maps = cartesian_maps(scan, number, kspace, mask, calibration, settings)
        physics = operators.MultiCoilMRI(mask, maps.maps[None])
        choices["sampling"] = sampling.report(mask)
    y = torch.stack([kspace.real, kspace.imag])[None]
    problem, weighted, scale = _scaled(scan, physics, y, maps, whitening, sigma_y, choices)
    support = support_of(physics)
    if mask is None:
        drawn = Drawn(weighted, support, scan.size)
    else:
        drawn = drawn_on(weighted, maps, kspace if calibration is None else calibration, settings.grid)
        choices["drawn_on"] = list(drawn.support.shape[-2:])
    return Prepared(problem, weighted, drawn, support, scale, truth, choices)


def _undersample(scan: Scan, raw: RawSlice, kspace: Tensor, settings: ScanSettings) -> tuple[Tensor, Tensor]:
    """The retrospective mask (H, W), and the truth (H, W): all of k-space, combined by maps from its own middle, which are not
    cropped. Of all unbiased combinations it has the least noise (Roemer et al. 1990); a root sum of squares adds it up."""
    if raw.mask is None:
        raise InputError(f"{scan.path}: operator.acceleration puts a mask over Cartesian k-space, and this is on a trajectory")
    block = _measured_block(raw.mask)
    if block is None:
        raise InputError(f"{scan.path}: operator.acceleration puts a mask over fully sampled k-space, and this is undersampled "
                         f"already ({float(raw.mask.float().mean()):.0%} is there); leave it out")
    maps = full_maps(scan, kspace, settings)
    images = mri.combine(mri.ifft(kspace, (-2, -1))[None, None], maps[None], dim=2)[0]
    mask = torch.zeros_like(raw.mask)
    inside = mask[block]
    inside[:] = retrospective_mask(settings, (inside.shape[0], inside.shape[1]))
    return mask, mri.rss(images, 0)


def _measured_block(mask: Tensor) -> tuple[slice, slice] | None:
    """The rows and columns that were measured, where that is all of a block around the origin: scanners leave zeros beside
    it. None for anything else."""
    sides = []
    for along in (mask.any(1), mask.any(0)):
        places, middle = along.nonzero()[:, 0].tolist(), len(along) // 2
        first, end = places[0], places[-1] + 1
        if abs(first + (end - first) // 2 - middle) > OFF_CENTRE:
            return None
        sides.append(slice(first, end))
    block = (sides[0], sides[1])
    return block if bool(mask[block].all()) else None


def _compress(kspace: Tensor, calibration: Tensor | None, settings: ScanSettings) -> tuple[Tensor, Tensor | None, dict]:
    """Fewer virtual coils, of k-space (N, ...) and of a calibration scan."""
    given, wanted = len(kspace), settings.coils or COILS
    if given <= wanted:
        return kspace, calibration, {"given": given, "used": given}
    made = mri.compress_svd(kspace[None], wanted)
    if calibration is not None:
        calibration = mri.mix_coils(calibration[None], made.matrix)[0]
    return made.kspace[0], calibration, {"given": given, "used": wanted, "energy": float(made.energy)}


def _scaled(scan: Scan, physics: Any, y: Tensor, maps: Maps, whitening: Whitening, sigma_y: float | None,
            choices: dict[str, Any]) -> tuple[Problem, Problem, float]:
    """The problem, and the weighted one, with the head at LEVEL and the noise level that the data show, and the scale."""
    looked = operators.least_squares(physics, y, z=0.0, gamma=1 / RIDGE, iterations=60).x
    magnitude = mri.combine_sets(looked)[0, 0]
    tissue = magnitude[magnitude > 0.2 * magnitude.quantile(0.995)]
    if not len(tissue) or not bool(tissue.isfinite().all()):
        raise InputError(f"{scan.path}: no image is to be seen in its k-space; are the values what they should be?")
    scale = LEVEL / float(tissue.square().mean().sqrt())
    given = whitening.sigma if sigma_y is None else sigma_y
    left, expected = _misfit(physics, y, looked)
    misfit = float((left.sum() / expected.sum()).sqrt()) if left.any() else 0.0
    level = given if sigma_y is not None else max(given, misfit)
    if level == 0 and sigma_y is None and not isinstance(scan, SimulatedScan):
        raise InputError(f"{scan.path}: neither a noise scan nor the border of k-space nor several coils tell the noise level; "
                         "give it in the unit of k-space, as in --set sigma_y=0.01")
    choices |= {"coil_maps": maps.choices, "scale": scale,
                "sigma_y": {"used": level, "noise": given, "misfit": misfit, "unit": "of the scan's k-space, per real channel"}}
    problem = weighted = Problem(physics, y * scale, level * scale)
    if sigma_y is None and misfit and isinstance(physics, operators.MultiCoilMRI):
        levels = _levels(left, expected, given, physics.mask[0, 0])
        if levels is not None:
            quiet = float(levels.min())
            choices["sigma_y"] |= {"used": quiet, "largest": float(levels.max())}
            weighted = Problem(operators.MultiCoilMRI(physics.mask, maps.maps[None], weights=quiet / levels),
                               problem.y * (quiet / levels), quiet * scale)
    return problem, weighted, scale


def _misfit(physics: Any, y: Tensor, fit: Tensor) -> tuple[Tensor, Tensor]:
    """Squares of what least squares leave of y, and of white noise of unit variance, summed over coils: (H, W), or (K,).

    The root of their ratio is the noise level that would leave as much. Errors of the coil maps count as noise here, as they
    should: where they are larger than it, the data are less certain. All are 0 where least squares can explain anything, as
    with a single coil.
    """
    observed = Problem(physics, y, 0.0).observed()
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y) * observed
    left = noise - physics.A(operators.least_squares(physics, noise, z=0.0, gamma=1 / RIDGE, iterations=60).x)
    found, expected = ((each**2).sum((0, 1, 2)) for each in (y - physics.A(fit), left))
    if float(expected.sum()) < TELLING * float(noise.square().sum()):
        return torch.zeros_like(found), torch.ones_like(expected)
    return found, expected


def _levels(left: Tensor, expected: Tensor, given: float, mask: Tensor) -> Tensor | None:
    """The noise level at each place of k-space, (H, W): that of its ring around the origin, and no less than what was given or
    half of the places have. Errors of the maps are largest in the middle, where they multiply the largest values. None where
    few places are louder than the rest."""
    rows, columns = (torch.arange(n, dtype=left.dtype) - n // 2 for n in left.shape)
    ring = (torch.hypot(*torch.meshgrid(rows, columns, indexing="ij")) / RING).round().long()
    sums = left.new_zeros(2, int(ring.max()) + 1)
    sums.index_add_(1, ring.flatten(), torch.stack([left, expected]).flatten(1))
    levels = (sums[0] / sums[1]).sqrt().masked_fill(sums[1] < ENOUGH, math.nan)[ring]
    measured = levels[(mask > 0) & levels.isfinite()]
    if not len(measured):
        return None
    quiet = max(given, float(measured.median()))
    often = float((measured > LOUDER * quiet).float().mean())
    return levels.nan_to_num(quiet).clamp_min(quiet) if often > OFTEN else None
