"""Samplers against posteriors that are known: `invdiff benchmark exact`.

Gaussian priors, where mean and covariance are in closed form, and the mixtures of `mixtures`, where exact draws are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from deepinv.models import Denoiser
from deepinv.physics import LinearPhysics
from torch import Tensor

import operators
from invdiff.baselines.namesakes import STEPS, sample_with_deepinv
from invdiff.config import SAMPLERS
from invdiff.diffusion.integrators import DPMSolverPP
from invdiff.evaluation.mixtures import SCALE, mixture_case, sliced_wasserstein
from invdiff.machine import versions
from invdiff.posterior import Sampler
from invdiff.priors.analytic import GaussianPrior
from invdiff.problem import Problem
from invdiff.simulation import simulate

SPREAD = 0.2                            # standard deviation of the Gaussian priors, in image units
NOISES = (0.01, 0.1, 1.0)               # sigma_y in units of it
GAUSSIAN_STEPS = 200
RANK = 12                               # as many directions as a measurement of these images has values
LOW = 5e-4                              # the last noise level: below every posterior's spread
HEIGHT, WIDTH = 3, 4                    # of the Gaussian priors' images; MRI has two channels
LINES = torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(HEIGHT, WIDTH)
KERNEL = torch.tensor([[0.0, 0.25, 0.1], [0.05, 0.4, 0.0], [0.2, 0.0, 0.0]])
OPERATORS: dict[str, tuple[int, Callable[[tuple[int, int, int]], LinearPhysics]]] = {       # channels, and how to make it
    "random": (1, lambda size: operators.GaussianSensing(size, rate=0.4)),
    "blur": (1, lambda size: operators.Blur(size, KERNEL)),
    "mask": (1, lambda size: operators.Inpainting(size, operators.random_mask(size, 0.5))),
    "MRI": (2, lambda size: operators.MRI(size, LINES)),
}
DIMENSIONS = tuple((d, m) for d in (8, 80) for m in (1, 2, 4))
# parameters by name of a sampler: (what to add to its name, parameters); the first lists are for Gaussians, where all end at
# LOW, the others for mixtures. A sampler that is in neither has its defaults
GAUSSIAN_FORMS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "moment_matching": [(" (spectral)", {"cg_tolerance": 1e-4}), (" (exact)", {"covariance": "exact"}),
                        (" (low-rank)", {"covariance": "low-rank", "rank": RANK, "cg_tolerance": 1e-4})],
    "twisted_smc": [(" (exact)", {"covariance": "exact"})],
}
MIXTURE_FORMS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "moment_matching": [(" (exact)", {"covariance": "exact", "steps": 50}),
                        (" (exact), eta 5", {"covariance": "exact", "steps": 50, "integrator": DPMSolverPP(eta=5)})],
    "twisted_smc": [(" (exact)", {"covariance": "exact", "steps": n}) for n in (100, 300)],
    "ddrm": [("", {"steps": 100})],
}
# the prior that a sampler's theory is for; the stationary one where nothing is said
PRIORS = {"pigdm": "white", "moment_matching (exact)": "rough", "moment_matching (low-rank)": "rough",
          "twisted_smc (exact)": "rough"}


@dataclass(frozen=True)
class Plan:
    """What to run: names of SAMPLERS, how many problems and samples, and the steps if not each sampler's own."""

    samplers: Sequence[str]
    problems: int = 10
    samples: int = 1000
    steps: int | None = None
    dimensions: Sequence[tuple[int, int]] = DIMENSIONS
    noises: Sequence[float] = NOISES


def quick_plan(plan: Plan) -> Plan:
    """A small part of it: one problem of two pairs of dimensions, at most 100 samples and 10 steps."""
    return replace(plan, problems=1, samples=min(plan.samples, 100), steps=min(plan.steps or 10, 10),
                   dimensions=DIMENSIONS[:2], noises=NOISES[1:2])


def forms(plan: Plan, table: dict[str, list[tuple[str, dict[str, Any]]]], **common: Any) -> dict[str, Sampler]:
    """The plan's samplers by label, with `common` parameters where a form has no other; the plan's steps before all."""
    found = {}
    for name in plan.samplers:
        for suffix, parameters in table.get(name, [("", {})]):
            sampler = SAMPLERS[name](**common | parameters | ({"steps": plan.steps} if plan.steps else {}))
            found[f"{name}{suffix}" + (f", {sampler.num_steps} steps" if table is MIXTURE_FORMS else "")] = sampler
    return found


def gaussian_prior(kind: str, size: tuple[int, int, int]) -> GaussianPrior:
    """`white`, `stationary` (power falls with frequency), or `rough`: a random covariance, eigenvalues over two decades."""
    if kind == "rough":
        generator = torch.Generator().manual_seed(0)
        n = size[0] * size[1] * size[2]
        vectors = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
        values = torch.logspace(-2, 0, n, dtype=torch.float64)
        return GaussianPrior(torch.full(size, 0.5), ((vectors * values / values.mean()) @ vectors.T * SPREAD**2).float())
    fy, fx = torch.fft.fftfreq(size[1])[:, None], torch.fft.fftfreq(size[2])[None]
    power = torch.ones(size[1:]) if kind == "white" else 1 / (fy.square() + 2 * fx.square() + 0.05)
    return GaussianPrior.stationary(torch.full(size, 0.5), (SPREAD**2 * power / power.mean())[:, : size[2] // 2 + 1])


def draw_gaussian(mean: Tensor, cov: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, n) in float64."""
    values, vectors = torch.linalg.eigh(cov.double())
    noise = torch.randn(count, len(cov), generator=generator, dtype=torch.float64)
    return mean.double().flatten() + noise * values.clamp_min(0).sqrt() @ vectors.T


def moment_errors(x: Tensor, mean: Tensor, cov: Tensor) -> list[float]:
    """Of samples (n, d): the mean's error over sqrt(tr C), and the covariance's over |C| in the Frobenius norm."""
    error = (x.mean(0) - mean.flatten()).norm() / cov.trace().sqrt()
    return [float(error), float((torch.cov(x.T) - cov).norm() / cov.norm())]


def gaussians(plan: Plan, record: dict[str, dict]) -> Iterator[str]:
    """Add to a record {sampler: {"prior": kind, "operator, noise": [error of the mean, error of the covariance]}} the rows that
    are missing, one of them `exact draws`; yields what is done, row by row."""
    ours = forms(plan, GAUSSIAN_FORMS, steps=GAUSSIAN_STEPS, sigma_min=LOW)
    samplers: dict[str, Sampler | None] = {"exact draws": None, **ours}
    for label, sampler in samplers.items():
        if label in record:
            continue
        kind = PRIORS.get(label, "stationary")
        row: dict[str, Any] = {"prior": kind, "steps": sampler.num_steps if sampler else None}
        for name, (channels, make) in OPERATORS.items():
            size = (channels, HEIGHT, WIDTH)
            prior = gaussian_prior(kind, size)
            generator = torch.Generator().manual_seed(1)
            truth = draw_gaussian(prior.mean, prior.cov, 1, generator).float().reshape(1, *size)
            for noise in plan.noises:
                problem = simulate(make(size), truth, noise * SPREAD, seed=2)
                mean, cov = prior.posterior(problem)
                count = plan.samples
                x = _draw(sampler, prior, problem, count) if sampler else draw_gaussian(mean, cov, count, generator)
                errors = moment_errors(x.flatten(1).double(), mean, cov)
                row[f"{name}, {noise:g}"] = [round(error, 4) for error in errors]
        record[label] = row
        yield f"Gaussian, {label}"


def mixtures(plan: Plan, record: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    """Likewise {sampler: {"d,m": [sliced Wasserstein distance of each problem, in the mixture's units]}}, with rows floor and
    prior; column by column."""
    samplers = forms(plan, MIXTURE_FORMS)
    for d, m in plan.dimensions:
        if any(f"{d},{m}" in row for row in record.values()):
            continue
        problems = [_mixture(plan, samplers, d, m, seed) for seed in range(plan.problems)]
        for label in problems[0]:
            record.setdefault(label, {})[f"{d},{m}"] = [round(distances[label], 4) for distances in problems]
        yield f"mixture, d = {d}, m = {m}"


def _mixture(plan: Plan, samplers: dict[str, Sampler], d: int, m: int, seed: int) -> dict[str, float]:
    case, generator = mixture_case(d, m, seed), torch.Generator().manual_seed(10_000 + seed)
    exact, again = case.prior.sample_posterior(case.problem, 2 * plan.samples, generator)[0].flatten(1).split(plan.samples)
    component = torch.multinomial(case.prior.weights, plan.samples, replacement=True, generator=generator)
    noise = torch.randn(plan.samples, d, generator=generator) / SCALE
    drawn = {"exact draws (floor)": again, "prior": case.prior.means[component].flatten(1) + noise}
    drawn |= {label: _draw(sampler, case.prior, case.problem, plan.samples) for label, sampler in samplers.items()}
    for name in (name for name in STEPS if name in plan.samplers):
        steps = plan.steps or STEPS[name]
        drawn[f"deepinv {name}, {steps} steps"] = sample_with_deepinv(name, case.prior, case.problem, plan.samples, seed, steps)
    return {label: sliced_wasserstein(x.flatten(1) * SCALE, exact * SCALE) for label, x in drawn.items()}


def _draw(sampler: Sampler, prior: Denoiser, problem: Problem, count: int) -> Tensor:
    """(count, C, H, W), all chains in one batch."""
    *_, last = sampler.steps(prior, problem, range(count))
    return last.x0


def new_record(plan: Plan) -> dict[str, Any]:
    """Of a plan of which nothing is done: how it is made, plain values."""
    return {"made": {"samplers": list(plan.samplers), "problems": plan.problems, "samples": plan.samples, "steps": plan.steps,
                     "dimensions": [list(pair) for pair in plan.dimensions], "noises": list(plan.noises),
                     "versions": versions()}, "gaussian": {}, "mixtures": {}}


def run(plan: Plan, record: dict[str, Any]) -> Iterator[str]:
    """Both benchmarks, as far as they are not in the record; yields the name of each part that is done."""
    yield from gaussians(plan, record["gaussian"])
    yield from mixtures(plan, record["mixtures"])
