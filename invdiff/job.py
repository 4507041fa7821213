"""A job: from a resolved config to a restored image and a folder of results."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deepinv.models import Denoiser
from PIL import Image
from torch import Tensor
from torch.nn import functional

from invdiff.blind import OnWidth, with_width
from invdiff.calibration.finding import find_calibration, interval_of, reference_of
from invdiff.calibration.varying import settings_of
from invdiff.config import RunConfig, block_side, build_sampler
from invdiff.errors import InputError
from invdiff.evaluation.intervals import bounds_of
from invdiff.evaluation.metrics import enlarged, psnr, ssim
from invdiff.evaluation.provenance import Provenance, Shift, prior_shift
from invdiff.figures import colorize, comparison, heatmap
from invdiff.io.images import save_image
from invdiff.io.results import output_folder, write_yaml
from invdiff.machine import find_device
from invdiff.mri.job import Reconstruction, run_scan
from invdiff.noise_level import jpeg_thins
from invdiff.posing import Posed, as_image, photo, pose
from invdiff.priors import load_prior
from invdiff.restoration import Progress, restore
from invdiff.result import Result
from invdiff.trust import appraise, as_far_as_explained, assumed_of

BOUNDARIES = {          # what is said of one that was found
    "circular": "Opposite sides of the measurement meet, or noise hides that they do not: the blur is taken to wrap around.",
    "valid": "Opposite sides of the measurement do not meet, so the blur is taken to mix in what is beyond them; that is "
             "restored, too, and cut off."}


@dataclass(frozen=True)
class Outcome:
    """A finished job: the posterior samples, the measurement as an image, the clean image where one is known, and where the
    restoration comes from, for a linear operator. bounds: of the interval at each pixel, (1, C, H, W); none of one sample."""

    config: RunConfig
    result: Result
    picture: Tensor
    truth: Tensor | None
    provenance: Provenance | None = None
    bounds: tuple[Tensor, Tensor] | None = None

    @property
    def report(self) -> dict[str, Any]:
        return self.result.report

    @property
    def several(self) -> bool:
        """Are there samples that could differ?"""
        return self.result.samples.shape[1] > 1

    def save(self, path: str | Path) -> None:
        """The output folder, complete or absent. Raises InputError where it cannot be written."""
        more = dict(zip(("lower", "upper"), self.bounds, strict=True)) if self.bounds else {}
        if self.provenance:
            more |= {"prior_part": self.provenance.prior, "measured": self.provenance.measured}
        with output_folder(path) as folder:
            self.result.write_into(folder, **more)
            write_yaml(folder / "config.yaml", self.config.model_dump())
            save_image(folder / "restored.png", self.result.mean[0])
            measured = self.result.measurement      # which another run may be given, so nothing is added to it
            save_image(folder / "measurement.png", (measured if measured.ndim == 4 else self.picture)[0])
            if self.several:
                heatmap(self.result.std[0]).save(folder / "std.png")
            if self.provenance:
                heatmap(self.provenance.prior[0].abs()).save(folder / "prior.png")
            self.figure().save(folder / "comparison.png")

    def figure(self) -> Image.Image:
        """Measurement, restoration, one sample and the spread where there are more, what the prior filled in, and truth, side
        by side."""
        metrics = self.result.report["metrics"]
        panels, captions = {"measurement": self.picture[0].clamp(0, 1)}, {}
        if self.several:
            panels["restored (mean)"] = self.result.mean[0].clamp(0, 1)
        panels["one sample"] = self.result.samples[0, 0].clamp(0, 1)
        if self.several:
            panels["std"], top = colorize(self.result.std[0])
            captions["std"] = f"0 to {top:.3f}"
        if self.provenance:
            panels["filled in by the prior"], top = colorize(self.provenance.prior[0].abs())
            measured = self.provenance.shares["measured"]
            captions["filled in by the prior"] = f"0 to {top:.3f}; {measured:.0%} of the pixels' freedom is measured"
        if self.truth is not None:
            panels["truth"] = self.truth[0]
            scored = {"measurement": "measurement", "restored (mean)": "restored", "one sample": "sample"}
            captions |= {panel: _caption(metrics[name]) for panel, name in scored.items() if panel in panels}
        return comparison(panels, captions)


def run(config: RunConfig, on_step: Callable[[Progress], object] | None = None,
        checkpoint: str | Path | None = None, *, load: Callable[[str], Denoiser] | None = None,
        on_width: OnWidth | None = None) -> Outcome | Reconstruction:
    """Pose the problem, restore, and score against the truth where there is one; see `restore` for `on_step` and
    `checkpoint`, and `find_width` for `on_width`. What comes back has a `report` and can be saved. load: gives the priors of
    photographs by name, where several runs share them. Raises InputError, and `Stop` where a callback did before there was a
    sample."""
    load = load or load_prior
    find_device(config.device)
    if config.is_scan:
        return run_scan(config, on_step, checkpoint)
    known, blur = with_width(config, load, on_width)
    posed = pose(known)
    problem, truth, found = posed.problem, posed.truth, config.model_copy(update={"operator": posed.operator})
    picture, prior = posed.inner(as_image(problem)), load(config.prior)
    calibration = find_calibration(found, prior, problem.sigma_y)
    others = {name: load(name) for name in config.other_priors}
    draw = partial(restore, problem, sampler=build_sampler(config.sampler), samples=config.samples, seed=config.seed,
                   device=config.device, batch_size=config.batch_size, precision=config.precision, on_step=on_step,
                   start=_start(known, posed), antithetic=config.antithetic)
    result = draw(prior=prior, checkpoint=checkpoint)
    samples = posed.inner(result.samples)
    shifts = prior_shift(samples, others, lambda other: posed.inner(draw(prior=other).samples))
    appraisal = appraise(problem.to(find_device(config.device)), prior, result.samples,
                         reference_of(calibration, settings_of(found)), inner=posed.inner,
                         compressed=jpeg_thins(config.input, problem.sigma_y))
    interval = interval_of(calibration, found, samples.shape[1], problem.sigma_y, assumed_of(problem) if config.input else "")
    interval = as_far_as_explained(interval, appraisal.report)
    ends = bounds_of(samples[0], interval) if samples.shape[1] > 1 else None
    bounds = (ends[0][None], ends[1][None]) if ends else None
    report = {"task": config.task, "prior": config.prior, **result.report, "sampler": config.sampler["name"],
              "sigma_y": problem.sigma_y, **blur, **_found(known, posed), **appraisal.report, "interval": interval,
              **_told(shifts)}
    result = Result(samples, result.measurement, report)
    report |= {"metrics": score(result, picture, truth, bounds), "config": config.model_dump()}
    return Outcome(config, result, picture, truth, appraisal.provenance, bounds)


def _found(config: RunConfig, posed: Posed) -> dict[str, Any]:
    """What was left to the measurement to tell, for the report."""
    told: dict[str, Any] = {}
    if posed.operator != config.operator:
        boundary = posed.operator["boundary"]
        told["boundary"] = {"found": boundary, "words": BOUNDARIES[boundary]}
    if posed.noise is not None:
        told["noise_level"] = posed.noise.report()
    return told


def _told(shifts: dict[str, Shift]) -> dict[str, Any]:
    """How far other priors move the mean, for the report; nothing without any."""
    found = {name: {"rms": shift.rms, "expected": shift.expected} for name, shift in shifts.items()}
    return {"other_priors": found} if found else {}


def _start(config: RunConfig, posed: Posed) -> Tensor | None:
    """The estimate that the chains begin from, (1, C, H, W), if one is given."""
    if config.start is None:
        return None
    estimate = photo(config.start)
    problem, (rows, columns) = posed.problem, posed.spare
    if estimate.shape[1] == 1:                  # grey, as one of equal channels is: for any image
        estimate = estimate.expand(-1, problem.image_shape[0], -1, -1)
    estimate = functional.pad(estimate, (*columns, *rows), mode="replicate")
    block = block_side(config.operator)
    if all(0 <= n - m < block for n, m in zip(estimate.shape[-2:], problem.image_shape[-2:], strict=True)):
        estimate = estimate[..., : problem.image_shape[1], : problem.image_shape[2]]        # whole blocks, as of a truth
    if tuple(estimate.shape[1:]) != problem.image_shape:
        raise InputError(f"start: expected an image of {problem.image_shape}, and {config.start} is "
                         f"{tuple(estimate.shape[1:])}")
    return estimate


def score(result: Result, picture: Tensor, truth: Tensor | None, bounds: tuple[Tensor, Tensor] | None = None) -> dict[str, Any]:
    """PSNR and SSIM of the measurement, of the mean of the samples and of one sample, and the share of the truth's values that
    is within bounds; empty without a truth."""
    if truth is None:
        return {}
    images = {"measurement": enlarged(picture, truth.shape[-2:]).expand_as(truth), "restored": result.mean,
              "sample": result.samples[:, 0]}
    scores: dict[str, Any] = {}
    for name, image in images.items():
        scores[name] = {"psnr": float(psnr(image, truth).mean())}
        if min(truth.shape[-2:]) >= 11:
            scores[name]["ssim"] = float(ssim(image, truth).mean())
    if bounds:
        scores["covered"] = float(((truth >= bounds[0]) & (truth <= bounds[1])).double().mean())
    return scores | {"baselines": {}}


def _caption(scores: dict[str, float]) -> str:
    return f"PSNR {scores['psnr']:.2f} dB" + (f", SSIM {scores['ssim']:.3f}" if "ssim" in scores else "")
