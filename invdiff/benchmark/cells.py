"""One cell of a benchmark: a method with a prior on one image of one task. What it gave, and what it took."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.benchmark.estimates import NO_PRIOR, Cell, estimate_path, save_estimate
from invdiff.benchmark.methods import Method, NoPrior, make_method
from invdiff.benchmark.settings import BenchmarkConfig
from invdiff.config import build_operator
from invdiff.diffusion.randomness import sample_variance, stream_seed
from invdiff.errors import InputError, NoSample
from invdiff.evaluation.costs import with_peak_memory
from invdiff.evaluation.intervals import gaussian_factor, paired_factor
from invdiff.evaluation.metrics import METRICS
from invdiff.io.images import to_uint8
from invdiff.machine import find_device
from invdiff.priors import load_prior
from invdiff.priors.latent import latent_of
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.result import Result
from invdiff.simulation import simulate

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
FEWEST = 4              # samples whose spread says something
DONE, IMPOSSIBLE, FAILED = "done", "not possible", "failed"


@dataclass(frozen=True)
class Setup:
    """What all cells share: the config, the images (C, H, W), the metrics that can be computed, the folder that estimates are
    kept in, if they are, and the priors, loaded once."""

    config: BenchmarkConfig
    images: Sequence[Tensor]
    metrics: Sequence[str]
    keep: Path | None = None
    priors: dict[str, Denoiser] = field(default_factory=dict)
    warm: set[Denoiser] = field(default_factory=set)

    def problem(self, task: int, image: int) -> Problem:
        """The measurement, (1, ...). Its noise depends on the seed, the task and the image."""
        spec = self.config.full_tasks[task]
        truth = self.images[image][None]
        physics = build_operator(spec["operator"], truth.shape[1:])
        return simulate(physics, truth, spec["sigma_y"], stream_seed(self.config.seed, image, task))

    def prior(self, index: int | None) -> Denoiser:
        """A prior on the device."""
        name = NO_PRIOR if index is None else self.config.priors[index]
        if name not in self.priors:
            self.priors[name] = NoPrior() if index is None else load_prior(name).to(find_device(self.config.device))
        return self.priors[name]

    def warm_prior(self, index: int | None) -> Denoiser:
        """A prior on the device, after a first call, which takes longer than others: on an image of the prior's own channels,
        for whether it fits the benchmark's images is `restore`'s to say."""
        prior, where = self.prior(index), find_device(self.config.device)
        if prior not in self.warm and not latent_of(prior):
            x = self.images[0][None, : getattr(prior, "channels", 3)].to(where)
            with torch.no_grad(), torch.autocast(where.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                prior(x, 0.1)
        self.warm.add(prior)
        return prior

    def row(self, cell: Cell) -> dict[str, Any]:
        """What tells a row from the others."""
        task, method = self.config.full_tasks[cell.task], self.config.full_methods[cell.method]
        prior = NO_PRIOR if cell.prior is None else self.config.priors[cell.prior]
        return {"task": task["name"], "prior": prior, "method": method["label"], "image": cell.image + 1}


def cells(config: BenchmarkConfig) -> list[Cell]:
    """All of them, image by image within a method; a method without a prior has one row for all priors."""
    found = []
    for task in range(len(config.tasks)):
        for method, spec in enumerate(config.full_methods):
            priors: Sequence[int | None] = range(len(config.priors)) if make_method(spec).prior else [None]
            found += [Cell(task, prior, method, image) for prior in priors for image in range(config.count)]
    return found


def run_cell(setup: Setup, cell: Cell) -> tuple[dict[str, Any], np.ndarray | None]:
    """The row of a cell, and the estimate (H, W, 3) uint8, or None without one. What goes wrong is said in the row."""
    row = setup.row(cell)
    method = make_method(setup.config.full_methods[cell.method])
    try:
        problem = setup.problem(cell.task, cell.image)
    except Exception as error:          # another's operator
        return row | {"status": FAILED, "reason": f"no measurement: {_told(error)}"}, None
    try:
        method.check(problem)
        result, costs = _restored(setup, cell, method, problem)
    except NoSample as error:           # mended, it may
        return row | {"status": FAILED, "reason": _told(error)}, None
    except InputError as error:
        return row | {"status": IMPOSSIBLE, "reason": _one_line(error)}, None
    except Exception as error:          # another's code: whatever it raises, the rest goes on
        return row | {"status": FAILED, "reason": _told(error)}, None
    truth = setup.images[cell.image]
    if setup.keep:
        save_estimate(estimate_path(setup.keep, setup.config, cell), result, problem, truth)
    row |= {"status": DONE, "reason": "", "samples": result.samples.shape[1],
            "distinct": len({sample.numpy().tobytes() for sample in result.samples[0]})}
    return row | scores(result, truth, setup.metrics) | costs, to_uint8(result.mean[0])


def scores(result: Result, truth: Tensor, metrics: Sequence[str]) -> dict[str, float]:
    """The metrics of the mean and of the first sample, the mean spread, and what the intervals cover."""
    found = {}
    for name in metrics:
        for suffix, x in (("", result.mean), ("_sample", result.samples[:, 0])):
            found[f"{name}{suffix}"] = _rounded(float(METRICS[name].function(x, truth[None])[0]))
    if result.samples.shape[1] >= FEWEST:
        found["std"] = _rounded(float(result.std.mean()))
        found |= {f"coverage_{100 * level:g}": _rounded(share) for level, share
                  in coverage(result.samples[0], truth, result.report["antithetic"]).items()}
    return found


def coverage(samples: Tensor, truth: Tensor, antithetic: bool = False) -> dict[float, float]:
    """The share of pixels where the truth (C, H, W) is in the central interval of each of LEVELS, from samples (S, C, H, W).

    The interval is mean ± `gaussian_factor` std, or `paired_factor`: for a Gaussian pixel it covers the truth as often as its
    level says, whatever S is; mean ± z std would cover less for few samples.
    """
    factor, variance = (paired_factor, sample_variance(samples, 0)) if antithetic else (gaussian_factor, samples.var(0))
    ratio = (truth - samples.mean(0)).abs() / variance.sqrt().clamp_min(1e-12)
    return {level: float((ratio <= factor(len(samples), level)).float().mean()) for level in LEVELS}


def _restored(setup: Setup, cell: Cell, method: Method, problem: Problem) -> tuple[Result, dict[str, Any]]:
    prior, config = setup.warm_prior(cell.prior), setup.config
    where = find_device(config.device)

    def call() -> Result:
        return restore(problem, prior, method.sampler, samples=method.samples or config.samples, antithetic=config.antithetic,
                       seed=stream_seed(config.seed, cell.image, 2**31), device=str(where), precision=config.precision)

    with _timed_calls(prior, where) as seconds:
        result, memory = _with_memory(call, where)
    report = result.report
    return result, {
        "residual": _rounded(report["residual"]["value"]), "network_calls": report["network_calls"],
        "network_gradients": report["network_gradients"], "operator_calls": report["operator_calls"],
        "seconds": _rounded(report["seconds"]),
        "seconds_per_call": _rounded(median(seconds)) if seconds and method.prior else None,
        "memory_mib": None if memory is None else round(memory / 2**20, 1)}


def _with_memory(call: Any, where: torch.device) -> tuple[Result, int | None]:
    if where.type != "cuda":
        return with_peak_memory(call)
    torch.cuda.reset_peak_memory_stats(where)
    before = torch.cuda.memory_allocated(where)
    result = call()
    return result, torch.cuda.max_memory_allocated(where) - before


@contextmanager
def _timed_calls(prior: Denoiser, where: torch.device) -> Iterator[list[float]]:
    """The seconds of each call of the prior for one image, filled while the block runs; the forward pass alone."""
    seconds: list[float] = []
    began = 0.0

    def now() -> float:
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return time.perf_counter()

    def start(module: Any, inputs: tuple[Any, ...]) -> None:
        nonlocal began
        began = now()

    def stop(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        seconds.append((now() - began) / len(output))

    hooks = [prior.register_forward_pre_hook(start), prior.register_forward_hook(stop)]
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _told(error: BaseException) -> str:
    """In one line what it is and says; of what is meant for users, that alone."""
    return _one_line(error) if isinstance(error, InputError) else f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
