"""What is known: the operator, the measurement and its noise."""

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from deepinv.physics import DecomposablePhysics, LinearPhysics, Physics
from torch import Tensor

from invdiff.errors import InputError
from operators import least_squares

DESCENT_STEPS = 10
NOISE_FLOOR = 1e-6      # float32 arithmetic leaves about this much noise in A x: a "noiseless" measurement is no better


@dataclass
class Calls:
    """How often a problem's operator was applied to an image or a measurement (A, its transpose, a factor of its SVD)."""

    operator: int = 0


@dataclass(frozen=True)
class Problem:
    """y = A(x) + n, with white Gaussian noise n of standard deviation sigma_y.

    Args:
        physics: any deepinv physics, ours or theirs.
        y: measurement (B, ...), float; samplers work in float32.
        sigma_y: noise standard deviation in y's units, >= 0, one for all of y; 0 means noiseless. There is no default.

    Raises:
        ValueError: sigma_y not one number, negative or not finite; y no tensor, not float, not finite, or of a shape the
            operator does not give.
    """

    physics: Physics
    y: Tensor
    sigma_y: float
    calls: Calls = field(default_factory=Calls, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.sigma_y, Tensor):
            if self.sigma_y.numel() != 1:
                raise ValueError(f"sigma_y: expected one noise level, got {self.sigma_y.numel()}; restore what has others one "
                                 "by one")
            object.__setattr__(self, "sigma_y", float(self.sigma_y))
        if not isinstance(self.sigma_y, Real) or not 0 <= self.sigma_y < float("inf"):
            raise ValueError(f"sigma_y: expected a noise level >= 0 in the measurement's units, got {self.sigma_y!r}")
        if not isinstance(self.y, Tensor):
            raise ValueError(f"y: expected a tensor (B, ...), got {type(self.y).__name__}; what several operators measure is "
                             "to be one tensor")
        if not self.y.is_floating_point():
            raise ValueError(f"y: expected float32, with complex values as two channels, got {self.y.dtype}")
        bad = int((~torch.isfinite(self.y)).sum())
        if bad:
            raise ValueError(f"y: {bad} of {self.y.numel()} values are NaN or infinite; expected finite values")
        expected = getattr(self.physics, "measurement_size", None)
        if expected is not None and tuple(self.y.shape[1:]) != tuple(expected):
            raise ValueError(f"y: expected (B, *{tuple(expected)}), got {tuple(self.y.shape)}")

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the image. Raises ValueError if the operator does not know it and is not linear."""
        size = getattr(self.physics, "img_size", None)
        if size is not None:
            return tuple(size)
        if isinstance(self.physics, LinearPhysics):
            return tuple(self.physics.A_adjoint(self.y).shape[1:])      # of all: it may have parameters for each
        raise ValueError(f"{type(self.physics).__name__}: img_size is not set; expected (C, H, W)")

    @property
    def noise_variance(self) -> float:
        """sigma_y^2, or that of rounding where it is less."""
        return max(self.sigma_y, NOISE_FLOOR) ** 2

    def A(self, x: Tensor) -> Tensor:
        """The operator's, as the next two are, counted: (B, C, H, W) to (B, ...)."""
        self.calls.operator += len(x)
        return self.physics.A(x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        self.calls.operator += len(y)
        return self.physics.A_adjoint(y)

    def A_adjoint_A(self, x: Tensor) -> Tensor:
        self.calls.operator += 2 * len(x)
        return self.physics.A_adjoint_A(x)

    def A_dagger(self, y: Tensor) -> Tensor:
        """A^+ y of a linear operator; by iterations that end for each measurement, where deepinv's would for all at once."""
        if type(self.physics).A_dagger is LinearPhysics.A_dagger:
            return least_squares(self.physics, y).x
        return self.physics.A_dagger(y)

    @cached_property
    def seen_of_one(self) -> Tensor | None:
        """A of one grey image. An operator with parameters of its own for each measurement makes as many of it, or refuses it,
        in whatever way: None."""
        try:
            with torch.no_grad():
                return self.physics.A(self.y.new_full((1, *self.image_shape), 0.5))
        except Exception:
            return None

    @cached_property
    def pulled(self) -> Tensor:
        """A^T y, (B, C, H, W), of a linear operator."""
        return self.A_adjoint(self.y)

    @cached_property
    def mean_gain(self) -> float:
        """Of a linear operator, the mean of the squared singular values, tr(A^T A) / n, as one random image shows it."""
        x = torch.randn((1, *self.image_shape), dtype=torch.float32, generator=torch.Generator().manual_seed(0)).to(self.y)
        x = x.expand(len(self.y), *self.image_shape)        # an operator may have a mask for each measurement
        return float(self.physics.A(x).square().sum() / x.square().sum())

    def of(self, y: Tensor) -> "Problem":
        """The same for another measurement of a linear operator, of whose gain it is not asked again."""
        other = self._but(y=y)
        other.__dict__["mean_gain"] = self.mean_gain
        return other

    def estimate(self) -> Tensor:
        """A^+ y, (B, C, H, W); a rough one, by gradients from grey, where an operator is not linear and has none."""
        physics, y = self.physics, self.y
        if isinstance(physics, LinearPhysics):
            return self.A_dagger(y)
        if hasattr(physics, "A_adjoint") or type(physics).A_dagger is not Physics.A_dagger:
            return physics.A_dagger(y)
        x = y.new_full((len(y), *self.image_shape), 0.5)
        for _ in range(DESCENT_STEPS):
            seen = physics.A(x)
            gradient = physics.A_vjp(x, y - seen)
            near = 1e-3 / gradient.abs().amax(tuple(range(1, x.ndim)), keepdim=True).clamp_min(1e-30)
            change = (physics.A(x + near * gradient) - seen).flatten(1) / near.flatten(1)
            along = ((y - seen).flatten(1) * change).sum(1) / change.square().sum(1).clamp_min(1e-30)
            x = x + along.reshape(-1, *[1] * (x.ndim - 1)) * gradient
        return x

    def observed(self) -> Tensor:
        """True where an entry of y carries a measurement: the operator can reach it. Shape of A(x), batch 1 or B."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((self.y.shape[0], *self.image_shape), dtype=torch.float32, generator=generator) + 0.5
        return self.physics.A(x.to(self.y)) != 0

    def measured(self) -> "Problem":
        """The same, with zeros in y where a linear operator gives none, whatever a file has there."""
        if not isinstance(self.physics, LinearPhysics):
            return self
        return self._but(y=self.y * self.observed())

    def rows(self, index: Tensor) -> "Problem":
        """The measurements at `index`, with the same operator and the same call counter."""
        return self._but(y=self.y[index])

    def to(self, device: torch.device | str) -> "Problem":
        """The same on a device, in float32; an operator that is elsewhere or of another precision is copied."""
        y, physics = self.y.to(device, torch.float32), self.physics
        held = [t for t in (*physics.buffers(), *physics.parameters()) if t.is_floating_point() or t.is_complex()]
        if any(t.device != y.device or t.dtype != _single(t).dtype for t in held):
            physics = copy.deepcopy(physics).to(device)._apply(_single)
        return self._but(physics=physics, y=y)

    def _but(self, **changed: Any) -> "Problem":
        """The same but for these fields, for images of the same shape: to ask for it again may take the operator."""
        other = replace(self, **changed)
        if "image_shape" in self.__dict__:
            other.__dict__["image_shape"] = self.image_shape
        return other


def _single(x: Tensor) -> Tensor:
    """In single precision, if it is a number."""
    return x.float() if x.is_floating_point() else x.to(torch.complex64) if x.is_complex() else x


def simulate(physics: Physics, x: Tensor, sigma_y: float, seed: int = 0) -> Problem:
    """The problem that a camera or scanner would pose: y = A(x) + sigma_y n, n from the stream of `seed`.

    x (B, C, H, W). Entries of y that the operator cannot reach stay zero. Raises ValueError as `Problem` does.
    """
    with torch.no_grad():
        clean = physics.A(x)
    if not isinstance(clean, Tensor):
        raise ValueError(f"physics: expected one that gives a tensor (B, ...), got {type(clean).__name__} from "
                         f"{type(physics).__name__}")
    noise = torch.randn(clean.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(seed)).to(clean)
    problem = Problem(physics, clean, sigma_y)
    return Problem(physics, clean + sigma_y * noise * problem.observed(), sigma_y)


def require(physics: Physics, kind: type, sampler: str, alternatives: str) -> Any:
    """`physics`, if it is of `kind`. Raises InputError naming the operator and the samplers that would work."""
    if isinstance(physics, kind):
        return physics
    need = {LinearPhysics: "a linear operator", DecomposablePhysics: "an operator with an SVD"}[kind]
    raise InputError(f"{sampler} needs {need}, and {type(physics).__name__} is none; these would work: {alternatives}")
