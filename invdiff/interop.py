"""deepinv both ways: our samplers as its `Reconstructor`, and its `Reconstructor`s as samplers that `restore` runs."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from deepinv.models import Denoiser, Reconstructor
from deepinv.physics import DecomposablePhysics, GaussianNoise, Physics, StackedPhysics
from pydantic import Field, PositiveInt, field_serializer
from torch import Tensor

from invdiff.diffusion.integrators import Step
from invdiff.errors import InputError
from invdiff.posterior import Sampler
from invdiff.posterior.sampler import for_chains
from invdiff.priors.for_deepinv import ForDeepinv
from invdiff.problem import Calls, Problem
from invdiff.restoration import restore
from invdiff.simulation import other_noise


class AsReconstructor(Reconstructor):
    """x_hat = model(y, physics): the mean of posterior samples, for whatever takes a deepinv `Reconstructor`.

    prior, sampler, samples, seed, batch_size: as in `restore`. sigma_y: the noise's standard deviation in y's units; None
    takes `physics.noise_model.sigma`.

    A measurement's noise follows the seed and its place in y, so that every batch of a loader is restored with the same noise,
    and scores depend a little on the size of batches.
    """

    def __init__(self, prior: Denoiser, sampler: Sampler, *, sigma_y: float | None = None, samples: int = 1, seed: int = 0,
                 batch_size: int | None = None):
        super().__init__()
        self.prior, self.sampler, self.sigma_y = prior, sampler, sigma_y
        self.samples, self.seed, self.batch_size = samples, seed, batch_size

    def forward(self, y: Tensor, physics: Physics, **kwargs: object) -> Tensor:
        """(B, C, H, W), on y's device, for y (B, ...), of a stack a list of them. Raises InputError if the noise level is not
        known."""
        problem = Problem(physics, y, noise_level(physics) if self.sigma_y is None else self.sigma_y)
        result = restore(problem, self.prior, self.sampler, samples=self.samples, seed=self.seed, device=str(y.device),
                         batch_size=self.batch_size)
        return result.mean.to(y.device)


def noise_level(physics: Physics) -> Any:
    """The standard deviation that a deepinv physics says its noise has, of a stack one for each. Raises InputError unless it is
    Gaussian, and one."""
    if isinstance(physics, StackedPhysics):
        return [noise_level(part) for part in physics.physics_list]
    model = getattr(physics, "noise_model", None)
    sigma = model.sigma if isinstance(model, GaussianNoise) else None
    levels = set() if sigma is None else set(torch.as_tensor(sigma).flatten().tolist())
    if len(levels) != 1:
        found = f"{len(levels)} of them" if levels else other_noise(physics) or "none"
        raise InputError(f"sigma_y: expected one noise level, as of noise_model=GaussianNoise(0.05), and "
                         f"{type(physics).__name__} has {found}; give sigma_y")
    return float(levels.pop())


class DeepinvSampler(Sampler):
    """A deepinv `Reconstructor` as a sampler, for example DDRM, DiffPIR or DPS of deepinv.sampling:

        DeepinvSampler(build=lambda prior, sigma_y: deepinv.sampling.DDRM(prior))

    build: from a denoiser for [0, 1] images and sigma_y to a Reconstructor (y, physics) -> x, whose output is taken for a
    sample; called once for each chain. Chains run one by one, each with the global random generators at its own seed, which
    are put back afterwards. The physics it sees is the problem's, with GaussianNoise(sigma_y) for its noise. A run is one
    step, and levels and integrator are the Reconstructor's own: the fields for them have no effect here. There is no going on
    from a checkpoint, as nothing tells what one `build` makes from what another does.

    Raises InputError for an output that is no image, such as the mean and variance that deepinv's Langevin samplers give.
    """

    about: ClassVar[str] = "a deepinv Reconstructor"
    singly: ClassVar[bool] = True
    resumes: ClassVar[bool] = False
    transposes: ClassVar[bool] = False
    mirrors: ClassVar[bool] = False
    num_steps: PositiveInt = Field(1, alias="steps", le=1)
    build: Callable[[Denoiser, float], Reconstructor]

    @field_serializer("build")
    def _name(self, build: Callable[..., Any]) -> str:
        return getattr(build, "__qualname__", type(build).__name__)

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        physics = _as_deepinv_expects(problem)
        drawn = []
        for y, seed in zip(problem.y.split(1), seeds, strict=True):
            with _seeded(seed, y.device):
                model = self.build(ForDeepinv(prior), problem.sigma_y).to(y.device)
                x = model(y.clone(), physics)                       # cloned: DDRM writes into it
            expected = (1, *problem.image_shape)
            if not isinstance(x, Tensor) or tuple(x.shape) != expected:
                got = f"{tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
                raise InputError(f"DeepinvSampler: expected a sample {expected} of {type(model).__name__}, got {got}; of "
                                 "deepinv.sampling, DDRM, DiffPIR and DPS give one")
            drawn.append(x.detach().to(y.dtype))
        x0 = torch.cat(drawn)
        yield Step(0.0, x0, x0, {"reconstructor": type(model).__name__})


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global random generators at `seed`, and as they were afterwards."""
    before = np.random.get_state()          # noqa: NPY002 - it is the global one that they draw from
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed % 2**63)
            np.random.seed(seed % 2**32)    # noqa: NPY002
            yield
    finally:
        np.random.set_state(before)         # noqa: NPY002


def _as_deepinv_expects(problem: Problem) -> Physics:
    """The problem's physics with its noise level, singular values of the image's shape, and calls counted. A shallow copy:
    the original is what it was."""
    physics = copy.copy(problem.physics)
    physics.__dict__.update({name: dict(problem.physics.__dict__[name]) for name in ("_modules", "_buffers", "_parameters")})
    physics.noise_model = GaussianNoise(problem.sigma_y)
    if isinstance(physics, DecomposablePhysics):
        image = problem.y.new_zeros(1, *problem.image_shape)
        mask = torch.as_tensor(physics.mask, device=image.device)
        if mask.ndim > 1:
            shape = problem.physics.V_adjoint(image).shape                # deepinv's DDRM indexes it with the coefficients
            physics._buffers["mask"] = mask.expand(shape).clone()
    for name, calls in _CALLS.items():
        if hasattr(physics, name):
            physics.__dict__[name] = _counting(getattr(problem.physics, name), calls, problem.calls)
    for name in ("prox_l2", "A_dagger"):                                # made of the above, or a closed form
        if hasattr(physics, name):
            physics.__dict__[name] = _counting(getattr(physics, name), 2, problem.calls, unless_inside=True)
    return physics


# what a call of each costs, in applications of A, its transpose, or a factor of its SVD
_CALLS = {"A": 1, "A_adjoint": 1, "A_adjoint_A": 2, "A_A_adjoint": 2, "U": 1, "U_adjoint": 1, "V": 1, "V_adjoint": 1}


def _counting(method: Callable[..., Tensor], each: int, calls: Calls, unless_inside: bool = False) -> Callable[..., Tensor]:
    def call(*arguments: Any, **keywords: Any) -> Tensor:
        before = calls.operator
        result = method(*arguments, **keywords)
        if not (unless_inside and calls.operator > before):
            calls.operator += each * len(result)
        return result

    return call
