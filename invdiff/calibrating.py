"""Calibrating: restore images that are known, and find how wide intervals must be, and what is usual.

Every other image calibrates; the rest are kept apart, and tell what the intervals cover on fresh ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from deepinv.models import Denoiser
from scipy.stats import spearmanr
from torch import Tensor

from invdiff.calibration import Calibration, in_pairs, reference_of
from invdiff.config import RunConfig, build_sampler
from invdiff.diffusion.randomness import sample_variance, stream_seed
from invdiff.errors import InputError
from invdiff.evaluation.crops import crops_for, holds_complex
from invdiff.evaluation.intervals import LEVEL, centre_and_spread, conformal_factor, coverage, coverage_curve
from invdiff.evaluation.mri_metrics import head_mask
from invdiff.evaluation.novelty import Reference
from invdiff.evaluation.ranks import expected_coverage, tarp_ranks
from invdiff.io.partial import PartialRun
from invdiff.io.scans import open_images
from invdiff.io.scans.scan import Images
from invdiff.job import pose_truth
from invdiff.machine import find_device, versions
from invdiff.mri.job import scan_prior
from invdiff.mri.settings import ScanSettings
from invdiff.mri.simulating import simulated_scan
from invdiff.mri.uncertainty import magnitudes
from invdiff.mri.volume import Recipe, Slices, restore_slices
from invdiff.priors import load_prior
from invdiff.priors.calibration import channels_of, fingerprint
from invdiff.restoration import restore
from invdiff.training.complex_data import open_complex, open_magnitudes
from invdiff.training.images import Cache
from invdiff.trust import appraise
from operators import mri

LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))        # of the curves
MIDDLE = 256                                                    # pixels, of pictures that stand in for slices
PATCH = 16                                                      # pixels; distances of patches rank more often than of images
FEWEST = 19                                                     # images for a reference of what is usual
Case = dict[str, Tensor]


@dataclass(frozen=True)
class Known:
    """Clean images: `crops` (C, H, W), or slices of a scan. source: what they are, in words."""

    crops: Sequence[Tensor]
    slices: Images | None
    source: str

    def __len__(self) -> int:
        return self.slices.slices if self.slices else len(self.crops)


def known_images(config: RunConfig, data: str | Path, key: str | None, count: int, size: int) -> Known:
    """Clean images for a config's task: central crops of photographs, of as many channels as its prior is for, or slices for a
    scan. Raises InputError."""
    name = Path(data).name + (f" ({key})" if key else "")
    if config.is_scan:
        slices = _slices(data, key or "test", count)
        return Known([], slices, f"{slices.slices} slices of {name}")
    crops = crops_for(channels_of(load_prior(config.prior)), data, key or "test_jpeg", count, size)
    factor = int(config.operator.get("factor", 1))
    whole = size // factor * factor
    source = f"{len(crops)} central crops of {whole} x {whole} from {name}"
    return Known([crop[:, :whole, :whole] for crop in crops], None, source)


def _slices(data: str | Path, key: str, count: int) -> Images:
    """Up to `count` slices, spread evenly: an HDF5 dataset of complex ones (N, 2, H, W), or of pictures, whose middles are
    taken for magnitudes, or what `open_images` reads."""
    if not (Path(data).is_file() and h5py.is_hdf5(data)):
        every = open_images(data)
    elif holds_complex(data, key):
        found = open_complex(data, key, Cache(0))
        every = Images(str(data), "HDF5", len(found), found.shapes[0], lambda i: torch.from_numpy(found[i]))
    else:
        pictures = open_magnitudes(data, key, Cache(0))
        side = min(MIDDLE, *(min(shape) for shape in pictures.shapes))
        every = Images(str(data), "HDF5", len(pictures), (side, side), lambda i: _middle(torch.from_numpy(pictures[i]), side))
    chosen = np.linspace(0, every.slices - 1, min(count, every.slices)).round().astype(int).tolist()
    return Images(every.path, every.format, len(chosen), every.size, lambda i: every.read(chosen[i]))


def _middle(x: Tensor, side: int) -> Tensor:
    top, left = ((n - side) // 2 for n in x.shape[-2:])
    return x[..., top : top + side, left : left + side].contiguous()


def calibrate(config: RunConfig, images: Known, *, level: float = LEVEL, delta: float | None = None,
              checkpoint: str | Path | None = None,
              on_image: Callable[[int, int], object] = lambda done, of: None) -> Calibration:
    """Restore each image as the config says, and make the record of it.

    level, delta: of the interval, see `conformal_factor`. checkpoint: a folder that keeps the finished images; the next call
    with it goes on from there. on_image: called with how many are done, of how many.

    Raises:
        InputError: fewer than two samples or images, too few of them for `delta`, numbers out of range, or as the restorations
            do.
    """
    if config.samples < 2 or len(images) < 2:
        raise InputError(f"calibrate: expected at least 2 samples of at least 2 images, got {config.samples} of {len(images)}")
    if not 0 < level < 1 or (delta is not None and not 0 < delta < 1):
        raise InputError(f"calibrate: expected a level and a delta between 0 and 1, got {level} and {delta}")
    _check_count(len(images), level, delta)
    prior = scan_prior(config.prior) if config.is_scan else load_prior(config.prior)
    cases = _cases(config, prior, images, checkpoint, on_image)
    half, rest = cases[::2], cases[1::2]
    factor = conformal_factor([case["ratio"].numpy() for case in half], level, delta)
    rows = [case["features"] for case in half if "features" in case]
    reference = Reference.fit(torch.stack(rows)) if len(rows) >= FEWEST else None
    return Calibration(task=config.task, operator=config.operator, sigma_y=float(config.sigma_y or 0), sampler=config.sampler,
                       samples=config.samples, prior=_name(config.prior), weights=fingerprint(prior),
                       precision=config.precision, images=f"every other of {images.source}", count=len(half), level=level,
                       factor=factor, delta=delta, antithetic=in_pairs(config),
                       check=_check(rest, factor, config, reference),
                       novelty=reference.to_dict() if reference else None, versions=versions())


def _check_count(images: int, level: float, delta: float | None) -> None:
    """Raises InputError if half of so many images are too few for the guarantee, before any is restored."""
    try:
        conformal_factor([np.zeros(1)] * len(range(0, images, 2)), level, delta)
    except ValueError as error:
        raise InputError(f"calibrate: {error}, every other of {images}") from error


def check_unlike(images: Known) -> None:
    """Raises InputError if these images, once restored, are too few to learn what is usual, as `detected` has to know."""
    if len(range(0, len(images), 2)) < FEWEST:
        raise InputError(f"--unlike: expected at least {2 * FEWEST} images, from which to learn what is usual, got "
                         f"{len(images)}")


def _name(prior: str) -> str:
    """Without the folder of its file, and with its options."""
    where, mark, options = prior.partition("?")
    return Path(where).name + mark + options


def detected(record: Calibration, config: RunConfig, images: Known,
             on_image: Callable[[int, int], object] = lambda done, of: None) -> float:
    """The share of images of another kind that are called unusual, restored as the config says, a sample of each.

    Raises InputError if the record does not know what is usual.
    """
    reference = reference_of(record)
    if reference is None:
        raise InputError("calibrate: too few images were restored to learn what is usual; expected at least "
                         f"{2 * FEWEST} of them")
    prior = scan_prior(config.prior) if config.is_scan else load_prior(config.prior)
    cases = _cases(config.model_copy(update={"samples": 1}), prior, images, None, on_image)
    return float(np.mean([reference.judge(case["features"]).unusual for case in cases]))


def _cases(config: RunConfig, prior: Denoiser, images: Known, checkpoint: str | Path | None,
           on_image: Callable[[int, int], object]) -> list[Case]:
    """The restored images. Of each: ratio, plain, error and spread (P,) at its pixels, where plain is the ratio to a spread
    that is not pooled; ranks of its patches; features."""
    identity = {"run": config.model_dump(mode="json", exclude={"device", "batch_size", "calibration"}), "images": images.source,
                "prior": fingerprint(prior), "versions": versions()}
    kept = None if checkpoint is None else PartialRun(checkpoint, identity, {"images": _some(images)})
    cases = [case for case, _ in kept.parts()] if kept is not None else []
    make = _slice_cases if images.slices else _photo_cases
    on_image(len(cases), len(images))
    for case in make(config, prior, images, len(cases)):
        cases.append(case)
        if kept is not None:
            kept.add(case, {})
        on_image(len(cases), len(images))
    return cases


def _some(images: Known) -> Tensor:
    """Three of the images, which tell them from others of the same name."""
    chosen = (0, len(images) // 2, len(images) - 1)
    if images.slices is None:
        return torch.stack([images.crops[i] for i in chosen])
    return torch.stack([torch.view_as_real(images.slices.read(i).to(torch.complex64)) for i in chosen])


def _photo_cases(config: RunConfig, prior: Denoiser, images: Known, first: int) -> Iterator[Case]:
    where = find_device(config.device)
    for number in range(first, len(images)):
        truth = images.crops[number][None]
        problem = pose_truth(config, truth, stream_seed(config.seed, number, 0))
        result = restore(problem, prior, build_sampler(config.sampler), samples=config.samples, antithetic=config.antithetic,
                         seed=stream_seed(config.seed, number, 1), device=config.device, batch_size=config.batch_size,
                         precision=config.precision)
        looked = appraise(problem.to(where), prior, result.samples, look=True, probes=0).features
        centre, spread = _centre_and_spread(result.samples[0])
        other = images.crops[number - 1]                                            # a reference point for the distances
        yield _case(centre, spread, truth[0], _std(result.samples[0]), _independent(result.samples[0], config), other, looked)


def _slice_cases(config: RunConfig, prior: Denoiser, images: Known, first: int) -> Iterator[Case]:
    assert images.slices
    settings = ScanSettings(**{key: value for key, value in config.operator.items() if key != "name"})
    scan = simulated_scan(images.slices, settings.coils, float(config.sigma_y or 0), config.seed)
    if scan.noise is None:
        settings = settings.model_copy(update={"noise": "none"})
    recipe = Recipe(settings, prior, build_sampler(config.sampler), config.samples, config.seed, device=config.device,
                    batch_size=config.batch_size, precision=config.precision, antithetic=config.antithetic, look=True)
    for number in range(first, scan.slices):
        slices = Slices(None, {})
        restore_slices(scan, [number], recipe, slices)
        tensors = next(iter(slices))[0]
        truth, samples = tensors["truth"], mri.combine_sets(tensors["samples"])
        centre, spread = magnitudes(tensors["samples"])
        head = torch.from_numpy(head_mask(truth[None])[0])
        other = images.slices.read((number + scan.slices // 2) % scan.slices).abs()         # neighbours are of the same head
        yield _case(centre[None], spread[None], truth[None], _std(samples), _independent(samples, config), other[None],
                    tensors.get("features"), head)


def _independent(samples: Tensor, config: RunConfig) -> Tensor:
    """The first of each pair, if neighbours are antithetic."""
    return samples[::2] if in_pairs(config) else samples


def _centre_and_spread(samples: Tensor) -> tuple[Tensor, Tensor]:
    return centre_and_spread(samples) if len(samples) > 1 else (samples[0], torch.zeros_like(samples[0]))


def _std(samples: Tensor) -> Tensor:
    """The samples' standard deviation (C, H, W), not pooled; zero of a single one."""
    return sample_variance(samples, 0).sqrt() if len(samples) > 1 else torch.zeros_like(samples[0])


def _case(centre: Tensor, spread: Tensor, truth: Tensor, std: Tensor, samples: Tensor, other: Tensor,
          features: Tensor | None, mask: Tensor | None = None) -> Case:
    """centre, spread, truth, std, other (C, H, W); samples (S, C, H, W), independent; mask (H, W): the pixels that count."""
    inside = torch.ones(truth.shape[-2:], dtype=torch.bool) if mask is None else mask
    error, spread, std = (x[:, inside].flatten() for x in ((truth - centre).abs(), spread, std))
    patches = tarp_ranks(_patches(samples), _patches(truth[None])[:, 0], _patches(other[None])[:, 0])
    whole = _patches(inside[None, None].float())[:, 0].mean(1) == 1                  # patches of the head alone
    return {"ratio": error / spread.clamp_min(1e-12), "plain": error / std.clamp_min(1e-12), "error": error, "spread": spread,
            "ranks": patches[whole], **({} if features is None else {"features": features})}


def _patches(x: Tensor) -> Tensor:
    """(S, C, H, W) in patches, (patches, S, values)."""
    size = min(PATCH, *x.shape[-2:])
    return torch.nn.functional.unfold(x.float(), size, stride=size).permute(2, 0, 1)


def _check(cases: Sequence[Case], factor: float, config: RunConfig, reference: Reference | None) -> dict[str, Any]:
    """What is seen on images kept apart: coverage in the mean and its standard error; mean half-width (sharpness) and error;
    how well spread ranks error; curves of coverage by level, without the factor, of pixels and of patches (TARP); alarms."""
    ratios, plain = ([case[name].numpy() for case in cases] for name in ("ratio", "plain"))
    paired = in_pairs(config)
    independent = (config.samples + 1) // 2 if paired else config.samples
    shares = np.array(coverage(ratios, factor))
    ranks = [float(spearmanr(case["error"], case["spread"]).statistic) for case in cases]
    found = {
        "images": len(cases), "covered": float(shares.mean()),
        "standard_error": float(shares.std(ddof=1) / len(shares) ** 0.5) if len(shares) > 1 else None,
        "half_width": factor * float(np.mean([case["spread"].mean() for case in cases])),
        "error": float(np.mean([case["error"].mean() for case in cases])), "spearman": float(np.mean(ranks)),
        "levels": list(LEVELS), "uncalibrated": coverage_curve(plain, config.samples, LEVELS, paired),
        "tarp": expected_coverage(torch.cat([case["ranks"] for case in cases]), independent, LEVELS),
    }
    rows = [case["features"] for case in cases if "features" in case]
    if reference and rows:
        found["alarms"] = float(np.mean([reference.judge(row).unusual for row in rows]))
    return found
