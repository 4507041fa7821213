"""Pointwise nonlinear cameras: clipping, quantisation, and a blur of the light behind a gamma curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import LinearPhysics, Physics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _check, _parameters
from operators.blur import Blur

TOE = 1e-6  # light below which the gamma curve is a line, whose slope is finite at zero


class HighDynamicRange(Physics):
    """y = clip(pivot + gain · (x - pivot), 0, 1) + n: a photograph with blown highlights.

    img_size: (C, H, W). gain: > 0. pivot: in [0, 1], the level that stays where it is. At 0 only what is brighter than
    1 / gain is lost. At 0.5 with gain 2 it is clip(2 x, -1, 1) for images in [-1, 1], which loses the shadows too: the
    "HDR" of RED-diff (Mardani et al. 2023) and DAPS (Zhang et al. 2024).
    noise_model, device: deepinv's. x and y are (B, C, H, W). The gradient is `gain` where nothing is clipped, else 0.
    Raises ValueError on values outside these ranges, and when called on a tensor of another size.
    """

    def __init__(
        self,
        img_size: Sequence[int],
        gain: float = 2.0,
        pivot: float = 0.0,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size = _check.image_size(img_size)
        gain = _check.real("gain", gain, 0, math.inf, low_included=False)
        pivot = _check.real("pivot", pivot, 0, 1)
        super().__init__(noise_model=noise_model)
        self.img_size = self.measurement_size = img_size
        self._gain, self._pivot = gain, pivot  # `gain` is the name that deepinv's update() gives to Poisson noise
        self.register_buffer("_device_holder", torch.zeros((), device=device), persistent=False)

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The clipped image, (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return (self._pivot + self._gain * (x - self._pivot)).clamp(0, 1)

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """The image within the range of the camera whose picture is y in [0, 1]: what was clipped stays at the clip."""
        _check.images(self, "y", y, self.measurement_size)
        return self._pivot + (y - self._pivot) / self._gain


class Quantization(Physics):
    """y = round(clip(x, 0, 1) · (2^bits - 1)) / (2^bits - 1) + n: an image in 2^bits levels.

    img_size: (C, H, W). bits: an integer in [1, 16]. noise_model, device: deepinv's. x and y are (B, C, H, W).
    The derivative of A is zero almost everywhere; the gradient here is that of the clip alone, 1 for x in [0, 1] and 0
    outside (straight-through, Bengio et al. 2013), which `piecewise_constant` tells samplers. Halves go to the even level, as
    in torch.round.
    Raises ValueError on values outside these ranges, and when called on a tensor of another size.
    """

    piecewise_constant = True

    def __init__(
        self,
        img_size: Sequence[int],
        bits: int = 3,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size = _check.image_size(img_size)
        bits = _check.integer("bits", bits, 1)
        if bits > 16:
            raise ValueError(f"bits: expected at most 16, got {bits}")
        super().__init__(noise_model=noise_model)
        self.img_size = self.measurement_size = img_size
        self.bits = bits
        self.register_buffer("_device_holder", torch.zeros((), device=device), persistent=False)

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The quantised image, (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        most = 2**self.bits - 1
        return round_through(x.clamp(0, 1) * most) / most

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """A copy of y: the middle of the values that are rounded to it, but for the two outermost levels."""
        _check.images(self, "y", y, self.measurement_size)
        return y.clone()


@_parameters.also_in_calls
class NonlinearBlur(Physics):
    """y = kernel * x^gamma + n: the light that an image stands for is blurred, and not its grey levels.

    img_size: (C, H, W). kernel: real (kh, kw), tensor or array, for a circular blur as in `Blur`; or any linear physics
    for images of img_size, of which a copy is kept (its noise model is not used). gamma: >= 1, of the curve between grey
    levels and light, about 2.2 for displays. encode: True gives y back in grey levels, (kernel * x^gamma)^(1/gamma), as in
    a finished photograph; False leaves it linear in light, as a sensor measures it and where its noise is white.
    noise_model, device: deepinv's. x is (B, C, H, W), y what the blur gives, (B, C, H, W) for a kernel.

    x below 0 counts as 0. Below a light of 1e-6 the encoding is a straight line, so its gradient stays finite.
    Raises ValueError on a bad kernel or gamma, on a physics for other images, and when called on a tensor of another
    size; TypeError on a nonlinear physics.
    """

    def __init__(
        self,
        img_size: Sequence[int],
        kernel: Tensor | np.ndarray | LinearPhysics,
        gamma: float = 2.2,
        encode: bool = False,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size = _check.image_size(img_size)
        gamma = _check.real("gamma", gamma, 1, math.inf)
        super().__init__(noise_model=noise_model)
        self.register_buffer("_device_holder", torch.zeros((), device=device), persistent=False)
        self.blur = _as_blur(kernel, img_size).to(device)
        self.img_size = img_size
        self.measurement_size = tuple(getattr(self.blur, "measurement_size", None) or self._shape_of_measurement())
        self._gamma, self.encode = gamma, bool(encode)

    def _shape_of_measurement(self) -> torch.Size:
        example = next((b for b in self.blur.buffers() if b.is_floating_point()), self._device_holder)
        return self.blur.A(torch.zeros(1, *self.img_size).to(example)).shape[1:]

    def update_parameters(self, **kwargs) -> None:
        """Those of the blur, such as another kernel."""
        self.blur.update_parameters(**kwargs)

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The blurred image, (B, *measurement_size)."""
        _check.images(self, "x", x, self.img_size)
        light = self.blur.A(x.clamp(min=0) ** self._gamma)
        return _grey_levels(light, self._gamma) if self.encode else light

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """An estimate to start from, (B, C, H, W): the blur is undone in the light, then the curve.

        The light is argmin_x 50 |kernel * x - light of y|² + 1/2 |x - Aᵀ light of y|². So it is not the exact inverse
        even without noise, and for a blur with singular values in [0, 1] it amplifies noise at most about fivefold.
        """
        _check.images(self, "y", y, self.measurement_size)
        light = y.clamp(min=0) ** self._gamma if self.encode else y
        return _grey_levels(self.blur.prox_l2(self.blur.A_adjoint(light), light, 100.0), self._gamma)


def _grey_levels(light: Tensor, gamma: float) -> Tensor:
    """light^(1/gamma), a straight line through the origin below TOE, zero below zero."""
    curve = light.clamp(min=TOE) ** (1 / gamma)
    return torch.where(light > TOE, curve, light.clamp(min=0) * TOE ** (1 / gamma - 1))


def _as_blur(kernel: Tensor | np.ndarray | LinearPhysics, img_size: tuple[int, int, int]) -> LinearPhysics:
    """The linear physics that `kernel` is or stands for, a copy."""
    if not isinstance(kernel, Physics):
        return Blur(img_size, kernel)
    if not isinstance(kernel, LinearPhysics):
        raise TypeError(f"kernel: expected a tensor, an array or a linear physics, got {type(kernel).__name__}")
    size = getattr(kernel, "img_size", None)
    if size is not None and tuple(size) != img_size:
        raise ValueError(f"kernel: expected a physics for images {img_size}, got one for {tuple(size)}")
    return kernel.clone()


def round_through(x: Tensor) -> Tensor:
    """x rounded, with the gradient of x."""
    return straight_through(x.round(), x)


def straight_through(value: Tensor, carrier: Tensor) -> Tensor:
    """Exactly `value`, with the gradient of `carrier`."""
    return value.detach() + (carrier - carrier.detach())
