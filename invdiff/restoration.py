"""restore(): what the command line, the app, the benchmark and the tests all call."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.diffusion.integrators import Step
from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import InputError
from invdiff.io.results import output_folder, save_arrays, write_json
from invdiff.posterior import Sampler
from invdiff.posterior.covariance import spectrum_for
from invdiff.problem import Problem


@dataclass(frozen=True)
class Progress:
    """A step of a run: `done` of `total` steps over all chunks of samples, and the step itself."""

    done: int
    total: int
    step: Step


@dataclass(frozen=True)
class Result:
    """Posterior samples of B measurements.

    Attributes:
        samples: (B, S, C, H, W), on the CPU, in image units, not clipped.
        measurement: y (B, ...).
        report: plain dict: seconds, network and operator calls a sample, residual, sampler, seed, versions.
    """

    samples: Tensor
    measurement: Tensor
    report: dict[str, Any]

    @property
    def mean(self) -> Tensor:
        """(B, C, H, W)."""
        return self.samples.mean(1)

    @property
    def std(self) -> Tensor:
        """Pixelwise over samples, (B, C, H, W); zero where there is one sample."""
        return self.samples.std(1, correction=1) if self.samples.shape[1] > 1 else torch.zeros_like(self.mean)

    def save(self, path: str | Path) -> None:
        """Write result.h5 and report.json into the folder `path`, whole or not at all. Raises InputError."""
        with output_folder(path) as folder:
            self.write_into(folder)

    def write_into(self, folder: Path) -> None:
        """The files of `save`, into a folder that exists."""
        save_arrays(folder / "result.h5", samples=self.samples, mean=self.mean, std=self.std, measurement=self.measurement)
        write_json(folder / "report.json", self.report)


class _Counted(Denoiser):
    """A prior that counts the images it is asked to denoise, under a precision, and answers for its spectrum."""

    def __init__(self, prior: Denoiser, precision: str, device: torch.device):
        super().__init__()
        self.prior, self.precision, self.kind, self.calls = prior, precision, device.type, 0

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        self.calls += len(x)
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.prior(x, sigma).to(x.dtype)

    def error_spectrum(self, channels: int) -> Any:
        measured = getattr(self.prior, "error_spectrum", None)
        return measured(channels) if measured else None


def restore(problem: Problem, prior: Denoiser, sampler: Sampler, *, samples: int = 1, seed: int = 0,
            device: str = "auto", batch_size: int | None = None, precision: str = "fp32",
            on_step: Callable[[Progress], object] | None = None) -> Result:
    """Draw posterior samples of every measurement of a problem.

    Args:
        problem: operator, measurements y (B, ...), noise level.
        prior: any deepinv Denoiser.
        sampler: one of `invdiff.posterior`.
        samples: S, samples of each measurement.
        seed: integer >= 0. Sample i of measurement j depends on (seed, j, i) and on nothing beside it.
        device: "auto", "cpu", "cuda", ...
        batch_size: chains run together; None chooses one on a CPU (where more gain nothing) and eight elsewhere.
        precision: "fp32" or "bf16", for the network.
        on_step: called after each step; an exception it raises ends the run.

    Raises:
        InputError: samples, seed, batch_size, precision or device out of range.
        ValueError: the sampler cannot use this operator.
    """
    if samples < 1 or seed < 0 or precision not in ("fp32", "bf16") or (batch_size is not None and batch_size < 1):
        raise InputError(f"restore: expected samples >= 1, seed >= 0, batch_size >= 1 and precision fp32 or bf16, got "
                         f"samples={samples}, seed={seed}, batch_size={batch_size}, precision={precision!r}")
    where = find_device(device)
    problem, counted = problem.to(where), _Counted(prior.to(where), precision, where)
    chunks = _chunks(problem, samples, batch_size or (1 if where.type == "cpu" else 8))
    total, done = sampler.num_steps * len(chunks), 0
    rows: dict[tuple[int, int], Tensor] = {}
    start, before = time.perf_counter(), problem.calls.operator
    for chunk in chunks:
        part = problem.rows(torch.tensor([j for j, _ in chunk], device=where))
        seeds = [stream_seed(seed, j, i) for j, i in chunk]
        for step in sampler.steps(counted, part, seeds):
            done += 1
            if on_step:
                on_step(Progress(done, total, step))
        rows |= {chain: x0.cpu() for chain, x0 in zip(chunk, step.x0, strict=True)}
    drawn = torch.stack([torch.stack([rows[j, i] for i in range(samples)]) for j in range(len(problem.y))])
    chains = len(rows)
    report = {"sampler": {"name": type(sampler).__name__, **sampler.model_dump(by_alias=True)}, "seed": seed,
              "samples": samples, "seconds": round(time.perf_counter() - start, 3),
              "network_calls": counted.calls / chains, "operator_calls": (problem.calls.operator - before) / chains,
              "residual": residual(problem, drawn), "device": str(where), "precision": precision,
              "versions": versions()}
    if sampler.uses_spectrum:
        report["error_spectrum"] = spectrum_for(counted, problem).source
    return Result(drawn, problem.y.cpu(), report)


def find_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA or Apple's GPU where there is one. Raises InputError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {name!r} is not available on this machine; cpu is, and auto picks the best") from error
    return torch.device(name)


@torch.no_grad()
def residual(problem: Problem, samples: Tensor) -> dict[str, float]:
    """Root mean square of (y - A x) over what was measured, in units of sigma_y (or of y where that is zero)."""
    observed = problem.observed()
    total = 0.0
    for i in range(samples.shape[1]):
        difference = (problem.y - problem.physics.A(samples[:, i].to(problem.y.device))) * observed
        total += float(difference.square().sum())
    rms = (total / max(int(observed.sum()) * samples.shape[1], 1)) ** 0.5
    return {"value": rms / (problem.sigma_y or 1.0), "expected": 1.0 if problem.sigma_y else 0.0}


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("invdiff", "torch", "deepinv")}


def _chunks(problem: Problem, samples: int, size: int) -> list[list[tuple[int, int]]]:
    """Chains (measurement, sample) to run together. An operator with parameters of its own for each measurement keeps
    the measurements together, in order."""
    count = len(problem.y)
    if count > 1 and any(b.ndim >= 4 and b.shape[0] == count for b in problem.physics.buffers()):
        return [[(j, i) for j in range(count)] for i in range(samples)]
    chains = [(j, i) for j in range(count) for i in range(samples)]
    return [chains[k : k + size] for k in range(0, len(chains), size)]
