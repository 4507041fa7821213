"""restore(): what the command line, the app, the benchmark and the tests all call."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from deepinv.models import Denoiser
from pydantic import BaseModel
from torch import Tensor

from invdiff.checks import check_images, check_kinds, check_operator, check_values, estimates
from invdiff.chunks import Chunk, Costs, Drawn, draw_all, plan
from invdiff.diffusion.integrators import Step
from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import InputError, NoSample
from invdiff.io.partial import PartialRun
from invdiff.machine import find_device, versions
from invdiff.own_code import code_of
from invdiff.posterior import Sampler
from invdiff.posterior.covariance import spectrum_for
from invdiff.priors.counted import Counted
from invdiff.priors.latent import latent_of, refusal
from invdiff.priors.running import in_single, in_use
from invdiff.problem import Problem
from invdiff.result import Result


class Stop(Exception):
    """Raised by `on_step` to end a run and keep the samples that are finished."""


@dataclass(frozen=True)
class Progress:
    """A step of a run: `done` of `total` steps over all chunks of samples, and the step itself."""

    done: int
    total: int
    step: Step


def restore(problem: Problem, prior: Denoiser, sampler: Sampler, *, samples: int = 1, seed: int = 0,
            device: str = "auto", batch_size: int | None = None, precision: str = "fp32",
            on_step: Callable[[Progress], object] | None = None, start: Tensor | None = None,
            checkpoint: str | Path | None = None, antithetic: bool = False) -> Result:
    """Draw posterior samples of every measurement of a problem.

    Args:
        problem: operator, measurements y (B, ...), noise level.
        prior: any deepinv Denoiser; one in float64 is copied in float32.
        sampler: one of `invdiff.posterior`.
        samples: S, samples of each measurement.
        seed: integer >= 0. Sample i of measurement j depends on (seed, j, i) and on nothing beside it, unless the sampler
            draws all samples of a measurement as one population. Rounding may differ with what runs beside it, and where
            conjugate gradients end early, a hundredth may come of that in a few steps.
        device: "auto", "cpu", "cuda", ...
        batch_size: chains run together; None chooses one on a CPU (where more gain nothing) and eight elsewhere. Halved
            when memory is short.
        precision: "fp32" or "bf16", for the network.
        on_step: called after each step. `Stop` raised by it ends the run with the samples that every measurement has by
            then, fewer than S; if there are none, and with any other exception, the run ends with that.
        start: estimates (B, C, H, W) or (C, H, W) to begin from; see `Sampler.start_sigma`.
        checkpoint: a folder for finished chunks, made with the first. With those of an earlier call in it, the run goes on
            from there. It is not removed: `invdiff.io.partial.remove_partial` does that. Samplers of deepinv's take none.
        antithetic: draw samples 2k and 2k + 1 from noise of opposite sign, where the sampler can. Each is a sample as before,
            but what they differ by from the posterior's mean nearly cancels. `Result.std` allows for it; what else takes
            samples for independent does not.

    Raises:
        InputError: an argument of another kind or out of range, an operator that makes other measurements than y or whose
            A_adjoint is not its transpose, a checkpoint of another run, too little memory for one chain, or samples that are
            not finite.
        ValueError: the sampler cannot use this operator.
    """
    check_kinds(problem, prior, sampler)
    check_values(samples, seed, batch_size, precision)
    where = find_device(device)
    if latent_of(prior) and not sampler.latents:
        raise refusal(f"{type(sampler).__name__} was to use it as one")
    if checkpoint is not None and not sampler.resumes:
        raise InputError(f"checkpoint: the parameters of {type(sampler).__name__} do not tell it from every other, so that a "
                         "run could go on from another's samples; leave checkpoint out")
    with in_use(prior):
        problem = problem.to(where)
        check_images(prior, problem)
        check_operator(problem, sampler.transposes)
        counted = Counted(in_single(prior).to(where), precision, where)
        run = _Run(problem, counted, sampler, seed, antithetic and sampler.mirrors, on_step, estimates(start, problem))
        if checkpoint is not None:
            run.resume(checkpoint, samples)
        chunks = plan(problem, sampler, samples, batch_size or (1 if where.type == "cpu" else 8), run.drawn)
        try:
            draw_all(chunks, run.draw, sampler)
        except Stop:
            if not run.finished(samples):
                raise
        drawn = run.stack(run.finished(samples))
        return Result(drawn, problem.y.cpu(), {"samples_asked": samples, **run.report(drawn)})


@dataclass
class _Run:
    """A run under way: what it draws from, and what it has drawn."""

    problem: Problem
    prior: Counted
    sampler: Sampler
    seed: int
    antithetic: bool
    on_step: Callable[[Progress], object] | None
    start: Tensor | None
    drawn: list[Drawn] = field(default_factory=list)
    partial: PartialRun | None = None
    steps: int = 0

    def draw(self, chunk: Chunk, after: int) -> None:
        """Draw a chunk; `after` others will follow."""
        index = torch.tensor([j for j, _ in chunk.chains], device=self.problem.y.device)
        part, seeds = self.problem.rows(index), [stream_seed(self.seed, j, i, self.antithetic) for j, i in chunk.chains]
        if self.start is None:
            steps = self.sampler.steps(self.prior, part, seeds)
        else:
            steps = self.sampler.steps_from(self.start[index], self.prior, part, seeds)
        done, total = self.steps, self.steps + self.sampler.num_steps * (after + 1)
        began, before, stop = time.perf_counter(), self._spent(), None
        for step in in_number(steps, self.sampler):
            done += 1
            try:
                if self.on_step:
                    self.on_step(Progress(done, total, step))
            except Stop as asked:
                if done < self.steps + self.sampler.num_steps:
                    raise
                stop = asked                                    # with the last step: this chunk is finished
        check_sample(step.x0, (len(chunk.chains), *part.image_shape), type(self.sampler).__name__,
                     "; the last step's x0 is to be such a tensor of real numbers", "; take more steps, another sampler, or "
                     "another prior")
        now = self._spent()
        costs = Costs(time.perf_counter() - began, *(a - b for a, b in zip(now, before, strict=True)))
        self._keep(Drawn(dict(zip(chunk.chains, step.x0.detach().float().cpu(), strict=True)), costs, step.info))
        self.steps = done
        if stop:
            raise stop

    def _spent(self) -> tuple[int, int, int]:
        return self.prior.calls, self.prior.gradients, self.problem.calls.operator

    def _keep(self, drawn: Drawn) -> None:
        self.drawn.append(drawn)
        if self.partial is not None:
            self.partial.add({"samples": torch.stack(list(drawn.samples.values()))}, drawn.about())

    def resume(self, path: str | Path, samples: int) -> None:
        """Take what an earlier call has left in `path`. What prior and operator make of a fixed picture tells them apart."""
        identity = {"sampler": described(self.sampler), "seed": self.seed, "precision": self.prior.precision,
                    "sigma_y": self.problem.sigma_y, "device": self.problem.y.device.type, "versions": versions()}
        if code := code_of(type(self.sampler)):
            identity["code"] = code
        if self.sampler.population:
            identity["samples"] = samples
        if self.antithetic:
            identity["antithetic"] = True
        picture = self.problem.y.new_empty(self.problem.image_shape, device="cpu")
        picture = picture.uniform_(generator=torch.Generator().manual_seed(0)).to(self.problem.y)
        with torch.no_grad():
            latent = latent_of(self.prior)
            known = latent.encode(picture[None]) if latent else picture[None]
            # at two levels, as a prior may be guided at some alone
            traces = {"measurement": self.problem.y, "prior": torch.cat([self.prior.prior(known, s) for s in (0.1, 1.0)]),
                      "operator": self.problem.physics.A(picture.expand(len(self.problem.y), *picture.shape))}
        if self.sampler.uses_spectrum:
            traces["error spectrum"] = spectrum_for(self.prior, self.problem).at(0.1, self.problem.size)
        if self.start is not None:
            traces["start"] = self.start
        self.partial = PartialRun(path, identity, traces)
        self.drawn = [Drawn.restored(tensors["samples"], about) for tensors, about in self.partial.parts()]

    def finished(self, samples: int) -> int:
        """How many of `samples` samples all measurements have."""
        have = self._chains()
        return next((i for i in range(samples) if any((j, i) not in have for j in range(len(self.problem.y)))), samples)

    def _chains(self) -> dict[tuple[int, int], Tensor]:
        return {chain: x0 for chunk in self.drawn for chain, x0 in chunk.samples.items()}

    def stack(self, samples: int) -> Tensor:
        """(B, samples, C, H, W)."""
        have = self._chains()
        return torch.stack([torch.stack([have[j, i] for i in range(samples)]) for j in range(len(self.problem.y))])

    def report(self, samples: Tensor) -> dict[str, Any]:
        """Plain values about the run and its samples (B, S, ...); calls are means over all chains drawn."""
        chains = len(self._chains())
        costs = sum((chunk.costs for chunk in self.drawn), Costs())
        report = {"sampler": described(self.sampler), "seed": self.seed, "samples": samples.shape[1],
                  "antithetic": self.antithetic, "seconds": round(costs.seconds, 3),
                  "network_calls": costs.network_calls / chains, "network_gradients": costs.network_gradients / chains,
                  "operator_calls": costs.operator_calls / chains, "residual": residual(self.problem, samples),
                  "device": str(self.problem.y.device), "precision": self.prior.precision, "versions": versions()}
        infos = [dict(chunk.info) for chunk in self.drawn if chunk.info]
        if infos:                       # one for each chunk, and so for each measurement of a population sampler
            report["info"] = infos[0] if len(infos) == 1 else infos
        if self.sampler.uses_spectrum:
            report["error_spectrum"] = spectrum_for(self.prior, self.problem).source
        return report


def in_number(steps: Iterable[Step], sampler: Sampler) -> Iterator[Step]:
    """A sampler's steps. Raises NoSample where there are not `num_steps` of them, which tells how far a run is, and whether a
    step is the last."""
    number, expected = 0, sampler.num_steps
    for number, step in enumerate(steps, 1):
        if number > expected:
            break
        yield step
    if number != expected:
        raise NoSample(f"restore: {type(sampler).__name__}.steps gave {'more' if number > expected else number} steps; "
                         f"expected as many as its num_steps, {expected}")


def check_sample(x: object, shape: tuple[int, ...], who: str, form: str, more: str = "") -> None:
    """Raises NoSample where x is no tensor of a shape, which `form` advises on, or not of finite numbers, which `more` does."""
    if not isinstance(x, Tensor):
        got = "None" if x is None else f"a {type(x).__name__}"
        raise NoSample(f"restore: expected a sample {shape} of {who}, got {got}{form}")
    if tuple(x.shape) != shape or x.is_complex():
        kind = f" of {x.dtype}" if x.is_complex() else ""
        raise NoSample(f"restore: expected a sample {shape} of {who}, got {tuple(x.shape)}{kind}{form}")
    if bad := int((~x.isfinite()).sum()):
        raise NoSample(f"restore: {who} came to values that are not finite, {bad} of {x.numel()}{more}")


def described(model: BaseModel) -> dict[str, Any]:
    """A sampler's name and parameters, and those of its parts: two schedules may have the same parameters."""
    parts = {name: described(value) for name, value in model if isinstance(value, BaseModel)}
    return {"name": type(model).__name__, **model.model_dump(by_alias=True), **parts}


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
