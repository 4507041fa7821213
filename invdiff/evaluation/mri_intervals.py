"""Intervals that cover what they say: `python -m invdiff.evaluation.mri_intervals --images slices.h5 --prior FILE`.

On held-back training slices, with simulated coils and masks, the factor on the samples' standard deviation is found that
covers 90 % of the pixels in the head (split conformal prediction, Vovk et al. 2005). On the test slices the coverage is then
counted, and how well the standard deviation ranks the error. With --write the factor is stored on the card of --prior's file.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy.stats import spearmanr
from torch import Tensor

import operators
from invdiff.errors import InputError
from invdiff.evaluation.mri_metrics import head_mask
from invdiff.io.files import replacing
from invdiff.mri.uncertainty import LEVEL, magnitudes
from invdiff.posterior import MomentMatching
from invdiff.priors import EDMDenoiser, load_prior
from invdiff.priors.checkpoint import save_prior
from invdiff.problem import simulate
from invdiff.restoration import restore, versions
from invdiff.training.complex_data import load_complex, to_channels
from operators.mri import sampling

MASKS = {"random 4×": {"acceleration": 4, "center_fraction": 24 / 256},
         "random 8×": {"acceleration": 8, "center_fraction": 16 / 256}}


def ratios(prior: EDMDenoiser, image: Tensor, mask: Tensor, options: argparse.Namespace) -> tuple[np.ndarray, float]:
    """|error| / std at the pixels of the head, and the rank correlation of the two, for a slice (2, H, W) seen by coils."""
    maps = operators.mri.birdcage_maps(tuple(image.shape[-2:]), options.coils)
    problem = simulate(operators.MultiCoilMRI(mask, maps), image[None], options.sigma_y, seed=0)
    result = restore(problem, prior, MomentMatching(num_steps=options.steps), samples=options.samples, seed=0,
                     device=options.device, precision=options.precision)
    magnitude, deviation = magnitudes(result.samples[0])
    truth = operators.mri.combine_sets(image[None])[0, 0]
    head = head_mask(truth[None])[0]
    error, spread = (magnitude - truth).abs().numpy()[head], deviation.numpy()[head]
    return error / np.maximum(spread, 1e-6), float(spearmanr(error, spread).statistic)


def measure(options: argparse.Namespace, say: Console) -> dict[str, Any]:
    prior = load_prior(options.prior)
    record: dict[str, Any] = {"made": {"samples": options.samples, "steps": options.steps, "coils": options.coils,
                                       "sigma_y": options.sigma_y, "versions": versions()}, "coverage": {}}
    slices, test = load_complex(options.images, options.key), load_complex(options.images, options.test)
    held = [slices[i] for i in _spread(max(len(slices) - options.holdout, 0), len(slices), options.count)]
    found = []
    for mask in MASKS.values():
        for item in held:
            image = to_channels(item)
            found.append(ratios(prior, image, sampling.random_lines(tuple(image.shape[-2:]), seed=0, **mask), options)[0])
    pooled = np.concatenate(found)
    factor = float(np.quantile(pooled, LEVEL))
    record["factor"] = round(factor, 3)
    say.print(f"factor {factor:.3f} from {len(held)} slices", highlight=False)
    for name, mask in MASKS.items():
        covered, ranks = [], []
        for i in _spread(0, len(test), options.count):
            image = to_channels(test[i])
            ratio, rank = ratios(prior, image, sampling.random_lines(tuple(image.shape[-2:]), seed=1, **mask), options)
            covered.append(float((ratio <= factor).mean()))
            ranks.append(rank)
        record["coverage"][name] = {"covered": round(float(np.mean(covered)), 4), "spearman": round(float(np.mean(ranks)), 3),
                                    "slices": len(covered)}
        say.print(f"{name}: {record['coverage'][name]}", highlight=False)
    return record


def _spread(first: int, end: int, count: int) -> list[int]:
    """`count` of the numbers from `first` to `end`, evenly."""
    return np.linspace(first, end - 1, min(count, end - first)).round().astype(int).tolist()


def check(options: argparse.Namespace) -> None:
    """Raises InputError for options that would fail only at the end."""
    if options.count < 1:
        raise InputError(f"--count: expected at least one slice, got {options.count}")
    if options.write and not (Path(options.prior).suffix == ".safetensors" and Path(options.prior).is_file()):
        raise InputError(f"{options.prior}: --write wants the .safetensors file of a prior")


def write_card(path: str, record: dict[str, Any], options: argparse.Namespace) -> None:
    """Store the factor on the card of a prior's file."""
    prior = load_prior(path)
    assert isinstance(prior, EDMDenoiser)
    source = (f"measured on {options.count} held-back training slices, {options.coils} simulated coils, "
              f"{' and '.join(MASKS)}, {options.samples} samples")
    interval = {"level": LEVEL, "factor": record["factor"], "samples": options.samples, "source": source}
    card = {**prior.card, "interval": interval}
    save_prior(path, prior, card)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure factor and coverage; 0 when done, 2 where the input is at fault."""
    parser = argparse.ArgumentParser(prog="python -m invdiff.evaluation.mri_intervals", description="Intervals and coverage.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--images", required=True, help="an HDF5 file with datasets of complex slices (N, 2, H, W)")
    add("--key", default="train", help="the dataset whose last slices were held back in training")
    add("--holdout", type=int, default=24, help="how many were")
    add("--test", default="test", help="the dataset to count the coverage on")
    add("--count", type=int, default=6, help="slices of each")
    add("--prior", default="brain", help="a shipped prior's name, or the path of a .safetensors file")
    add("--write", action="store_true", help="store the factor on the prior's card")
    add("--coils", type=int, default=8)
    add("--steps", type=int, default=30)
    add("--samples", type=int, default=8)
    add("--sigma-y", type=float, default=0.01)
    add("--precision", default="bf16", choices=("fp32", "bf16"))
    add("--device", default="auto")
    add("--output", type=Path, default=Path("intervals.json"))
    options = parser.parse_args(arguments)
    try:
        check(options)
        record = measure(options, Console())
        with replacing(options.output) as temporary:
            temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
        if options.write:
            write_card(options.prior, record, options)
    except InputError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
