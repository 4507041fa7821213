"""A scan restored slice by slice, each kept on disk as soon as it is finished."""

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import EmptySlice
from invdiff.evaluation.mri_baselines import baseline
from invdiff.evaluation.novelty import Reference
from invdiff.io.partial import PartialRun, remove_partial
from invdiff.io.scans.scan import Scan
from invdiff.mri.coil_maps import on_grid
from invdiff.mri.preparing import Prepared, prepare
from invdiff.mri.scan_prior import ScanPrior
from invdiff.mri.settings import ScanSettings
from invdiff.mri.simulating import SimulatedScan
from invdiff.posterior import Sampler
from invdiff.restoration import Progress, Stop, restore
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
    """

    def __init__(self, folder: str | Path | None, identity: Mapping[str, Any]):
        self.temporary = folder is None
        self.folder = Path(tempfile.mkdtemp() if folder is None else folder)
        if self.temporary:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.parts = PartialRun(self.folder, identity, {})

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        return self.parts.parts()

    def beside(self, number: int) -> Path | None:
        """Where the samples of an unfinished slice are kept; nowhere in a temporary run."""
        return None if self.temporary else self.folder.with_name(f"{self.folder.name}-{number}")


def restore_slices(scan: Scan, numbers: Sequence[int], recipe: Recipe, slices: Slices, on_step: OnStep | None = None) -> None:
    """Restore the slices `numbers` of a scan; those that `slices` holds already, the first of them, are not done again.

    `on_step` is called as by `restore`, counting over all slices; `Stop` raised by it comes out again, and `slices` holds those
    that were finished. An empty slice among others is kept as zeros. Raises InputError as `prepare` and `restore` do.
    """
    stopped = False
    left = list(numbers)[len(slices):]
    for done, number in enumerate(left):
        def tell(progress: Progress, done: int = done) -> None:
            nonlocal stopped
            try:
                if on_step:
                    on_step(Progress(done * progress.total + progress.done, len(left) * progress.total, progress.step))
            except Stop:
                stopped = True
                raise

        began = time.perf_counter()
        try:
            prepared = prepare(scan, number, recipe.settings, recipe.sigma_y)
        except EmptySlice as error:
            if len(numbers) == 1:
                raise
            slices.parts.add(_nothing(scan, recipe), {"slice": number, "empty": str(error).partition("; ")[0]})
            continue
        kept, classical = slices.beside(number), _classical(prepared, recipe.baselines)
        drawn = prepared.drawn
        result = restore(drawn.problem, ScanPrior(recipe.prior, drawn.support), recipe.sampler, samples=recipe.samples,
                         seed=stream_seed(recipe.seed, number, 0), device=recipe.device, batch_size=recipe.batch_size,
                         precision=recipe.precision, antithetic=recipe.antithetic, on_step=tell, checkpoint=kept)
        if result.samples.shape[1] < recipe.samples and (kept or len(slices)):
            raise Stop                                          # only a slice that is alone may be short of samples
        samples, where = drawn.on_scan(result.samples), result.report["device"]
        appraisal = appraise(prepared.weighted.to(where), ScanPrior(recipe.prior, prepared.support), samples, recipe.reference,
                             look=recipe.look, probes=0 if recipe.look else PROBES,
                             explained=(drawn.problem.to(where), result.samples), scale=prepared.scale)
        tensors = _tensors(scan, number, prepared, samples[0], classical, appraisal)
        about = {"slice": number, "seconds": round(time.perf_counter() - began, 3), "preparation": dict(prepared.choices),
                 "run": result.report, "appraisal": appraisal.report}
        slices.parts.add(tensors, about)
        if kept:
            remove_partial(kept)
        if stopped:
            raise Stop


def _nothing(scan: Scan, recipe: Recipe) -> dict[str, Tensor]:
    """What is kept of an empty slice of a volume: zeros, that all slices have their place."""
    known = isinstance(scan, SimulatedScan) or recipe.settings.acceleration is not None
    zeros = torch.zeros(scan.crop)
    names = ("zero_filled", *recipe.baselines, *(["truth"] if known else []))
    return {"samples": zeros.expand(recipe.samples, 2, *scan.crop).contiguous(), **{name: zeros.clone() for name in names}}


def _classical(prepared: Prepared, baselines: Sequence[str]) -> dict[str, Tensor]:
    """Zero-filled and baselines, magnitudes (H, W) in the scan's unit; before the samples, for one may not be possible."""
    return {name: mri.combine_sets(baseline(name, prepared.problem) * prepared.support)[0, 0] / prepared.scale
            for name in ("zero_filled", *baselines)}


def _tensors(scan: Scan, number: int, prepared: Prepared, samples: Tensor, classical: Mapping[str, Tensor],
             appraisal: Appraisal) -> dict[str, Tensor]:
    """What is kept of a slice, in the scan's unit."""
    images = {"samples": samples / prepared.scale, **classical}
    if appraisal.provenance is not None:
        prior = appraisal.provenance.prior.cpu() * prepared.support / prepared.scale
        images |= {"prior_part": mri.combine_sets(prior)[0, 0], "measured": appraisal.provenance.measured[0, 0].cpu()}
    truth = scan.truth(number) if isinstance(scan, SimulatedScan) and scan.truth else prepared.truth
    if truth is not None:
        images["truth"] = truth
    row = {} if appraisal.features is None else {"features": appraisal.features}
    return {name: on_grid(image, scan.crop) for name, image in images.items()} | row
