"""What operators cost, ours beside deepinv's and SigPy's: `python -m invdiff.experiments.operator_costs`.

Writes docs/operator-costs.md. An implementation that is not installed is left out.
"""

import argparse
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import deepinv.physics as dinv
import numpy as np
import torch
from deepinv.physics.blur import bicubic_filter
from torch import Tensor

import operators
from invdiff.evaluation.costs import OPERATIONS, OURS, Calls, Case, Cost, calls_of, measure
from invdiff.io.files import write_text
from invdiff.io.markdown import table
from invdiff.machine import hardware, versions
from operators.mri import sampling

Make = Callable[[], Calls]
PHOTO = (3, 256, 256)


def cases() -> Iterator[Case]:
    """All of them; an implementation that is not installed is left out."""
    for case in (*_photo_cases(), *_mri_cases(), *_noncartesian_cases(), _espirit_case()):
        yield Case(case.name, {by: make for by, make in case.make.items() if by != "SigPy" or find_spec("sigpy")})


def _physics(make: Callable[[], dinv.LinearPhysics]) -> Make:
    return lambda: calls_of(make())


def _theirs(make: Callable[[], dinv.LinearPhysics], size: tuple[int, ...] = PHOTO) -> Make:
    """deepinv's operators do not all keep their image's size, or keep it without channels."""

    def calls() -> Calls:
        physics = make()
        physics.img_size = size
        return calls_of(physics)

    return calls


def _photo_cases() -> Iterator[Case]:
    yield from _blur_cases("Gaussian blur, 13 × 13", operators.gaussian_kernel(2.0))
    yield from _blur_cases("motion blur, 41 × 41", operators.motion_kernel(41, 0.5, 0))
    mask = operators.random_mask(PHOTO, 0.5, 0)
    yield Case("inpainting 50 %, 3 × 256²", {
        OURS: _physics(lambda: operators.Inpainting(PHOTO, mask)),
        "deepinv": _theirs(lambda: dinv.Inpainting(PHOTO, mask=mask.float()))})
    yield Case("super-resolution × 4, mean, 3 × 256²", {
        OURS: _physics(lambda: operators.SuperResolution(PHOTO, 4)),
        "deepinv": _theirs(lambda: dinv.Downsampling(PHOTO, filter=torch.full((1, 1, 4, 4), 1 / 16), factor=4))})
    yield Case("super-resolution × 4, bicubic, 3 × 256²", {
        OURS: _physics(lambda: operators.BicubicSuperResolution(PHOTO, 4)),
        "deepinv": _theirs(lambda: dinv.Downsampling(PHOTO, filter=bicubic_filter(4), factor=4))})
    yield Case("compressed sensing 25 %, Hadamard (theirs: sine transform, cropped), 3 × 256²", {
        OURS: _physics(lambda: operators.CompressedSensing(PHOTO, 0.25)),
        "deepinv StructuredRandom": _theirs(lambda: dinv.StructuredRandom(PHOTO, (3, 128, 128)))})


def _blur_cases(name: str, kernel: Tensor) -> Iterator[Case]:
    taps = kernel.float()[None, None]
    yield Case(f"{name}, circular, 3 × 256²", {
        OURS: _physics(lambda: operators.Blur(PHOTO, kernel)),
        "deepinv BlurFFT": _theirs(lambda: dinv.BlurFFT(PHOTO, filter=taps)),
        "deepinv Blur": _theirs(lambda: dinv.Blur(filter=taps, padding="circular"))})
    yield Case(f"{name}, replicate, 3 × 256²", {
        OURS: _physics(lambda: operators.blur(PHOTO, kernel, boundary="replicate")),
        "deepinv Blur": _theirs(lambda: dinv.Blur(filter=taps, padding="replicate"))})


@functools.cache
def _maps(coils: int, *size: int) -> Tensor:
    return operators.mri.birdcage_maps(size, coils)


def _sigpy(maps: Tensor, **sampling: np.ndarray) -> Make:
    def calls() -> Calls:
        import sigpy.mri

        sense = sigpy.mri.linop.Sense(maps.numpy(), **sampling)
        x = np.random.default_rng(0).standard_normal(sense.ishape).astype(np.complex64)
        y, adjoint, normal = sense * x, sense.H, sense.N
        return {"A": lambda: sense * x, "A_adjoint": lambda: adjoint * y, "A_adjoint_A": lambda: normal * x}

    return calls


def _mri_cases() -> Iterator[Case]:
    lines = sampling.random_lines((320, 320), 4)
    points = sampling.poisson_disc((320, 320), 8)
    yield Case("single-coil MRI, lines, 320²", {
        OURS: _physics(lambda: operators.MRI((2, 320, 320), lines)),
        "deepinv": _theirs(lambda: dinv.MRI(mask=lines.float(), img_size=(2, 320, 320)), (2, 320, 320))})
    for name, mask in (("lines", lines), ("Poisson disc", points)):
        yield _multicoil(f"multi-coil MRI, {name}, 320², 16 coils", mask, 16)
    volume = sampling.poisson_disc((256, 256), 8).expand(128, 256, 256)
    name = "multi-coil MRI, lines along the first axis, 128 × 256², 4 coils"
    yield _multicoil(name, volume, 4, prox=False)


def _multicoil(name: str, mask: Tensor, coils: int, prox: bool = True) -> Case:
    """prox: False leaves the proximal step out, which takes minutes on a volume."""
    size = (2, *mask.shape)

    def chosen(calls: Calls) -> Calls:
        return {name: call for name, call in calls.items() if prox or name != "prox_l2"}

    def ours() -> dinv.LinearPhysics:
        return operators.MultiCoilMRI(mask, _maps(coils, *mask.shape), img_size=size)

    def theirs() -> dinv.LinearPhysics:
        maps = _maps(coils, *mask.shape)
        return dinv.MultiCoilMRI(mask=mask.float(), coil_maps=maps, img_size=size, three_d=mask.ndim == 3)

    return Case(name, {
        OURS: lambda: chosen(calls_of(ours())),
        "deepinv": lambda: chosen(_theirs(theirs, size)()),
        "SigPy": lambda: _sigpy(_maps(coils, *mask.shape)[0], weights=mask.numpy().astype(np.float32))()})


def _noncartesian_cases() -> Iterator[Case]:
    if not find_spec("mrinufft"):
        return
    shots, samples = 400, 640
    trajectory = operators.mri.trajectories.radial((320, 320), shots, samples)
    points = trajectory.reshape(-1, 2)
    maps = _maps(8, 320, 320)

    def direct() -> Calls:
        """deepinv wraps mri-nufft, as we do; its normal operator is two NUFFTs."""
        physics = dinv.NonCartesianMRI(img_size=(320, 320), num_shots=shots, num_samples_per_shot=samples, coil_maps=maps)
        physics.img_size = (2, 320, 320)
        return calls_of(physics)

    yield Case(f"radial MRI, {shots} × {samples} samples, 320², 8 coils", {
        OURS: _physics(lambda: operators.NonCartesianMRI(trajectory, img_size=(320, 320), coil_maps=maps)),
        "deepinv": direct,
        "SigPy": _sigpy(maps[0], coord=points.numpy())})


def _espirit_case() -> Case:
    size, coils = (256, 256), 8
    disc = torch.linspace(-1, 1, size[0])[:, None] ** 2 + torch.linspace(-1, 1, size[1]) ** 2 < 0.7
    noise = torch.randn(1, coils, *size, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    kspace = operators.mri.fft(_maps(coils, *size) * disc, (-2, -1)) + 1e-3 * noise

    def sigpy_maps() -> Calls:
        import sigpy.mri.app

        data = kspace[0].numpy()
        return {"espirit": lambda: sigpy.mri.app.EspiritCalib(data, calib_width=24, show_pbar=False).run()}

    return Case(f"coil maps by ESPIRiT, 256², {coils} coils, 24 × 24 calibration", {
        OURS: lambda: {"espirit": lambda: operators.mri.espirit(kspace, calib=24)},
        "SigPy": sigpy_maps})


def to_markdown(results: Mapping[str, Mapping[str, Mapping[str, Cost]]], where: str, made: str) -> str:
    """A page: our times over the others', times, memory. where: the machine. made: the versions."""
    head = ["operator", "by", *OPERATIONS]
    times, memories, ratios = [], [], []
    for name, costs in results.items():
        others = [costs[by] for by in costs if by != OURS]
        best = {op: min((c[op].seconds for c in others if op in c), default=None) for op in OPERATIONS}
        for by, cost in costs.items():
            times.append([name, by, *(_milliseconds(cost.get(op)) for op in OPERATIONS)])
            memories.append([name, by, *(_megabytes(cost.get(op)) for op in OPERATIONS)])
        ratios.append([name, *(_ratio(costs[OURS].get(op), best[op]) for op in OPERATIONS)])
    return "\n".join([
        "# What operators cost", "",
        "Written by `python -m invdiff.experiments.operator_costs`: medians, batch 1, float32, the implementations taking "
        "turns in one run. SigPy has no proximal step of its own. Memory is what a call adds to the process at its peak, "
        "its result included; where nothing new was needed it is 0.", "",
        f"On {where}; {made}.", "",
        "## Our time over that of the fastest other", "", *table(["operator", *OPERATIONS], ratios), "",
        "## Milliseconds", "", *table(head, times, 2), "", "## Peak memory, MiB", "", *table(head, memories, 2), ""])


def _ratio(ours: Cost | None, other: float | None) -> str:
    return "" if ours is None or other is None else f"{ours.seconds / other:.2f}"


def _milliseconds(cost: Cost | None) -> str:
    return "" if cost is None else f"{1e3 * cost.seconds:.3g}"


def _megabytes(cost: Cost | None) -> str:
    return "" if cost is None else f"{cost.memory / 2**20:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/operator-costs.md"))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each operation of each implementation")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = {}
    for case in cases():
        if arguments.only in case.name:
            results[case.name] = measure(case, arguments.seconds)
            print(case.name, {by: [_milliseconds(c.get(op)) for op in OPERATIONS]      # noqa: T201
                              for by, c in results[case.name].items()}, flush=True)
    write_text(arguments.output, to_markdown(results, hardware(torch.device("cpu")), _versions()))


def _versions() -> str:
    found = versions() | {name: version(name) for name in ("sigpy", "mri-nufft", "finufft") if find_spec(name.replace("-", ""))}
    return ", ".join(f"{name} {number}" for name, number in found.items())


if __name__ == "__main__":
    main()
