"""A scan restored slice by slice, each kept on disk as soon as it is finished."""

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.baselines.mri import baseline
from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import AnotherRun, EmptySlice, InputError
from invdiff.evaluation.novelty import Reference
from invdiff.io.partial import PartialRun, holds_parts, remove_partial
from invdiff.io.scans.scan import Scan
from invdiff.mri.coil_maps import on_grid
from invdiff.mri.preparing import Prepared, prepare
from invdiff.mri.scan_prior import ScanPrior
from invdiff.mri.settings import ScanSettings
from invdiff.mri.simulating import SimulatedScan
from invdiff.posterior import Sampler
from invdiff.restoration import Progress, Stop, residual, restore
from invdiff.trust import Appraisal, appraise
from operators import mri

OnStep = Callable[[Progress], object]
PROBES = 4              # images behind the map of what is measured; each costs as much as a few steps
MAPS = ("prior_part", "measured", "features")     # of a slice, and no images of it


@dataclass(frozen=True)
class Recipe:
    """How each slice is restored. prior: of complex images. sigma_y: in the scan's unit, a real channel; None estimates it.
    reference: what slices look like to the prior when all is in order; look: keep what they look like, and leave their
    provenance out, as a calibration does."""

    settings: ScanSettings
    prior: Denoiser
    sampler: Sampler
    samples: int
    seed: int
    sigma_y: float | None = None
    baselines: Sequence[str] = ()
    device: str = "auto"
    batch_size: int | None = None
    precision: str = "fp32"
    antithetic: bool = False
    reference: Reference | None = None
    look: bool = False


class Slices:
    """The finished slices of a run in a folder, read one at a time, in the scan's unit and cropped to its image.

    samples (S, 2 M, h, w); zero_filled, truth, each baseline and prior_part, magnitudes (h, w); measured, in [0, 1]; features
    for a `Reference`, where they were asked for; and plain values about the slice.
    Without a folder they are in a temporary one, for as long as this object lives.
    numbers: those that are asked for, first to last; without them, all that there are. A folder may hold others, of the same
    run, which are passed over, and so is what comes after a slice that is missing. kept: where each of those that it holds is,
    by number.
    Raises InputError where the folder is of another run, or another process is at work in it.
    """

    def __init__(self, folder: str | Path | None, identity: Mapping[str, Any], numbers: Sequence[int] | None = None):
        self.temporary = folder is None
        self.folder = Path(tempfile.mkdtemp() if folder is None else folder)
        if self.temporary:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.parts, self.numbers = PartialRun(self.folder, identity, {}), numbers
        self.kept: dict[int, Path] = {about["slice"]: file for file, about in self.parts.index().items()}

    def __len__(self) -> int:
        return len(self._finished())

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        for number in self._finished():
            yield self.parts.read(self.kept[number])

    def _finished(self) -> list[int]:
        """The numbers of the slices that are asked for and there."""
        return sorted(self.kept) if self.numbers is None else list(takewhile(self.kept.__contains__, self.numbers))

    def add(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep a slice. Raises InputError where it cannot be written."""
        self.kept[about["slice"]] = self.parts.add(tensors, about)

    def beside(self, number: int) -> Path | None:
        """Where the samples of an unfinished slice are kept; nowhere in a temporary run."""
        return None if self.temporary else self.folder.with_name(f"{self.folder.name}-{number}")

    def left_by(self, number: int) -> Path | None:
        """Where there is something to go on from, when slice `number` fails."""
        beside = self.beside(number)
        return self.folder if beside and self.kept else beside if beside and holds_parts(beside) else None


@dataclass
class _Watch:
    """Hands the steps of slices on, counted over all `total` of them, of which so many are `done`, and notes a `Stop`."""

    on_step: OnStep | None
    total: int
    done: int = 0
    stopped: bool = False

    def __call__(self, progress: Progress) -> None:
        try:
            if self.on_step:
                self.on_step(Progress(self.done * progress.total + progress.done, self.total * progress.total, progress.step))
        except Stop:
            self.stopped = True
            raise


def restore_slices(scan: Scan, numbers: Sequence[int], recipe: Recipe, slices: Slices, on_step: OnStep | None = None) -> None:
    """Restore the slices `numbers` of a scan; those that `slices` holds already are not done again.

    `on_step` is called as by `restore`, counting over all slices; `Stop` raised by it comes out again, and `slices` holds those
    that were finished. An empty slice among others is kept as zeros, and where all are empty nothing is. Raises InputError as
    `prepare` and `restore` do, which says where finished slices are kept.
    """
    left = [number for number in numbers if number not in slices.kept]
    watch, empty = _Watch(on_step, len(left)), list[dict[str, Any]]()
    for watch.done, number in enumerate(left):
        try:
            tensors, about = _restored(scan, number, recipe, slices, watch)
        except InputError as error:
            if isinstance(error, EmptySlice) and len(numbers) > 1:
                empty.append({"slice": number, "empty": str(error).partition("; ")[0]})
                continue
            where = None if isinstance(error, AnotherRun) else slices.left_by(number)
            if where is None:
                raise
            raise InputError(f"{error}; what was finished before is kept in {where}") from error
        while empty:                                            # with the first that is not, lest they be all that is kept
            slices.add(_nothing(scan, recipe, len(tensors["samples"])), empty.pop(0))
        slices.add(tensors, about)
        if beside := slices.beside(number):
            remove_partial(beside)
        if watch.stopped:
            raise Stop
    for about in empty if set(numbers) & set(slices.kept) else ():
        slices.add(_nothing(scan, recipe, recipe.samples), about)


def _restored(scan: Scan, number: int, recipe: Recipe, slices: Slices,
              watch: _Watch) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What is kept of a slice."""
    began = time.perf_counter()
    prepared = prepare(scan, number, recipe.settings, recipe.sigma_y)
    kept, classical = slices.beside(number), _classical(prepared, recipe.baselines)
    drawn = prepared.drawn
    result = restore(prepared.lean, ScanPrior(recipe.prior, drawn.support), recipe.sampler, samples=recipe.samples,
                     seed=stream_seed(recipe.seed, number, 0), device=recipe.device, batch_size=recipe.batch_size,
                     precision=recipe.precision, antithetic=recipe.antithetic, on_step=watch, checkpoint=kept)
    if result.samples.shape[1] < recipe.samples and (kept or len(slices)):
        raise Stop                                              # only a slice that is alone may be short of samples
    samples, where = drawn.on_scan(result.samples), result.report["device"]
    judged = drawn.problem.to(where)                            # by all coils
    appraisal = appraise(prepared.weighted.to(where), ScanPrior(recipe.prior, prepared.support), samples, recipe.reference,
                         look=recipe.look, probes=0 if recipe.look else PROBES,
                         explained=(judged, result.samples), scale=prepared.scale)
    tensors = _tensors(scan, number, prepared, samples[0], classical, appraisal)
    return tensors, {"slice": number, "seconds": round(time.perf_counter() - began, 3), "preparation": dict(prepared.choices),
                     "run": {**result.report, "residual": residual(judged, result.samples)}, "appraisal": appraisal.report}


def _nothing(scan: Scan, recipe: Recipe, samples: int) -> dict[str, Tensor]:
    """What is kept of an empty slice of a volume: zeros, that all slices have their place."""
    known = isinstance(scan, SimulatedScan) or recipe.settings.acceleration is not None
    zeros = torch.zeros(scan.crop)
    names = ("zero_filled", *recipe.baselines, *(["truth"] if known else []))
    return {"samples": zeros.expand(samples, 2, *scan.crop).contiguous(), **{name: zeros.clone() for name in names}}


def _classical(prepared: Prepared, baselines: Sequence[str]) -> dict[str, Tensor]:
    """Zero-filled and baselines, magnitudes (H, W) in the scan's unit; before the samples, for one may not be possible."""
    return {name: mri.combine_sets(baseline(name, prepared.problem) * prepared.support)[0, 0] / prepared.scale
            for name in ("zero_filled", *baselines)}


def _tensors(scan: Scan, number: int, prepared: Prepared, samples: Tensor, classical: Mapping[str, Tensor],
             appraisal: Appraisal) -> dict[str, Tensor]:
    """What is kept of a slice, in the scan's unit."""
    images = {"samples": samples / prepared.scale, **classical}
    if appraisal.provenance is not None:
        prior = appraisal.provenance.prior.cpu() / prepared.scale
        images |= {"prior_part": mri.combine_sets(prior)[0, 0], "measured": appraisal.provenance.measured[0, 0].cpu()}
    truth = scan.truth(number) if isinstance(scan, SimulatedScan) and scan.truth else prepared.truth
    if truth is not None:
        images["truth"] = truth
    row = {} if appraisal.features is None else {"features": appraisal.features}
    return {name: on_grid(image, scan.crop) for name, image in images.items()} | row
