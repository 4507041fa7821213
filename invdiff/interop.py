"""deepinv both ways: our samplers as its `Reconstructor`, and its `Reconstructor`s as samplers that `restore` runs."""

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
from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import InputError
from invdiff.physics import copied
from invdiff.posterior import Sampler
from invdiff.posterior.sampler import for_chains
from invdiff.priors.for_deepinv import ForDeepinv
from invdiff.problem import Calls, Problem
from invdiff.restoration import check_sample, restore
from invdiff.simulation import other_noise


class AsReconstructor(Reconstructor):
    """x_hat = model(y, physics): the mean of posterior samples, for whatever takes a deepinv `Reconstructor`.

    prior, sampler, samples, batch_size: as in `restore`. seed: as there, or None for one that torch's global generator draws at
    each call, as methods of a benchmark want it for samples that differ. sigma_y: the noise's standard deviation in y's units;
    None takes `physics.noise_model.sigma`, one or one for each measurement, which are then restored one by one.

    A measurement's noise follows the seed and its place in y, so that with a given one every batch of a loader is restored with
    the same noise, and scores depend a little on the size of batches.
    """

    def __init__(self, prior: Denoiser, sampler: Sampler, *, sigma_y: float | None = None, samples: int = 1,
                 seed: int | None = 0, batch_size: int | None = None):
        super().__init__()
        self.prior, self.sampler, self.sigma_y = prior, sampler, sigma_y
        self.samples, self.seed, self.batch_size = samples, seed, batch_size

    def forward(self, y: Tensor, physics: Physics, **kwargs: object) -> Tensor:
        """(B, C, H, W), on y's device, for y (B, ...), of a stack a list of them. Raises InputError if the noise level is not
        known, or measurements have levels and the operator parameters of their own."""
        level = stated_noise(physics, len(y)) if self.sigma_y is None else self.sigma_y
        seed = int(torch.randint(2**62, ())) if self.seed is None else self.seed
        if not isinstance(level, Tensor):
            return self._mean(Problem(physics, y, level), self.sampler, seed)
        if Problem(physics, y, 0.0).together:
            raise InputError(f"sigma_y: {type(physics).__name__} has parameters of its own for each of {len(y)} measurements, "
                             "which are then restored together, with one noise level; give it batches of one")
        return torch.cat([self._mean(Problem(physics, one, sigma), _for_measurement(j, self.sampler, seed, self.samples), seed)
                          for j, (one, sigma) in enumerate(zip(y.split(1), level, strict=True))])

    def _mean(self, problem: Problem, sampler: Sampler, seed: int) -> Tensor:
        device = problem.y.device
        return restore(problem, self.prior, sampler, samples=self.samples, seed=seed, device=str(device),
                       batch_size=self.batch_size).mean.to(device)


def _for_measurement(j: int, sampler: Sampler, seed: int, samples: int) -> Sampler:
    """A sampler for measurement j alone, with the streams that `restore` gives it among others, not those of a first one."""
    streams = {stream_seed(seed, 0, i): stream_seed(seed, j, i) for i in range(samples)}

    def steps(prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        return sampler.steps(prior, problem, [streams[seed] for seed in seeds])

    moved = sampler.model_copy()
    moved.__dict__["steps"] = steps
    return moved


def stated_noise(physics: Physics, count: int = 1) -> Any:
    """The standard deviation that a deepinv physics says its noise has, of a stack one for each; of `count` measurements a
    tensor (count,), where theirs differ. Raises InputError unless it is Gaussian, and one or as many."""
    if isinstance(physics, StackedPhysics):
        return [stated_noise(part) for part in physics.physics_list]
    model = getattr(physics, "noise_model", None)
    sigma = torch.as_tensor(model.sigma).flatten() if isinstance(model, GaussianNoise) else torch.empty(0)
    levels = set(sigma.tolist())
    if len(levels) == 1:
        return float(levels.pop())
    if levels and len(sigma) == count:
        return sigma
    each = f", or one for each of {count} measurements" if count > 1 else ""
    found = f"{len(sigma)} of them" if levels else other_noise(physics) or "none"
    raise InputError(f"sigma_y: expected one noise level, as of noise_model=GaussianNoise(0.05){each}, and "
                     f"{type(physics).__name__} has {found}; give sigma_y")


class DeepinvSampler(Sampler):
    """A deepinv `Reconstructor` as a sampler, for example DDRM, DiffPIR or DPS of deepinv.sampling:

        DeepinvSampler(build=lambda prior, sigma_y: deepinv.sampling.DDRM(prior))

    build: from a denoiser for [0, 1] images and sigma_y to a Reconstructor (y, physics) -> x, whose output is taken for a
    sample; called once for each chain. Chains run one by one, each with the global random generators at its own seed, which
    are put back afterwards. The physics it sees is the problem's, with GaussianNoise(sigma_y) for its noise. A run is one
    step, and levels and integrator are the Reconstructor's own: the fields for them have no effect here. There is no going on
    from a checkpoint, as nothing tells what one `build` makes from what another does.

    Raises NoSample for an output that is no image, such as the mean and variance that deepinv's Langevin samplers give, or
    holds NaN or infinite values.
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
                x = _reconstructed(model, y, physics)
            check_sample(x, (1, *problem.image_shape), type(model).__name__, _what_is_right(model))
            drawn.append(x.detach().to(y.dtype))
        x0 = torch.cat(drawn)
        yield Step(0.0, x0, x0, {"reconstructor": type(model).__name__})


def _what_is_right(model: Reconstructor) -> str:
    if type(model).__module__.startswith("deepinv."):
        return "; of deepinv.sampling, DDRM, DiffPIR and DPS give one"
    return "; its forward(y, physics) is to return such a tensor of real numbers"


def _reconstructed(model: Reconstructor, y: Tensor, physics: Physics) -> Any:
    """What the model makes of y. Raises InputError where it asks the physics for what that has not."""
    try:
        return model(y.clone(), physics)                            # cloned: DDRM writes into it
    except AttributeError as error:
        if error.obj is not physics:
            raise
        raise InputError(f"DeepinvSampler: {type(model).__name__} asks {type(physics).__name__} for {error.name}, and it has "
                         "none; of deepinv.sampling, DDRM needs an operator with an SVD, a DecomposablePhysics, and DiffPIR "
                         "and DPS need none") from error


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
    physics = copied(problem.physics)
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
