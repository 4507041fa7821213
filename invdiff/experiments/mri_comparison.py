"""The prior `brain` and baselines on the same slices: `python -m invdiff.experiments.mri_comparison --images slices.h5`.

Complex denoising beside BM3D of the magnitude, and multi-coil reconstruction of undersampled k-space beside tuned
l1-wavelet. Writes a Markdown table, and beside it what was measured as JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

import operators
from invdiff.baselines.mri import baseline, tuned
from invdiff.config import build_sampler
from invdiff.datasets.complex_images import load_complex, to_channels
from invdiff.experiments.running import show
from invdiff.io.files import make_folder, write_text
from invdiff.io.markdown import table
from invdiff.machine import find_device, hardware, versions
from invdiff.mri.scan_prior import ScanPrior
from invdiff.priors import EDMDenoiser, load_prior
from invdiff.resolving import run_config
from invdiff.restoration import restore
from invdiff.simulation import simulate
from operators.mri import sampling

LEVELS = (0.05, 0.1)                # of complex noise, per real channel; the brightest pixel is 1
MASKS = {
    "lines 4×": lambda size: sampling.random_lines(size, 4, center_fraction=0.08, seed=0),
    "lines 8×": lambda size: sampling.random_lines(size, 8, center_fraction=0.04, seed=0),
    "points 4×": lambda size: sampling.gaussian_points(size, 4, calib=size[0] // 10, seed=0),
    "points 8×": lambda size: sampling.gaussian_points(size, 8, calib=size[0] // 10, seed=0),
}


def magnitude(x: Tensor) -> Tensor:
    """(B, H, W) of complex images (B, 2, H, W)."""
    return operators.mri.combine_sets(x)[:, 0]


def psnr(estimate: Tensor, truth: Tensor) -> float:
    """Mean over slices in dB, of magnitudes (B, H, W) whose peak is 1."""
    return round(float((-10 * (estimate - truth).square().mean((1, 2)).log10()).mean()), 3)


@torch.no_grad()
def denoising(prior: EDMDenoiser, images: Tensor, sigma: float) -> dict:
    """PSNR of magnitudes: noisy, by BM3D (Dabov et al. 2007) where it is installed, and by the prior, complex."""
    generator = torch.Generator().manual_seed(0)
    noisy = images + sigma * torch.randn(images.shape, generator=generator)
    truth, scores = magnitude(images), {"noisy": psnr(magnitude(noisy), magnitude(images))}
    try:
        from bm3d import bm3d
    except ImportError:
        pass
    else:
        smooth = np.stack([bm3d(item, sigma) for item in magnitude(noisy).numpy()])
        parts = np.stack([[bm3d(part, sigma) for part in item] for item in noisy.numpy()])
        scores |= {"BM3D of the magnitude": psnr(torch.from_numpy(smooth), truth),
                   "BM3D of both parts": psnr(magnitude(torch.from_numpy(parts)), truth)}
    estimate = torch.cat([prior(item[None], sigma) for item in noisy])
    return scores | {"brain": psnr(magnitude(estimate), truth)}


def reconstruction(prior: EDMDenoiser, images: Tensor, mask: Tensor, options: argparse.Namespace) -> dict:
    """PSNR of magnitudes: zero-filled, CG-SENSE, tuned l1-wavelet, one sample and means of samples of MomentMatching."""
    maps = operators.mri.birdcage_maps(tuple(images.shape[-2:]), options.coils)
    physics = operators.MultiCoilMRI(mask, maps)
    problem, truth = simulate(physics, images, options.sigma_y, seed=0), magnitude(images)

    def score(x: Tensor) -> float:
        return psnr(magnitude(x), truth)

    sense, _ = tuned("sense", problem, score)
    wavelet, weight = tuned("l1_wavelet", problem, score)
    result = restore(problem, ScanPrior(prior, torch.ones_like(images[:1])),
                     build_sampler(run_config("mri").sampler | {"steps": options.steps}), samples=options.samples, seed=0,
                     device=options.device, precision=options.precision, antithetic=True)
    return {"zero-filled": score(baseline("zero_filled", problem)),
            "CG-SENSE, tuned": score(sense),
            "l1-wavelet, tuned": score(wavelet), "weight": weight,
            "one sample": score(result.samples[:, 0]),
            f"mean of {options.samples}": score(result.mean),
            "residual": round(result.report["residual"]["value"], 3)}


def measure(options: argparse.Namespace, say: Console) -> dict:
    slices = load_complex(options.images, options.key)
    chosen = np.linspace(0, len(slices) - 1, options.count).round().astype(int)     # from all through the volume
    images = torch.stack([to_channels(slices[i]) for i in chosen])
    prior = load_prior(options.prior)
    made = {"images": f"{Path(options.images).name} ({options.key}), slices {', '.join(map(str, chosen))}",
            "prior": prior.card.get("name", "unnamed"), "sigma_y": options.sigma_y, "coils": options.coils,
            "steps": options.steps, "samples": options.samples, "precision": options.precision,
            "hardware": hardware(find_device(options.device)), "versions": versions()}
    record: dict = {"made": made, "denoising": {}, "reconstruction": {}}
    for sigma in LEVELS:
        record["denoising"][f"σ = {sigma}"] = scores = denoising(prior, images, sigma)
        say.print(f"denoising at {sigma}: {scores}", highlight=False)
    for name, mask in MASKS.items():
        scores = reconstruction(prior, images, mask(tuple(images.shape[-2:])), options)
        record["reconstruction"][name] = scores
        say.print(f"{name}: {scores}", highlight=False)
    return record


def to_markdown(record: dict) -> str:
    made = record["made"]
    lines = ["# The prior `brain` and baselines", "",
             "Written by `python -m invdiff.experiments.mri_comparison`. PSNR in dB of the magnitude, means over slices; the "
             "brightest pixel of a slice is 1.", "",
             f"- Slices: {made['images']}. Multi-coil k-space is simulated with {made['coils']} birdcage coils and noise of "
             f"standard deviation {made['sigma_y']} a real channel.",
             "- Lines are random columns (8 % or 4 % of them in the centre), points are drawn with Gaussian density around a "
             "fully sampled centre a tenth of the image wide.",
             "- l1-wavelet and CG-SENSE are those of `invdiff.baselines.mri`, their weights searched for with the "
             "truth in hand, one for all slices of a column.",
             f"- Samples: prior {made['prior']}, MomentMatching as the task `mri` has it, {made['steps']} steps, "
             f"{made['precision']}; on {made['hardware']}.",
             f"- Versions: {', '.join(f'{name} {version}' for name, version in made['versions'].items())}."]
    for title, kind in (("Denoising", "denoising"), ("Reconstruction", "reconstruction")):
        columns = record[kind]
        methods = list(dict.fromkeys(name for scores in columns.values() for name in scores))
        rows = [[m, *(f"{c[m]:.6g}" if m in c else "" for c in columns.values())] for m in methods]
        lines += ["", f"## {title}", "", *table(["", *columns], rows)]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 when done, 2 where the input is at fault."""
    parser = argparse.ArgumentParser(prog="python -m invdiff.experiments.mri_comparison",
                                     description="The prior `brain` and baselines on the same slices.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--images", required=True, help="an HDF5 file with a dataset of complex slices (N, 2, H, W)")
    add("--key", default="test", help="the dataset")
    add("--count", type=int, default=8, help="slices, from all through the dataset")
    add("--prior", default="brain", help="a shipped prior's name, or the path of a .safetensors file")
    add("--coils", type=int, default=8)
    add("--steps", type=int, default=30)
    add("--samples", type=int, default=8, help="posterior samples of each slice")
    add("--sigma-y", type=float, default=0.01, help="noise of k-space, per real channel")
    add("--precision", default="bf16", choices=("fp32", "bf16"), help="of the network")
    add("--device", default="auto")
    add("--output", type=Path, default=Path("comparison-mri.md"), help="the table; the record is beside it, as .json")
    options = parser.parse_args(arguments)
    return show(lambda: _run(options))


def _run(options: argparse.Namespace) -> str:
    make_folder(options.output.parent)
    record = measure(options, Console())
    page = to_markdown(record)
    write_text(options.output.with_suffix(".json"), json.dumps(record, indent=1))
    write_text(options.output, page)
    return page


if __name__ == "__main__":
    sys.exit(main())
