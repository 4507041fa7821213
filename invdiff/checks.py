"""What restore() asks of what it is given. All raise InputError."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from deepinv.models import Denoiser
from deepinv.physics import DecomposablePhysics, LinearPhysics
from torch import Tensor

from invdiff.errors import InputError
from invdiff.physics import said
from invdiff.posterior import Sampler
from invdiff.problem import Problem
from invdiff.simulation import other_noise
from operators import Stacked, StackedNonlinear

DOT_TOLERANCE = 0.1     # deepinv's tomography with filtered back-projection's adjoint is 0.02 off, one that is none about 1
DOT_ROUNDING = 1e-3     # more than float32 leaves of an exact one, at any size
TRANSPOSED = "leave A_adjoint out: deepinv.physics.LinearPhysics(A=physics.A, img_size=(C, H, W)) finds it by itself"


def check_kinds(problem: object, prior: object, sampler: object) -> None:
    """Each argument is of its kind, and no name or class of one, nor are two of them swapped."""
    named = prior if isinstance(prior, str | Path) else "natural"
    made = sampler.__name__ if isinstance(sampler, type) and issubclass(sampler, Sampler) else "MomentMatching"
    for argument, given, kind, right in (("problem", problem, Problem, "Problem(physics, y, sigma_y)"),
                                         ("prior", prior, Denoiser, f"load_prior('{named}')"),
                                         ("sampler", sampler, Sampler, f"{made}() of invdiff.posterior")):
        if not isinstance(given, kind):
            got = f"the class {given.__name__}" if isinstance(given, type) else \
                repr(given) if isinstance(given, str | Path) else type(given).__name__
            raise InputError(f"{argument}: expected a {kind.__name__}, such as {right}, got {got}; the order is "
                             "restore(problem, prior, sampler)")


def check_values(samples: object, seed: object, batch_size: object, precision: object) -> None:
    """Whole numbers that are not too small, and a precision that there is."""
    whole = ((samples, 1), (seed, 0), (1 if batch_size is None else batch_size, 1))
    if precision not in ("fp32", "bf16") or any(not isinstance(n, int | np.integer) or n < least for n, least in whole):
        raise InputError(f"restore: expected whole numbers samples >= 1, seed >= 0 and batch_size >= 1, and precision fp32 or "
                         f"bf16, got {samples=}, {seed=}, {batch_size=}, {precision=}")


def check_images(prior: Denoiser, problem: Problem) -> None:
    """Grey images are fit for a prior of colour ones, which repeats them on its channels."""
    if len(problem.image_shape) != 3:
        raise InputError(f"problem: expected images (C, H, W), got {problem.image_shape} of {type(problem.physics).__name__}; "
                         "restore a volume or a series image by image")
    known, given = getattr(prior, "channels", None), problem.image_shape[0]
    if known not in (None, given) and (known, given) != (3, 1):
        raise InputError(f"prior: it is for images of {known} channels, and the problem's have {given}; give such an image, or "
                         "another prior (`invdiff priors` lists them)")


def check_operator(problem: Problem, transposes: bool) -> None:
    """It makes measurements such as y, as many; a linear one makes zeros of zeros, with singular values >= 0 where it has some;
    and its A_adjoint, if it is used, is its transpose. Warns of noise that is not white Gaussian, or not a stack's."""
    name, y, seen = type(problem.physics).__name__, problem.y, problem.seen_of_one
    if seen is not None and seen.is_complex():
        raise InputError(f"{name}: makes complex numbers; expected real ones, with real and imaginary part as two channels")
    if seen is not None and len(seen) not in (1, len(y)):
        raise InputError(f"y: expected {len(seen)} measurements, as {name} has parameters of its own for each, got {len(y)}")
    if seen is not None and seen.shape[1:] != y.shape[1:]:
        raise InputError(f"y: expected (B, *{tuple(seen.shape[1:])}), as {name} makes of images {problem.image_shape}, got "
                         f"{tuple(y.shape)}")
    if seen is None or (len(y) > 1 and not hasattr(problem.physics, "measurement_size")):
        _check_images_are_taken(problem)
    if other := other_noise(problem.physics):
        warnings.warn(f"{name}: has {other}, which is taken for white Gaussian noise of sigma_y = {problem.sigma_y:g}",
                      stacklevel=3)
    if isinstance(problem.physics, Stacked | StackedNonlinear):
        _check_level(problem.physics.parts.noise, problem.sigma_y)
    if isinstance(problem.physics, LinearPhysics):
        count = 1 if seen is not None and len(seen) == 1 else len(y)
        _check_linear(problem, count)
        if transposes:
            _check_transpose(problem, count)


def _check_level(stated: Sequence[float] | None, sigma_y: float) -> None:
    """Warns of a noise level that is not the least of a stack's, to which it scales the others."""
    if stated and not math.isclose(sigma_y, min(stated), rel_tol=1e-3):
        levels = ", ".join(f"{level:g}" for level in stated)
        warnings.warn(f"sigma_y: {sigma_y:g}, and the stack was made for noise of {levels}, all scaled to {min(stated):g}; "
                      "give that, or a stack for other noise", stacklevel=4)


@torch.no_grad()
def _check_images_are_taken(problem: Problem) -> None:
    """As many as there are measurements, in float32."""
    x = problem.y.new_full((len(problem.y), *problem.image_shape), 0.5)
    try:
        problem.physics.A(x)
    except Exception as error:
        name = type(problem.physics).__name__
        raise InputError(f"{name}: its A takes no images {tuple(x.shape)} of float32 ({said(error)}); expected an operator on "
                         "real images, in which complex ones have two channels") from error


@torch.no_grad()
def _check_linear(problem: Problem, count: int) -> None:
    physics, name = problem.physics, type(problem.physics).__name__
    offset = float(physics.A(problem.y.new_zeros((count, *problem.image_shape))).abs().max())
    if offset > 1e-4 * float(problem.y.abs().max()):
        raise InputError(f"{name}: is a linear operator, and its A(0) has values up to {offset:.3g}; expected zeros, so "
                         "subtract A(0) from y and leave it out of A, or derive it from Physics")
    if isinstance(physics, DecomposablePhysics):
        values = torch.as_tensor(physics.mask)
        if not values.is_complex() and float(values.min()) < -1e-6 * float(values.max()):      # less is rounding
            raise InputError(f"{name}: its singular values, in mask, go down to {float(values.min()):.3g}; expected >= 0, the "
                             "sign in U; or derive it from LinearPhysics")


@torch.no_grad()
def _check_transpose(problem: Problem, count: int) -> None:
    """<x, A^T A x> = |A x|^2 for white noise x. With noise for A x, too, <x, A^T y> and <A x, y> would both be near zero for
    large images, whatever A^T is."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((count, *problem.image_shape), dtype=torch.float32, generator=generator).to(problem.y)
    name, seen = type(problem.physics).__name__, problem.physics.A(x)
    try:
        pulled = problem.physics.A_adjoint(seen)
    except Exception as error:
        raise InputError(f"{name}: its A_adjoint does not take what its A makes, {tuple(seen.shape)} of {seen.dtype} "
                         f"({said(error)}); {TRANSPOSED}") from error
    if pulled.shape != x.shape:
        raise InputError(f"{name}: expected A_adjoint to give images {tuple(x.shape)}, got {tuple(pulled.shape)}")
    product, power = float((x * pulled).sum()), float(seen.square().sum())
    if abs(product - power) > DOT_TOLERANCE * power:
        raise InputError(f"{name}: its A_adjoint is not the transpose of its A: for white noise x, <x, A_adjoint(A(x))> is "
                         f"{product:.3g} and <A(x), A(x)> is {power:.3g}, expected the same; {TRANSPOSED}")
    if abs(product - power) > DOT_ROUNDING * power:
        warnings.warn(f"{name}: its A_adjoint is {abs(product - power) / power:.1%} off the transpose of its A, by "
                      f"<x, A_adjoint(A(x))> and <A(x), A(x)> for white noise x; restorations may be off by much of their "
                      f"uncertainty; {TRANSPOSED}", stacklevel=4)


def estimates(start: Tensor | None, problem: Problem) -> Tensor | None:
    """`start` with one estimate for each measurement."""
    if start is None:
        return None
    expected = (len(problem.y), *problem.image_shape)
    if not isinstance(start, Tensor):
        raise InputError(f"start: expected a tensor {expected} or {expected[1:]}, got {type(start).__name__}")
    if tuple(start.shape) not in (expected, expected[1:]) or not start.isfinite().all():
        raise InputError(f"start: expected finite estimates {expected} or {expected[1:]}, got {tuple(start.shape)}")
    return start.to(problem.y).expand(expected)
