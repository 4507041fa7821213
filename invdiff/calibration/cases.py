"""Known images, restored, and what is kept of each."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.calibration.known import Known
from invdiff.calibration.record import in_pairs
from invdiff.calibration.varying import Law, drawn, with_settings
from invdiff.config import RunConfig, build_sampler
from invdiff.diffusion.randomness import sample_variance, stream_seed
from invdiff.evaluation.intervals import centre_and_spread
from invdiff.evaluation.mri_metrics import head_mask
from invdiff.evaluation.ranks import tarp_ranks
from invdiff.io.partial import PartialRun
from invdiff.machine import find_device, versions
from invdiff.mri.settings import ScanSettings
from invdiff.mri.simulating import simulated_scan
from invdiff.mri.uncertainty import magnitudes
from invdiff.mri.volume import Recipe, Slices, restore_slices
from invdiff.own_code import own_code
from invdiff.posing import in_blocks, pose_image
from invdiff.priors.facts import fingerprint
from invdiff.restoration import restore
from invdiff.trust import appraise
from operators import mri

PATCH = 16              # pixels; distances of patches rank more often than of images
Case = dict[str, Tensor]
Summary = Callable[[Tensor], tuple[Tensor, Tensor]]      # samples (S, ...) to centre and spread (C, H, W)


def restored(config: RunConfig, prior: Denoiser, images: Known, checkpoint: str | Path | None,
             on_image: Callable[[int, int], object], law: Law) -> list[Case]:
    """The restored images, each with settings of the law. Of each: ratio, plain, error and spread (P,) at its pixels, where
    plain is the ratio to a spread that is not pooled, and "ratio of 2" and so on are those of the first samples alone; ranks of
    its patches; features."""
    identity = {"run": config.model_dump(mode="json", exclude={"device", "batch_size", "calibration"}), "images": images.source,
                "prior": fingerprint(prior), "versions": versions(),
                "varied": {key: what.model_dump() for key, what in law.items()}, **own_code(config.operator, config.sampler)}
    kept = None if checkpoint is None else PartialRun(checkpoint, identity, {"images": images.some()})
    cases = [case for case, _ in kept.parts()] if kept is not None else []
    first = len(cases)
    make = _slice_cases(config, prior, images, first) if images.slices else _photo_cases(config, prior, images, first, law)
    on_image(first, len(images))
    for case in make:
        cases.append(case)
        if kept is not None:
            kept.add(case, {})
        on_image(len(cases), len(images))
    return cases


def _photo_cases(config: RunConfig, prior: Denoiser, images: Known, first: int, law: Law) -> Iterator[Case]:
    """Of a measurement of the inner part of an image, that part counts, as it does for a measurement in a file."""
    where = find_device(config.device)
    for number in range(first, len(images)):
        mine = with_settings(config, drawn(config, law, number))
        posed = pose_image(mine, images.crops[number][None], stream_seed(config.seed, number, 0), within=True)
        result = restore(posed.problem, prior, build_sampler(mine.sampler), samples=config.samples,
                         antithetic=config.antithetic, seed=stream_seed(config.seed, number, 1), device=config.device,
                         batch_size=config.batch_size, precision=config.precision)
        looked = appraise(posed.problem.to(where), prior, result.samples, look=True, probes=0).features
        samples = posed.inner(result.samples[0])
        truth, other = (posed.inner(in_blocks(images.crops[i], mine.operator)) for i in (number, number - 1))
        yield _case(_centre_and_spread, samples, truth, _std(samples), _independent(samples, config), other, looked)


def _slice_cases(config: RunConfig, prior: Denoiser, images: Known, first: int) -> Iterator[Case]:
    assert images.slices
    settings = ScanSettings.of(config.operator)
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
        head = torch.from_numpy(head_mask(truth[None])[0])
        other = images.slices.read((number + scan.slices // 2) % scan.slices).abs()         # neighbours are of the same head
        yield _case(_magnitudes, tensors["samples"], truth[None], _std(samples), _independent(samples, config), other[None],
                    tensors.get("features"), head)


def _independent(samples: Tensor, config: RunConfig) -> Tensor:
    """The first of each pair, if neighbours are antithetic."""
    return samples[::2] if in_pairs(config) else samples


def _centre_and_spread(samples: Tensor) -> tuple[Tensor, Tensor]:
    return centre_and_spread(samples) if len(samples) > 1 else (samples[0], torch.zeros_like(samples[0]))


def _magnitudes(samples: Tensor) -> tuple[Tensor, Tensor]:
    centre, spread = magnitudes(samples)
    return centre[None], spread[None]


def fewer_than(samples: int) -> list[int]:
    """Numbers of samples for which a factor is found besides: 2, 4, 8, ..."""
    return [2**k for k in range(1, samples.bit_length()) if 2**k < samples]


def _std(samples: Tensor) -> Tensor:
    """The samples' standard deviation (C, H, W), not pooled; zero of a single one."""
    return sample_variance(samples, 0).sqrt() if len(samples) > 1 else torch.zeros_like(samples[0])


def _case(summary: Summary, drawn: Tensor, truth: Tensor, std: Tensor, samples: Tensor, other: Tensor,
          features: Tensor | None, mask: Tensor | None = None) -> Case:
    """drawn (S, ...), of which `summary` is; truth, std, other (C, H, W); samples (S, C, H, W), independent; mask (H, W): the
    pixels that count."""
    inside = torch.ones(truth.shape[-2:], dtype=torch.bool) if mask is None else mask

    def compared(count: int) -> tuple[Tensor, Tensor]:
        centre, spread = summary(drawn[:count])
        return (truth - centre).abs()[:, inside].flatten(), spread[:, inside].flatten().clamp_min(1e-12)

    error, spread = compared(len(drawn))
    fewer = {f"ratio of {count}": torch.div(*compared(count)) for count in fewer_than(len(drawn))}
    patches = tarp_ranks(_patches(samples), _patches(truth[None])[:, 0], _patches(other[None])[:, 0])
    whole = _patches(inside[None, None].float())[:, 0].mean(1) == 1                  # patches of the head alone
    plain = error / std[:, inside].flatten().clamp_min(1e-12)
    return {"ratio": error / spread, "plain": plain, "error": error, "spread": spread, "ranks": patches[whole], **fewer,
            **({} if features is None else {"features": features})}


def _patches(x: Tensor) -> Tensor:
    """(S, C, H, W) in patches, (patches, S, values)."""
    size = min(PATCH, *x.shape[-2:])
    return torch.nn.functional.unfold(x.float(), size, stride=size).permute(2, 0, 1)
