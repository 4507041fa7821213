"""A job: from a resolved config to a restored image and a folder of results."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deepinv.physics import LinearPhysics, Physics
from PIL import Image
from torch import Tensor
from torch.nn import functional

import operators
from invdiff.calibration.finding import find_calibration, interval_of, reference_of
from invdiff.config import OPERATORS, RunConfig, block_side, build_operator, build_sampler, faults_told
from invdiff.errors import InputError
from invdiff.evaluation.intervals import centre_and_spread, ends
from invdiff.evaluation.metrics import enlarged, psnr, ssim
from invdiff.evaluation.provenance import Provenance, Shift, prior_shift
from invdiff.figures import colorize, comparison, heatmap
from invdiff.io.images import load_array, load_image, sample_image, save_image
from invdiff.io.results import output_folder, write_yaml
from invdiff.machine import find_device
from invdiff.mri.job import Reconstruction, run_scan
from invdiff.priors import load_prior
from invdiff.problem import Problem, simulate
from invdiff.restoration import Progress, Result, restore
from invdiff.trust import appraise


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


def pose(config: RunConfig) -> tuple[Problem, Tensor | None]:
    """The problem that a config describes, and the clean image (1, C, H, W) if it is simulated. Raises InputError."""
    block = block_side(config.operator)
    if config.input is not None:
        return _measured(config, config.input, block), None
    truth = sample_image() if config.truth is None else _photo(config.truth)
    height, width = (n // block * block for n in truth.shape[-2:])
    if min(height, width) == 0:
        raise InputError(f"{config.truth}: is smaller than one block of {block} x {block} pixels; give a larger image")
    truth = truth[..., :height, :width]
    return pose_truth(config, truth, config.seed), truth


def pose_truth(config: RunConfig, truth: Tensor, seed: int) -> Problem:
    """The problem that a config makes of a clean image (1, C, H, W), with noise of a seed. Raises InputError."""
    physics = build_operator(config.operator, truth.shape[1:])
    with faults_told(f"operator {config.operator['name']}: measures no image of {tuple(truth.shape[1:])}"):
        return simulate(physics, truth, float(config.sigma_y or 0), seed)


def _measured(config: RunConfig, path: str, block: int) -> Problem:
    """The problem of a measurement in a file, for an image of the size that it, or else `size`, tells."""
    name = config.operator["name"]
    if config.size is None and not getattr(OPERATORS[name], "measures_images", True):
        raise InputError(f"{path}: what {name} measures does not tell the image's size; say it, --set size=[H,W]")
    sums = "" if config.size else "; of what is no image, such as sums of pixels, say the image's size, --set size=[H,W]"
    y = load_array(path) if config.size and Path(path).suffix.lower() == ".npy" else _photo(path, sums)
    if config.size is not None:
        sizes = [(channels, *config.size) for channels in (3, 1)]
    else:                   # a grey measurement may be of a colour image
        channels, height, width = y.shape[1:]
        sizes = [(number, height * block, width * block) for number in ((1, 3) if channels == 1 else (channels,))]
    refusals = []
    for size in sizes:
        try:
            physics = _built(config, size, y)
        except InputError as error:
            refusals.append(error)
            continue
        if physics is not None:
            return Problem(physics, y, _noise_level(config, physics, y))
    if len(refusals) == len(sizes):
        larger = "" if config.size else "; if the image's size is another than its measurement tells, say --set size=[H,W]"
        raise InputError(f"{refusals[0]}{larger}") from refusals[0]
    raise InputError(f"{path}: holds {tuple(y.shape[1:])}, which {name} does not give for an image of {sizes[0]}; if the "
                     "image's size is another one, say --set size=[H,W]")


def _built(config: RunConfig, size: tuple[int, ...], y: Tensor) -> Physics | None:
    """The operator for an image of a size (C, H, W), or for one that is larger by what its measurement lacks of y: a border
    that no measurement speaks of. None where it makes other measurements than y. Raises InputError."""
    physics = build_operator(config.operator, size)
    measured = getattr(physics, "measurement_size", size)
    if config.size is None and len(measured) == 3:
        border = [n - m for n, m in zip(y.shape[-2:], measured[-2:], strict=True)]
        if min(border) >= 0 and max(border) > 0:
            size = (size[0], size[1] + border[0], size[2] + border[1])
            physics = build_operator(config.operator, size)
    with faults_told(f"operator {config.operator['name']}: measures no image of {size}"):
        x = y.new_full((1, *size), 0.5)     # one that minds no size gives something for each
        fits = physics.A(x).shape == y.shape
        fits = fits and (not isinstance(physics, LinearPhysics) or physics.A_adjoint(y).shape == x.shape)
    return physics if fits else None


def _noise_level(config: RunConfig, physics: Physics, y: Tensor) -> float:
    if config.sigma_y != "auto":
        return float(config.sigma_y or 0)
    if not _is_image(physics, y) or not bool(Problem(physics, y, 0.0).observed().all()):
        raise InputError("sigma_y: auto needs a measurement that is an image without missing pixels; give a number")
    try:
        return float(operators.estimate_sigma(y))
    except ValueError as error:
        raise InputError(f"sigma_y: auto cannot estimate the noise ({error}); give a number") from error


def _is_image(physics: Physics, y: Tensor) -> bool:
    """A sinogram has the shape of one: the class of its operator has `measures_images = False`."""
    return y.ndim == 4 and getattr(physics, "measures_images", True)


def as_image(problem: Problem) -> Tensor:
    """The measurement to look at, (B, C, h, w): itself where it is an image, its edges repeated up to (H, W) where it is of the
    inner part; else its back-projection."""
    y, (channels, height, width) = problem.y, problem.image_shape
    if _is_image(problem.physics, y) and y.shape[1] in {1, channels} and y.shape[2] <= height and y.shape[3] <= width:
        rows, columns = getattr(problem.physics, "border", ((0, 0), (0, 0)))
        return functional.pad(y, (*columns, *rows), mode="replicate") if any((*rows, *columns)) else y
    return problem.estimate()


def run(config: RunConfig, on_step: Callable[[Progress], object] | None = None,
        checkpoint: str | Path | None = None) -> Outcome | Reconstruction:
    """Pose the problem, restore, and score against the truth where there is one; see `restore` for `on_step` and
    `checkpoint`. What comes back has a `report` and can be saved. Raises InputError."""
    find_device(config.device)
    if config.is_scan:
        return run_scan(config, on_step, checkpoint)
    problem, truth = pose(config)
    picture, prior = as_image(problem), load_prior(config.prior)
    calibration = find_calibration(config, prior, problem.sigma_y)
    others = {name: load_prior(name) for name in config.other_priors}
    draw = partial(restore, problem, sampler=build_sampler(config.sampler), samples=config.samples, seed=config.seed,
                   device=config.device, batch_size=config.batch_size, precision=config.precision, on_step=on_step,
                   start=_start(config, problem), antithetic=config.antithetic)
    result = draw(prior=prior, checkpoint=checkpoint)
    shifts = prior_shift(result.samples, others, lambda other: draw(prior=other).samples)
    problem = problem.to(find_device(config.device))
    appraisal = appraise(problem, prior, result.samples, reference_of(calibration))
    interval = interval_of(calibration, config, result.samples.shape[1], problem.sigma_y)
    bounds = _bounds(result.samples, interval)
    report = {"task": config.task, "prior": config.prior, **result.report, "sampler": config.sampler["name"],
              "sigma_y": problem.sigma_y, **appraisal.report, "interval": interval, **_told(shifts),
              "metrics": score(result, picture, truth, bounds), "config": config.model_dump()}
    return Outcome(config, Result(result.samples, result.measurement, report), picture, truth, appraisal.provenance, bounds)


def _told(shifts: dict[str, Shift]) -> dict[str, Any]:
    """How far other priors move the mean, for the report; nothing without any."""
    found = {name: {"rms": shift.rms, "expected": shift.expected} for name, shift in shifts.items()}
    return {"other_priors": found} if found else {}


def _bounds(samples: Tensor, interval: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The ends (1, C, H, W) of the interval at each pixel, whose mean half-width is added to `interval`; None of one sample."""
    if samples.shape[1] < 2:
        return None
    centre, spread = centre_and_spread(samples[0])
    interval["half_width"] = interval["factor"] * float(spread.mean())
    lower, upper = ends(centre, spread, interval["factor"])
    return lower[None], upper[None]


def _start(config: RunConfig, problem: Problem) -> Tensor | None:
    """The estimate that the chains begin from, (1, C, H, W), if one is given."""
    if config.start is None:
        return None
    estimate = _photo(config.start)
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


def _photo(path: str, otherwise: str = "") -> Tensor:
    image = load_image(path)
    if float(image.abs().max()) > 4:
        raise InputError(f"{path}: values reach {float(image.abs().max()):g}; expected white to be 1, so divide by the white "
                         f"level{otherwise}")
    return image


def _caption(scores: dict[str, float]) -> str:
    return f"PSNR {scores['psnr']:.2f} dB" + (f", SSIM {scores['ssim']:.3f}" if "ssim" in scores else "")
