"""Colorization: a colour image of which only the brightness is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check, _parameters


@_parameters.also_in_calls
class Colorization(DecomposablePhysics):
    """y = a weighted sum of the three channels of x, plus noise.

    img_size: (3, H, W). weights: of red, green and blue, finite and not all zero. By default the luma of Rec. 601, as
    in Pillow's `convert("L")` and deepinv's Decolorize; DDRM takes the mean, (1/3, 1/3, 1/3).
    noise_model, device: deepinv's. x is (B, 3, H, W), y (B, 1, H, W), in the same units where the weights sum to 1.

    V turns the colours of each pixel so that the first axis is that of the weights. The one singular value is |weights|,
    in the first plane of the coefficients (B, 3, H, W).
    Raises ValueError on weights or an img_size that are not so, and when called on a tensor of another size.
    """

    mask: Tensor
    weights: Tensor
    _axes: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        weights: tuple[float, float, float] = (0.299, 0.587, 0.114),
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        channels, height, width = img_size = _check.image_size(img_size)
        if channels != 3:
            raise ValueError(f"img_size: expected 3 channels, (3, H, W), got {img_size}")
        own = _as_weights(weights)
        super().__init__(img_size=img_size, noise_model=noise_model, device=device)
        self.measurement_size = (1, height, width)
        self.register_buffer("weights", own.to(device, torch.get_default_dtype()))
        self.register_buffer("_axes", None)
        self._set_svd()

    def _set_svd(self) -> None:
        weights = self.weights.double()
        norm = torch.linalg.vector_norm(weights)
        # the reflection that takes the first axis to the direction of the weights, either way: there is no cancellation
        first = torch.eye(3, dtype=torch.float64, device=weights.device)[0]
        sign = torch.where(weights[0] < 0, -1.0, 1.0)
        normal = weights / norm + sign * first
        axes = torch.eye(3, device=weights.device) - 2 * torch.outer(normal, normal) / normal.dot(normal)
        axes[:, 0] *= -sign
        self._axes = axes.to(self.weights)
        self.mask = (norm * first).reshape(1, 3, 1, 1).to(self.weights)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        if self._buffers.get("_axes") is not None:  # not while deepinv's constructor runs
            self._set_svd()  # anew, so that A = U diag(s) Vᵀ holds to the precision of the new dtype
        return self

    def update_parameters(self, weights: Sequence[float] | Tensor | None = None, **kwargs) -> None:
        """Take other weights, unless they are None, as the constructor does. Other parameters are ignored."""
        if weights is not None:
            self.weights = _as_weights(weights).to(self.weights)
            self._set_svd()

    @property
    def singular_values(self) -> Tensor:
        """(1, 3, 1, 1): |weights|, 0, 0."""
        return self.mask

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """Weighted sum of the channels, (B, 1, H, W), of x (B, 3, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return _algebra.mix_channels(self.weights[None], x)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """weights · y, (B, 3, H, W), of y (B, 1, H, W)."""
        _check.images(self, "y", y, self.measurement_size)
        return self.weights[:, None, None] * y

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """AᵀA x, (B, 3, H, W)."""
        return self.A_adjoint(self.A(x))

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """A Aᵀ y = |weights|² y."""
        _check.images(self, "y", y, self.measurement_size)
        return self._sq_norm() * y

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """weights · y / |weights|², (B, 3, H, W)."""
        return self.A_adjoint(y) / self._sq_norm()

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        return _algebra.prox_orthogonal_rows(self, z, y, gamma, sq_norm=self._sq_norm())

    def U(self, x: Tensor) -> Tensor:
        """Measurement (B, 1, H, W): the first plane of the coefficients x (B, 3, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return x[..., :1, :, :]

    def U_adjoint(self, x: Tensor, **kwargs) -> Tensor:
        """Coefficients (B, 3, H, W) of a measurement (B, 1, H, W): it, and two planes of zeros."""
        _check.images(self, "y", x, self.measurement_size)
        return F.pad(x, (0, 0, 0, 0, 0, 2))

    def V(self, x: Tensor, **kwargs) -> Tensor:
        """Image (B, 3, H, W) of the coefficients x (B, 3, H, W)."""
        _check.images(self, "coefficients", x, self.img_size)
        return _algebra.mix_channels(self._axes, x)

    def V_adjoint(self, x: Tensor) -> Tensor:
        """Coefficients (B, 3, H, W) of the image x (B, 3, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return _algebra.mix_channels(self._axes.T, x)

    def solve_stationary(self, power: Tensor, r: Tensor, sigma: float | Tensor) -> Tensor:
        """(A C Aᵀ + sigma² I)^{-1} r, (B, 1, H, W); arguments as in `Blur.solve_stationary`.

        C treats the channels as independent, so the spectrum of A C Aᵀ is the sum of theirs by the squared weights.
        """
        _check.images(self, "r", r, self.measurement_size)
        power = _algebra.half_power(power, r, *self.img_size[1:])
        spectrum = (self.weights[:, None, None] ** 2 * power).sum(-3, keepdim=True)
        return _algebra.solve_circulant(spectrum + _algebra.per_image(sigma, r) ** 2, r)

    def _sq_norm(self) -> Tensor:
        return self.weights.square().sum()


def _as_weights(weights: Sequence[float] | Tensor) -> Tensor:
    """The weights (3,) in float64."""
    try:
        numbers = [_check.real("weights", w, -math.inf, math.inf) for w in weights]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 3 or not any(numbers):
        raise ValueError(f"weights: expected three finite numbers, not all zero, got {weights!r}")
    return torch.tensor(numbers, dtype=torch.float64)
