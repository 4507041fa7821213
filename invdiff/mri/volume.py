"""A scan restored slice by slice, each kept on disk as soon as it is finished."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import InputError
from invdiff.evaluation.mri_baselines import baseline
from invdiff.io.partial import PartialRun, remove_partial
from invdiff.io.scans.scan import Scan
from invdiff.mri.preparing import Prepared, prepare
from invdiff.mri.scan_prior import ScanPrior
from invdiff.mri.settings import ScanSettings
from invdiff.posterior import Sampler
from invdiff.priors import load_prior
from invdiff.restoration import Progress, Result, restore
from operators import mri

OnStep = Callable[[Progress], object]


@dataclass(frozen=True)
class Recipe:
    """How each slice is restored. sigma_y: in the scan's unit, per real channel; None estimates it."""

    settings: ScanSettings
    prior: str
    sampler: Sampler
    samples: int
    seed: int
    sigma_y: float | None = None
    baselines: Sequence[str] = ()
    device: str = "auto"
    batch_size: int | None = None
    precision: str = "fp32"


class Slices:
    """The finished slices of a run in a folder, read one at a time, in the scan's unit and cropped to its image.

    samples (S, 2 M, h, w); zero_filled, truth and each baseline, magnitudes (h, w); and plain values about the slice.
    Without a folder they are in a temporary one, for as long as this object lives.
    """

    def __init__(self, folder: str | Path | None, identity: Mapping[str, Any]):
        self._temporary = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = Path(folder) if folder is not None else Path(str(self._temporary and self._temporary.name))
        self.parts = PartialRun(self.folder, identity, {})

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        return self.parts.parts()

    def beside(self, number: int) -> Path | None:
        """Where the samples of an unfinished slice are kept; nowhere in a temporary run."""
        return None if self._temporary else self.folder.with_name(f"{self.folder.name}-{number}")


def restore_slices(scan: Scan, numbers: Sequence[int], recipe: Recipe, slices: Slices, on_step: OnStep | None = None) -> None:
    """Restore the slices `numbers` of a scan; those that `slices` holds already, the first of them, are not done again.

    `on_step` is called as by `restore`, counting over all slices. Raises InputError as `prepare` and `restore` do.
    """
    prior = load_prior(recipe.prior)
    left = list(numbers)[len(slices):]
    for done, number in enumerate(left):
        def tell(progress: Progress, done: int = done) -> None:
            if on_step:
                on_step(Progress(done * progress.total + progress.done, len(left) * progress.total, progress.step))

        began = time.perf_counter()
        prepared = prepare(scan, number, recipe.settings, recipe.sigma_y)
        kept = slices.beside(number)
        result = restore(prepared.problem, _fitted(prior, prepared, recipe.prior), recipe.sampler, samples=recipe.samples,
                         seed=stream_seed(recipe.seed, number, 0), device=recipe.device, batch_size=recipe.batch_size,
                         precision=recipe.precision, on_step=tell, checkpoint=kept)
        tensors = _tensors(scan, prepared, result, recipe.baselines)
        about = {"slice": number, "seconds": round(time.perf_counter() - began, 3), "preparation": dict(prepared.choices),
                 "run": result.report}
        slices.parts.add(tensors, about)
        if kept:
            remove_partial(kept)


def _fitted(prior: Any, prepared: Prepared, name: str) -> ScanPrior:
    try:
        return ScanPrior(prior, prepared.support)
    except ValueError as error:
        raise InputError(f"prior: {name} is for photographs; a scan wants one of complex images, as brain ({error})") from error


def _tensors(scan: Scan, prepared: Prepared, result: Result, baselines: Sequence[str]) -> dict[str, Tensor]:
    """What is kept of a slice, in the scan's unit."""
    def magnitude(x: Tensor) -> Tensor:
        return _cropped(mri.combine_sets(x * prepared.support)[0, 0] / prepared.scale, scan.crop)

    problem = prepared.problem.to("cpu")
    tensors = {"samples": _cropped(result.samples[0] * prepared.support / prepared.scale, scan.crop),
               "zero_filled": magnitude(baseline("zero_filled", problem))}
    for name in baselines:
        tensors[name] = magnitude(baseline(name, problem))
    if prepared.truth is not None:
        tensors["truth"] = _cropped(prepared.truth, scan.crop)
    return tensors


def _cropped(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle (..., h, w) of (..., H, W)."""
    top, left = (n // 2 - m // 2 for n, m in zip(x.shape[-2:], size, strict=True))
    return x[..., top : top + size[0], left : left + size[1]]


def magnitudes(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Of complex samples (S, 2 M, h, w): the mean's magnitude, and the standard deviation of their magnitudes, (h, w)."""
    spread = mri.combine_sets(samples)[:, 0]
    deviation = spread.std(0, correction=1) if len(samples) > 1 else torch.zeros_like(spread[0])
    return mri.combine_sets(samples.mean(0, keepdim=True))[0, 0], deviation
