"""What is known: the operator, the measurement and its noise."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from deepinv.physics import DecomposablePhysics, LinearPhysics, Physics
from torch import Tensor

from invdiff.errors import InputError
from invdiff.physics import as_one, image_shape, in_single, said, selects_orthonormal_rows, takes_one_at_a_time
from operators import least_squares

DESCENT_STEPS = 10
NOISE_FLOOR = 1e-6      # float32 arithmetic leaves about this much noise in A x: a "noiseless" measurement is no better
NEARLY_ALL = 0.95       # of the noise, where one that is rounded away is told from one as large as the steps


@dataclass
class Calls:
    """How often a problem's operator was applied to an image or a measurement (A, its transpose, a factor of its SVD)."""

    operator: int = 0


@dataclass(frozen=True)
class Problem:
    """y = A(x) + n, with white Gaussian noise n of standard deviation sigma_y.

    Args:
        physics: any deepinv physics, ours or theirs. A stack of deepinv's becomes an `operators.stack`.
        y: measurement (B, ...), float; samplers work in float32. Of a stack also a list of measurements, which become one.
        sigma_y: noise standard deviation in y's units, >= 0, one for all of y; 0 means noiseless. There is no default. Of
            deepinv's stack also one for each of its measurements.

    Raises:
        ValueError: sigma_y not one number, negative or not finite; y no tensor, not float, not finite, of one dimension, or of
            a shape the operator does not give.
    """

    physics: Physics
    y: Tensor
    sigma_y: float
    calls: Calls = field(default_factory=Calls, compare=False)

    def __post_init__(self) -> None:
        for name, value in zip(("physics", "y", "sigma_y"), as_one(self.physics, self.y, self.sigma_y), strict=True):
            object.__setattr__(self, name, value)
        if isinstance(self.sigma_y, Tensor):
            if self.sigma_y.numel() != 1:
                raise ValueError(f"sigma_y: expected one noise level, got {self.sigma_y.numel()}; where each measurement has "
                                 "its own, restore them one by one, as Problem(physics, y[j : j + 1], sigma_y[j])")
            object.__setattr__(self, "sigma_y", float(self.sigma_y))
        if not isinstance(self.sigma_y, Real) or not 0 <= self.sigma_y < float("inf"):
            raise ValueError(f"sigma_y: expected a noise level >= 0 in the measurement's units, got {self.sigma_y!r}")
        if not isinstance(self.y, Tensor):
            raise ValueError(f"y: expected a tensor (B, ...), got {type(self.y).__name__}; what several operators measure "
                             "belongs to a stack of them, operators.stack")
        if not self.y.is_floating_point():
            raise ValueError(f"y: expected float32, with complex values as two channels, got {self.y.dtype}")
        if self.y.ndim < 2:
            raise ValueError(f"y: expected (B, ...), got {tuple(self.y.shape)}; one number for each image is to be (B, 1)")
        bad = int((~torch.isfinite(self.y)).sum())
        if bad:
            raise ValueError(f"y: {bad} of {self.y.numel()} values are NaN or infinite; expected finite values")
        expected = getattr(self.physics, "measurement_size", None)
        if expected is not None and tuple(self.y.shape[1:]) != tuple(expected):
            raise ValueError(f"y: expected (B, *{tuple(expected)}), got {tuple(self.y.shape)}")

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the image. Raises ValueError if the operator does not know it, nor tells it by its A_adjoint."""
        return image_shape(self.physics, self.y)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.image_shape[-2], self.image_shape[-1]

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

    @property
    def together(self) -> bool:
        """Has the operator parameters of its own for each of several measurements?"""
        return len(self.y) > 1 and (self.seen_of_one is None or len(self.seen_of_one) != 1)

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

    @cached_property
    def alike(self) -> bool:
        """Does a linear operator do the same to each channel, and mix none, as random images show? Then channels may as well be
        mixed after it as before it."""
        channels = self.image_shape[0]
        if self.y.ndim < 3 or self.y.shape[1] != channels:
            return False
        generator = torch.Generator().manual_seed(0)
        x, mix = (torch.randn(shape, dtype=torch.float32, generator=generator).to(self.y)
                  for shape in (self.image_shape, (channels, channels)))

        def mixed(z: Tensor) -> Tensor:     # by sums, which no autocast makes coarser
            return (mix[..., None] * z.flatten(2)[:, None]).sum(2).unflatten(2, z.shape[2:])

        with torch.no_grad():
            x = x.expand(len(self.y), *self.image_shape)    # an operator may have a mask for each measurement
            after = mixed(self.physics.A(x))
            return bool((self.physics.A(mixed(x)) - after).norm() <= 1e-2 * after.norm())

    @cached_property
    def reaches_entries(self) -> bool:
        """Does A A^T, of an operator with singular values 0 and 1, pick entries of y, as noise shows, and not project y onto
        what is spread over all of them? Of other operators, true."""
        if not selects_orthonormal_rows(self.physics):
            return True
        y = torch.randn(self.y.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).to(self.y)
        with torch.no_grad():
            lost = y * self.observed() - self.physics.A(self.physics.A_adjoint(y))
        return bool(lost.norm() <= 1e-4 * y.norm())

    def of(self, y: Tensor) -> "Problem":
        """The same for another measurement of a linear operator, which is not asked again what it is like."""
        other = self._but(y=y)
        other.__dict__.update(mean_gain=self.mean_gain, alike=self.alike, reaches_entries=self.reaches_entries)
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
        x = torch.rand((self.y.shape[0], *self.image_shape), dtype=torch.float32, generator=generator).to(self.y)
        images = [x + 0.5]
        if not isinstance(self.physics, LinearPhysics):         # what is zero for one image may not be for another; none has
            images += [0.01 + 0.98 * x, torch.full_like(x, 0.01), torch.full_like(x, 0.99)]     # zeros, for logarithms
        return torch.stack([self.physics.A(image) != 0 for image in images]).any(0)

    def measured(self) -> "Problem":
        """The same, with zeros in y where a linear operator gives none, whatever a file has there. Raises InputError where it
        takes one image at a time, and there are several measurements."""
        if not isinstance(self.physics, LinearPhysics):
            return self
        try:
            return self._but(y=self.y * self.observed())
        except RuntimeError as error:
            if len(self.y) > 1 and takes_one_at_a_time(self.physics, self.y.new_full((2, *self.image_shape), 0.5)):
                raise InputError(f"{type(self.physics).__name__}: its A takes one image at a time ({said(error)}); restore "
                                 "measurements one by one, with batch_size=1") from error
            raise

    def rounded(self) -> "Problem":
        """The same without noise, where a `piecewise_constant` operator's rounding takes it from y. The gradient of such a one
        is made up, and a chain that weighs it against little noise heats up; without noise it descends to what gives y."""
        if self.sigma_y > 0 and getattr(self.physics, "piecewise_constant", False) and self._rounds_noise_away():
            return self._but(y=self.physics.A(self.physics.A_dagger(self.y)), sigma_y=0.0)
        return self

    def _rounds_noise_away(self) -> bool:
        """Does A A^+ take the noise from what it makes of a ramp of greys? So it is the same whatever y is beside."""
        height, width = self.image_shape[1:]
        x = torch.linspace(0.25, 0.75, height * width).reshape(height, width).expand(1, *self.image_shape).to(self.y)
        with torch.no_grad():
            y = self.physics.A(x)
            y = y + self.sigma_y * torch.randn(y.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).to(y)
            taken = y - self.physics.A(self.physics.A_dagger(y))
        return float(taken.square().mean().sqrt()) > NEARLY_ALL * self.sigma_y

    def rows(self, index: Tensor) -> "Problem":
        """The measurements at `index`, with the same operator and the same call counter."""
        return self._but(y=self.y[index])

    def to(self, device: torch.device | str) -> "Problem":
        """The same on a device, in float32; an operator that is elsewhere or of another precision is copied."""
        y = self.y.to(device, torch.float32)
        return self._but(physics=in_single(self.physics, y.device), y=y)

    def _but(self, **changed: Any) -> "Problem":
        """The same but for these fields, with what is known of the operator that holds for any measurement."""
        other = replace(self, **changed)
        other.__dict__.update({name: self.__dict__[name] for name in ("image_shape", "alike", "reaches_entries")
                               if name in self.__dict__})
        return other


def require(physics: Physics, kind: type, sampler: str, alternatives: str) -> Any:
    """`physics`, if it is of `kind`. Raises InputError naming the operator and the samplers that would work."""
    if isinstance(physics, kind):
        return physics
    need = {LinearPhysics: "a linear operator", DecomposablePhysics: "an operator with an SVD"}[kind]
    raise InputError(f"{sampler} needs {need}, and {type(physics).__name__} is none; these would work: {alternatives}")
