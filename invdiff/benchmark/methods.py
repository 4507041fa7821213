"""The methods of a benchmark: our samplers, deepinv's, classical reconstructions, and a user's own."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from deepinv.models import Denoiser, Reconstructor
from deepinv.optim import DPIR
from deepinv.physics import DecomposablePhysics, LinearPhysics, Physics
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.baselines.classical import LEAST_NOISE, TotalVariation, WaveletSparsity
from invdiff.baselines.namesakes import STEPS, namesake
from invdiff.config import SAMPLERS, build_sampler, describe
from invdiff.errors import InputError, NoSample
from invdiff.interop import DeepinvSampler
from invdiff.own_code import PYTHON, imported
from invdiff.own_samplers import is_sampler
from invdiff.posterior import Sampler
from invdiff.posterior.likelihood import NONLINEAR
from invdiff.problem import Problem, require
from invdiff.validation import nearest, validate

Build = Callable[[Denoiser, float], Reconstructor]      # from a denoiser for [0, 1] images and sigma_y
OWN = ("name", "label", "samples")                      # keys of a method's spec that are not its parameters


class NoParameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DDRMParameters(NoParameters):
    steps: PositiveInt = STEPS["ddrm"]


class DiffPIRParameters(NoParameters):
    steps: PositiveInt = STEPS["diffpir"]


class DPSParameters(NoParameters):
    steps: PositiveInt = STEPS["dps"]


class TVParameters(NoParameters):
    weight: PositiveFloat = 0.15        # in units of sigma_y
    iterations: PositiveInt = 200


class WaveletParameters(NoParameters):
    weight: PositiveFloat = 0.2         # in units of sigma_y
    iterations: PositiveInt = 100


@dataclass(frozen=True)
class Kind:
    """A method that is a deepinv Reconstructor.

    Attributes:
        parameters: what may be set.
        build: from these, a denoiser and sigma_y to a Reconstructor.
        random: does a run draw a sample? Otherwise there is one estimate, whatever the seed.
        prior: does it use the denoiser?
        needs: the kind of operator.
    """

    parameters: type[BaseModel]
    build: Callable[[Any, Denoiser, float], Reconstructor]
    random: bool = True
    prior: bool = True
    needs: type[Physics] = Physics


RECONSTRUCTORS: dict[str, Kind] = {
    "deepinv_ddrm": Kind(DDRMParameters, lambda p, prior, sigma_y: namesake("ddrm", prior, sigma_y, p.steps),
                         needs=DecomposablePhysics),
    "deepinv_diffpir": Kind(DiffPIRParameters, lambda p, prior, sigma_y: namesake("diffpir", prior, sigma_y, p.steps),
                            needs=LinearPhysics),
    "deepinv_dps": Kind(DPSParameters, lambda p, prior, sigma_y: namesake("dps", prior, sigma_y, p.steps)),
    "deepinv_dpir": Kind(NoParameters, lambda p, prior, sigma_y: DPIR(max(sigma_y, LEAST_NOISE), prior), random=False,
                         needs=LinearPhysics),
    "tv": Kind(TVParameters, lambda p, prior, sigma_y: TotalVariation(sigma_y, p.weight, p.iterations), random=False,
               prior=False),
    "wavelet": Kind(WaveletParameters, lambda p, prior, sigma_y: WaveletSparsity(sigma_y, p.weight, p.iterations), random=False,
                    prior=False),
}


class NoPrior(Denoiser):
    """Stands where a method without a prior expects none."""

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        return x


@dataclass(frozen=True)
class Method:
    """A method with its parameters, as `restore` runs it.

    Attributes:
        label: what it is called; one of its own in a benchmark.
        name: by which it is known.
        sampler: it.
        samples: how many to draw; None for as many as the benchmark says.
        prior: does it use one?
        needs: the kind of operator.
    """

    label: str
    name: str
    sampler: Sampler
    samples: int | None = None
    prior: bool = True
    needs: type[Physics] = Physics

    def check(self, problem: Problem) -> None:
        """Raises InputError where it cannot do this; samplers of our own say so themselves."""
        if self.needs is not Physics:
            linear = isinstance(problem.physics, LinearPhysics)
            others = "moment_matching, deepinv_diffpir, deepinv_dps" if linear else NONLINEAR
            require(problem.physics, self.needs, self.name, others)


def resolved(specs: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Specs with labels and every parameter filled in: name, label, samples where given, and the parameters.
    Raises InputError: an unknown name or parameter, or two that are the same."""
    full: list[dict[str, Any]] = []
    for spec in specs:
        given = {"name": spec} if isinstance(spec, str) else dict(spec)
        count = given.get("samples", 1)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"methods: {given.get('name')}: expected samples of 1 and more, got {count!r}")
        full.append(_parameters(given) | {key: given[key] for key in OWN if key in given} | {"label": _label(given, specs)})
    labels = [spec["label"] for spec in full]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"methods: {twice[0]!r} is there twice; give each a label of its own")
    return full


def make_method(spec: Mapping[str, Any]) -> Method:
    """The method of a spec from `resolved`. Raises InputError."""
    name, label, samples = str(spec["name"]), str(spec["label"]), spec.get("samples")
    rest = {key: value for key, value in spec.items() if key not in OWN}
    if name in RECONSTRUCTORS:
        kind = RECONSTRUCTORS[name]
        parameters = kind.parameters(**rest)
        sampler = DeepinvSampler(build=lambda prior, sigma_y: kind.build(parameters, prior, sigma_y))
        return Method(label, name, sampler, samples if kind.random else 1, kind.prior, kind.needs)
    if name.startswith(PYTHON) and not is_sampler(name):
        return Method(label, name, DeepinvSampler(build=_own(name, rest)), samples)
    return Method(label, name, build_sampler({"name": name} | rest), samples)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """A spec with every default, without the keys of our own."""
    name = str(given.get("name"))
    rest = {key: value for key, value in given.items() if key not in OWN}
    if name in RECONSTRUCTORS:
        return validate(RECONSTRUCTORS[name].parameters, rest, f"methods: {name}").model_dump()
    if name.startswith(PYTHON) and not is_sampler(name):
        _own(name, rest)
        return rest
    if name not in SAMPLERS and not name.startswith(PYTHON):
        raise InputError(f"methods: unknown name {name!r}; {nearest(name, [*SAMPLERS, *RECONSTRUCTORS])}, or "
                         "python:MODULE:FACTORY")
    return describe(build_sampler({"name": name} | rest, f"methods: {given.get('label', name)}"), name)


def _own(name: str, parameters: Mapping[str, Any]) -> Build:
    """A user's factory(denoiser, sigma_y, **parameters) -> Reconstructor. Imports the module: that is trusting its author."""
    factory = imported(name.removeprefix(PYTHON))
    if not callable(factory):
        raise InputError(f"methods: {name}: expected a function (denoiser, sigma_y) -> Reconstructor, got a "
                         f"{type(factory).__name__}")
    try:
        signature = inspect.signature(factory)
        signature.bind(None, None, **parameters)
    except ValueError:          # some of C's have no signature: the call will tell
        pass
    except TypeError as error:
        raise InputError(f"methods: {name}: {error}; it takes {signature}, of which the first two are given") from error

    def build(prior: Denoiser, sigma_y: float) -> Reconstructor:
        made = factory(prior, sigma_y, **parameters)
        if not isinstance(made, torch.nn.Module):
            other = "; name a Sampler's class, or a function without parameters" if isinstance(made, Sampler) else ""
            raise NoSample(f"{name}: expected it to make a deepinv Reconstructor, got a {type(made).__name__}{other}")
        return made

    return build


def _label(given: Mapping[str, Any], specs: Sequence[str | Mapping[str, Any]]) -> str:
    """The label that is given, or the name, with the parameters that are given where others go by the name too."""
    if "label" in given:
        return str(given["label"])
    name = str(given["name"])
    names = [spec if isinstance(spec, str) else str(spec.get("name")) for spec in specs if "label" not in spec]
    said = ", ".join(f"{key} {value}" for key, value in given.items() if key not in OWN)
    return f"{name}, {said}" if names.count(name) > 1 and said else name
