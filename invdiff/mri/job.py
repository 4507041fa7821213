"""The task mri: from a config to restored slices, and a folder of volumes, pictures and scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from deepinv.models import Denoiser

from invdiff.calibration.finding import find_calibration, interval_of, reference_of
from invdiff.config import RunConfig, build_sampler
from invdiff.errors import InputError
from invdiff.evaluation.consistency import EXPLAINED
from invdiff.evaluation.intervals import unexplained
from invdiff.io.results import output_folder, write_json, write_yaml
from invdiff.io.scans import open_images, open_scan
from invdiff.io.scans.scan import Header, Scan
from invdiff.io.volumes.dicom_tags import check_person
from invdiff.io.volumes.nifti import DESCRIPTION
from invdiff.machine import versions
from invdiff.mri.scoring import report_of, score_volume
from invdiff.mri.settings import ScanSettings
from invdiff.mri.simulating import simulated_scan
from invdiff.mri.volume import OnStep, Recipe, Slices, restore_slices
from invdiff.mri.writing import figure, write_result, write_volumes
from invdiff.own_code import own_code
from invdiff.paths import bundled
from invdiff.priors import load_prior
from invdiff.priors.facts import fingerprint
from invdiff.restoration import Stop

SAMPLE = ("data", "samples", "phantom.h5")


@dataclass(frozen=True)
class Reconstruction:
    """A finished scan: its slices, and a report on them."""

    config: RunConfig
    slices: Slices
    report: dict[str, Any]
    header: Header

    @property
    def spare(self) -> list[int]:
        """The slices that an earlier run has finished in the same folder, and that this one was not asked for."""
        return sorted(set(self.slices.kept) - set(self.slices.numbers or self.slices.kept))

    def save(self, path: str | Path) -> None:
        """The output folder, complete or absent. Raises InputError where it cannot be written."""
        with output_folder(path) as folder:
            write_result(folder / "result.h5", self.slices, self.report["interval"]["factor"],
                         {key: self.report[key] for key in ("scan", "config", "versions")})
            write_volumes(folder, self.slices, self.header, self.config.write, self.config.keep_identity,
                          self.config.model_dump_json())
            middle = len(self.slices) // 2
            tensors = next(part for i, (part, _) in enumerate(self.slices) if i == middle)
            figure(tensors, self.report["metrics"]).save(folder / "comparison.png")
            write_json(folder / "report.json", self.report)
            write_yaml(folder / "config.yaml", self.config.model_dump(mode="json"))


def run_scan(config: RunConfig, on_step: OnStep | None = None, checkpoint: str | Path | None = None) -> Reconstruction:
    """Restore the slices of the scan that a config names. `checkpoint` keeps those that are finished, and the next call with it
    goes on from there; `on_step` may raise `Stop`, which ends the run with them. Raises InputError."""
    settings = ScanSettings.of(config.operator)
    scan, given = _scan(config, settings)
    if config.truth is not None and scan.noise is None:             # noiseless: what its border shows is signal
        settings = settings.model_copy(update={"noise": "none"})
    if config.keep_identity and "dicom" in config.write:
        check_person(scan.header.identity)
    numbers, prior = _numbers(config, scan), complex_prior(config.prior)
    calibration = find_calibration(config, prior)
    recipe = Recipe(settings, prior, build_sampler(config.sampler), config.samples, config.seed, given,
                    tuple(config.baselines), config.device, config.batch_size, config.precision, config.antithetic,
                    reference_of(calibration))
    slices = Slices(checkpoint, _identity(config, scan, prior), numbers)
    try:
        restore_slices(scan, numbers, recipe, slices, on_step)
    except Stop:
        if not len(slices):
            raise
    header = scan.header if config.keep_identity else replace(scan.header, identity={})
    header = replace(header, affine=_from_slice(header.affine, numbers[0]))
    runs = report_of(slices)
    interval = interval_of(calibration, config, runs["samples"])
    if not all(about["consistency"]["verdict"] in EXPLAINED for about in runs["slices"] if "empty" not in about):
        interval = unexplained(interval)
    report = {"task": config.task, "prior": config.prior, "seed": config.seed, **runs,
              "sampler": config.sampler["name"], "metrics": score_volume(slices, interval["factor"]), "interval": interval,
              "scan": _about(scan, numbers[: len(slices)], header), "notice": DESCRIPTION,
              "config": config.model_dump(mode="json")}
    return Reconstruction(config, slices, report, header)


def _scan(config: RunConfig, settings: ScanSettings) -> tuple[Scan, float | None]:
    """The scan, and its noise level where that is given."""
    given = None if config.sigma_y in (None, "auto") else float(config.sigma_y or 0)
    if config.truth is not None:
        if settings.size is not None:
            raise InputError("operator.size: belongs to k-space on a trajectory; leave it out for a truth, which has a size")
        return simulated_scan(open_images(config.truth, frame=settings.frame), settings.coils, given or 0.0, config.seed), None
    path = config.input or str(bundled(*SAMPLE))
    return open_scan(path, trajectory=settings.trajectory, frame=settings.frame, size=settings.size), given


def _numbers(config: RunConfig, scan: Scan) -> Sequence[int]:
    """The slices to restore, first to last."""
    first, last = config.slices or (0, scan.slices - 1)
    if not 0 <= first <= last < scan.slices:
        raise InputError(f"slices: expected [first, last] within 0 to {scan.slices - 1}, those of {scan.path}, got "
                         f"[{first}, {last}]")
    return range(first, last + 1)


def complex_prior(name: str) -> Denoiser:
    """The prior of that name. Raises InputError if its images are not complex."""
    prior = load_prior(name)
    if (channels := getattr(prior, "channels", 2)) != 2:
        raise InputError(f"prior: {name} is for photographs, of {channels} channels; a scan wants one of complex images, of 2, "
                         "as brain")
    return prior


def _identity(config: RunConfig, scan: Scan, prior: Denoiser) -> dict[str, Any]:
    """What two runs share only if they are the same: all but what does not change the samples of a slice."""
    read = [file for name in (scan.path, config.operator.get("trajectory")) if name for file in _files(Path(name))]
    written = [[file.stat().st_size, file.stat().st_mtime_ns] for file in read]
    run = config.model_dump(mode="json", exclude={"write", "keep_identity", "device", "batch_size", "slices"})
    return {"scan": Path(scan.path).name, "written": written, "run": run, "prior": fingerprint(prior),
            "versions": versions(), **own_code(config.sampler)}


def _files(path: Path) -> list[Path]:
    """All that is read of a scan or a trajectory: a file, those of a folder, or BART's two, whose name may have any ending."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    pair = [Path(f"{stem}{end}") for stem in (path, path.with_suffix("")) for end in (".cfl", ".hdr")]
    return [file for file in dict.fromkeys([path, *pair]) if file.is_file()]


def _from_slice(affine: np.ndarray | None, first: int) -> np.ndarray | None:
    """The affine of a volume that begins with slice `first`."""
    if affine is None:
        return None
    moved = np.array(affine, dtype=float)
    moved[:3, 3] += first * moved[:3, 2]
    return moved


def _about(scan: Scan, numbers: Sequence[int], header: Header) -> dict[str, Any]:
    """The scan for the report; who was scanned only where `header` still says so."""
    identity = {"identity": dict(header.identity)} if header.identity else {}
    return {"file": Path(scan.path).name, "format": scan.format, "slices": [numbers[0], numbers[-1]], "coils": scan.coils,
            "grid": list(scan.size), "image": list(scan.crop), "metadata": dict(header.metadata), **identity,
            "affine": None if header.affine is None else header.affine.tolist(), "notes": list(scan.notes)}
