"""The noise of a scan: where it is seen, what it is like, and coils in which it is white."""

from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.io.scans.scan import RawSlice, Scan
from operators import mri

ENOUGH = 8              # noise samples a coil: fewer tell a standard deviation, but no covariance
BORDER = 0.1            # of k-space, where there is hardly any signal
CONDITION = 1e-5        # of a covariance, below which it is taken for singular
UNEQUAL = 100.0         # coils' noise differs by about ten (largest over smallest eigenvalue); by more, signal is among it


@dataclass(frozen=True)
class Whitening:
    """matrix (N, N) complex, for `mix_coils`: noise becomes white, of standard deviation `sigma` per real channel, the mean of
    the coils', so that the data keep their unit. source: where the noise was seen, for the report."""

    matrix: Tensor
    sigma: float
    source: str

    @property
    def inverse(self) -> Tensor:
        """(N, N), back to the scanner's coils."""
        return torch.linalg.inv(self.matrix)

    def __call__(self, kspace: Tensor) -> Tensor:
        """K-space (N, ...) in the coils in which noise is white."""
        return mri.mix_coils(kspace[None], self.matrix)[0]


def find_whitening(scan: Scan, raw: RawSlice, source: str | None) -> Whitening:
    """From the noise scan or the border of k-space; `source` says which ("scan", "border"), "none" leaves the coils alone.
    What the coil maps leave of k-space tells more than its border (see `of_virtual_coils`), but takes maps first.

    Raises InputError where the noise is not to be seen there.
    """
    if source == "scan" and scan.noise is None:
        raise InputError(f"{scan.path}: holds no noise scan; expected operator.noise=residual, border or none")
    if source == "none":
        return Whitening(torch.eye(scan.coils, dtype=torch.complex64), 0.0, "not looked for")
    if scan.noise is not None and source in (None, "scan"):
        return _from(scan.noise, "noise scan")
    samples = border(raw)
    if samples is None:
        if source == "border":
            raise InputError(f"{scan.path}: the border of k-space shows no noise (it is zero, or was not sampled); expected "
                             "operator.noise=none, with which the noise level is what the coil maps leave unexplained")
        return Whitening(torch.eye(scan.coils, dtype=torch.complex64), 0.0, "not whitened: the border of k-space is empty")
    values = torch.linalg.eigvalsh(mri.noise_covariance(samples))
    if float(values[-1]) > UNEQUAL * float(values[0]) and samples.shape[1] >= ENOUGH * len(samples):
        return Whitening(torch.eye(scan.coils, dtype=torch.complex64), 0.0, "not whitened: the border of k-space holds signal")
    return _from(samples, "border of k-space")


def border(raw: RawSlice) -> Tensor | None:
    """Samples (N, S) from the outer tenth of k-space: its corners, or else the ends of the readout; None if it is empty."""
    if raw.trajectory is not None:
        radius = raw.trajectory.norm(dim=1)
        return raw.kspace[:, radius > (1 - BORDER) * radius.max()]
    kspace = raw.kspace[None]
    for dims in ((-2, -1), (-2,), (-1,)):
        try:
            samples = mri.border_samples(kspace, BORDER, dims)
        except ValueError:
            continue
        if samples.shape[1] >= ENOUGH * len(samples):
            return samples
    return None


def _from(samples: Tensor, source: str) -> Whitening:
    power = samples.abs().square().mean(1)
    if float(power.min()) <= 0:
        raise InputError(f"noise: coil {int(power.argmin())} shows none in the {source}; is it switched off? Leave it out")
    sigma = float((power.mean() / 2).sqrt())
    if samples.shape[1] >= ENOUGH * len(samples):
        covariance = mri.noise_covariance(samples)
        values = torch.linalg.eigvalsh(covariance)
        if float(values[0]) >= CONDITION * float(values[-1]):
            return Whitening(mri.coils.prewhitening(covariance, sigma), sigma, source)
    matrix = torch.diag((power.mean() / power).sqrt()).to(samples)
    return Whitening(matrix, sigma, f"{source}, coil by coil: {samples.shape[1]} samples tell no covariance")


def of_virtual_coils(covariance: Tensor, matrix: Tensor, after: Whitening | None = None) -> Whitening:
    """Of all coils, or of those `after` another whitening, from the noise's covariance (M, M) in the virtual ones that `matrix`
    (M, N), with orthonormal rows, makes of them. What reaches none of these is taken to have the mean of their noise."""
    level = float(covariance.diagonal().real.mean())
    within = matrix.mH @ covariance.to(matrix) @ matrix
    everywhere = within + level * (torch.eye(matrix.shape[1]) - matrix.mH @ matrix)
    sigma = (level / 2) ** 0.5
    white = mri.coils.prewhitening(everywhere, sigma)
    return Whitening(white if after is None else white @ after.matrix, sigma, "residual of the coil maps")
