"""Inpainting: some pixels are measured, the others are missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import DecomposablePhysics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check, _parameters


@_parameters.also_in_calls
class Inpainting(DecomposablePhysics):
    """y = mask · (x + n): y keeps the shape of x, with zeros at the missing pixels.

    img_size: (C, H, W). mask: (H, W), (1, H, W) or (C, H, W), or one for each image of a batch, (B, 1, H, W) or
    (B, C, H, W); tensor or array, bool or 0/1, True = measured. noise_model, device: deepinv's.
    Singular values are the mask; U and V are the identity, and U and U_adjoint put zeros at the missing pixels.
    Raises ValueError on a mask of another shape, with other values, or under which nothing is measured, and when
    called on a tensor of another size.
    """

    mask: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        mask: Tensor | np.ndarray,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size = _check.image_size(img_size)
        mask = _as_mask(mask, img_size)
        super().__init__(img_size=img_size, mask=mask, noise_model=noise_model, device=device)
        self.measurement_size = img_size

    def update_parameters(self, mask: Tensor | np.ndarray | None = None, **kwargs) -> None:
        """Take another mask, unless it is None, as the constructor does. Other parameters are ignored."""
        if mask is not None:
            self.mask = _as_mask(mask, self.img_size).to(self.mask)

    @property
    def singular_values(self) -> Tensor:
        """The mask, 0 or 1, (1 or B, 1 or C, H, W)."""
        return self.mask

    def _masked(self, name: str, value: Tensor) -> Tensor:
        _check.images(self, name, value, self.img_size)
        if self.mask.shape[0] not in (1, value.shape[0]):
            raise ValueError(f"{name}: expected {self.mask.shape[0]} images, one a mask, got {tuple(value.shape)}")
        return value * self.mask

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """x with zeros at the missing pixels, (B, C, H, W)."""
        return self._masked("x", x)

    def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """y with zeros at the missing pixels, (B, C, H, W)."""
        return self._masked("y", y)

    def A_adjoint_A(self, x: Tensor, **kwargs) -> Tensor:
        """The same as A: it is a projection."""
        return self._masked("x", x)

    def A_A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
        """The same as A: it is a projection."""
        return self._masked("y", y)

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """The same as A: it is a projection."""
        return self._masked("y", y)

    def U(self, x: Tensor) -> Tensor:
        """Measurement of the coefficients, (B, C, H, W)."""
        return self._masked("coefficients", x)

    def U_adjoint(self, x: Tensor, **kwargs) -> Tensor:
        """Coefficients of a measurement, (B, C, H, W), zero where nothing is measured."""
        return self._masked("y", x)

    def noise(self, x: Tensor, **kwargs) -> Tensor:
        """The noisy measurement; a missing pixel stays zero."""
        return self._masked("y", self.noise_model(x, **kwargs))

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs) -> Tensor:
        """argmin_x gamma/2 |Ax - y|² + 1/2 |x - z|²; gamma: a scalar, (B,) or (B, 1, 1, 1)."""
        return _algebra.prox_orthogonal_rows(self, z, y, gamma, sq_norm=1.0)


def random_mask(img_size: Sequence[int], keep: float = 0.5, seed: int = 0) -> Tensor:
    """A bool mask (1, H, W) under which round(keep · H · W) pixels, drawn at random, are measured.

    img_size: (C, H, W). keep: fraction of measured pixels, in (0, 1]. seed: an integer >= 0.
    Raises ValueError on a value outside these ranges, or when not one pixel would be measured.
    """
    _, height, width = _check.image_size(img_size)
    keep = _check.real("keep", keep, 0, 1, low_included=False)
    count = round(keep * height * width)
    if count == 0:
        raise ValueError(f"keep: expected at least one measured pixel of {height} x {width}, got keep = {keep}")
    order = np.random.default_rng(_check.integer("seed", seed, 0)).permutation(height * width)
    return torch.from_numpy(order < count).reshape(1, height, width)


def box_mask(
    img_size: Sequence[int],
    top: int | None = None,
    left: int | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Tensor:
    """A bool mask (1, H, W) with a rectangle of missing pixels.

    img_size: (C, H, W). height, width: of the rectangle, pixels; half the image's by default. top, left: its first
    row and column; centred by default.
    Raises ValueError when the rectangle leaves the image or covers all of it.
    """
    _, rows, columns = _check.image_size(img_size)
    height = _check.integer("height", max(rows // 2, 1) if height is None else height, 1)
    width = _check.integer("width", max(columns // 2, 1) if width is None else width, 1)
    top = _check.integer("top", max(rows - height, 0) // 2 if top is None else top, 0)
    left = _check.integer("left", max(columns - width, 0) // 2 if left is None else left, 0)
    box = f"rows {top} to {top + height}, columns {left} to {left + width}"
    if top + height > rows or left + width > columns:
        raise ValueError(f"box: expected to lie within (H, W) = {(rows, columns)}, got {box}")
    if (height, width) == (rows, columns):
        raise ValueError(f"box: expected to leave a pixel of (H, W) = {(rows, columns)} measured, got {box}")
    mask = torch.ones(1, rows, columns, dtype=torch.bool)
    mask[:, top : top + height, left : left + width] = False
    return mask


def row_mask(img_size: Sequence[int], keep: float = 0.5, seed: int = 0) -> Tensor:
    """A bool mask (1, H, W) under which round(keep · H) whole rows, drawn at random, are measured.

    img_size: (C, H, W). keep: fraction of measured rows, in (0, 1]. seed: an integer >= 0.
    Raises ValueError on a value outside these ranges, or when not one row would be measured.
    """
    _, height, width = _check.image_size(img_size)
    keep = _check.real("keep", keep, 0, 1, low_included=False)
    if round(keep * height) == 0:
        raise ValueError(f"keep: expected at least one measured row of {height}, got keep = {keep}")
    return random_mask((1, height, 1), keep, seed).repeat(1, 1, width)


def half_mask(img_size: Sequence[int], missing: str = "right") -> Tensor:
    """A bool mask (1, H, W) with one half missing; of an odd number of rows or columns, the smaller part.

    img_size: (C, H, W). missing: "left", "right", "top" or "bottom".
    Raises ValueError on another word, and when there is only one row or column to halve.
    """
    _, height, width = _check.image_size(img_size)
    if missing not in ("left", "right", "top", "bottom"):
        raise ValueError(f"missing: expected 'left', 'right', 'top' or 'bottom', got {missing!r}")
    count = height if missing in ("top", "bottom") else width
    if count == 1:
        raise ValueError(f"img_size: expected at least 2 pixels to halve, got (H, W) = {(height, width)}")
    place = torch.arange(count)
    kept = place >= count // 2 if missing in ("left", "top") else place < count - count // 2
    line = kept[:, None] if missing in ("top", "bottom") else kept[None]
    return line.expand(height, width)[None].clone()


def image_mask(image: Tensor | np.ndarray) -> Tensor:
    """A bool mask (1, H, W) from a drawing: white is measured, black is missing.

    image: (H, W), (1, H, W), (3, H, W) or (4, H, W); bool, uint8, or floating in [0, 1]. A pixel is measured where the
    mean of its colours is above the middle of the range. The fourth channel is opacity: what is transparent is black.
    Raises ValueError on another shape, type or range, and on a drawing under which nothing is measured.
    """
    drawn = _check.own_tensor(image)
    if not 2 <= drawn.ndim <= 3 or drawn.numel() == 0 or (drawn.ndim == 3 and drawn.shape[0] not in (1, 3, 4)):
        raise ValueError(f"image: expected (H, W) or (1, 3 or 4, H, W), got {tuple(drawn.shape)}")
    if not (drawn.dtype in (torch.bool, torch.uint8) or drawn.is_floating_point()):
        raise ValueError(f"image: expected bool, uint8, or floating point in [0, 1], got {drawn.dtype}")
    levels = drawn.double() / (255 if drawn.dtype == torch.uint8 else 1)
    if not ((levels >= 0) & (levels <= 1)).all():
        low, high = levels.min().item(), levels.max().item()
        raise ValueError(f"image: expected values in [0, 1], got values in [{low:g}, {high:g}]")
    levels = levels.reshape(-1, *levels.shape[-2:])
    brightness = levels[:3].mean(0, keepdim=True)
    mask = brightness * levels[3:] > 0.5 if len(levels) == 4 else brightness > 0.5
    if not mask.any():
        raise ValueError(f"image: expected white where pixels are measured, got none in (H, W) = {tuple(mask.shape[1:])}")
    return mask


def _as_mask(mask: Tensor | np.ndarray, img_size: tuple[int, int, int]) -> Tensor:
    """The mask as a float tensor (1 or B, 1 or C, H, W)."""
    mask = _check.own_tensor(mask)
    channels, *size = img_size
    if list(mask.shape[-2:]) != size:
        raise ValueError(f"mask: expected (H, W) = {tuple(size)}, got {tuple(mask.shape)}")
    if not 2 <= mask.ndim <= 4 or (mask.ndim > 2 and mask.shape[-3] not in (1, channels)):
        raise ValueError(
            f"mask: expected (H, W), (1 or {channels}, H, W) or (B, 1 or {channels}, H, W), got {tuple(mask.shape)}"
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"mask: expected bool, or only 0 and 1 (1 = measured), got values such as {_odd_value(mask)}")
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape).to(torch.get_default_dtype())
    if mask.shape[0] == 0 or not mask.flatten(1).any(dim=1).all():
        raise ValueError(f"mask: expected at least one measured pixel an image, got none in {tuple(mask.shape)}")
    return mask


def _odd_value(mask: Tensor) -> float:
    return mask[(mask != 0) & (mask != 1)][0].item()
