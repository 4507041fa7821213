"""JPEG compression: the decoded image, by the real codec or by one in torch, with a gradient."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from deepinv.physics import Physics
from deepinv.physics.noise import NoiseModel
from torch import Tensor
from torch.nn import functional

from operators import _algebra, _check
from operators._precision import matmul
from operators._transforms import dct
from operators.nonlinear import round_through, straight_through

_LUMINANCE = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
_CHROMINANCE = """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99"""
_YCBCR = [[0.299, 0.587, 0.114], [-0.299 / 1.772, -0.587 / 1.772, 0.5], [0.5, -0.587 / 1.402, -0.114 / 1.402]]


class JPEG(Physics):
    """y = decode(encode(x)) + n, baseline JPEG as libjpeg writes and reads it.

    img_size: (C, H, W), C 1 (grey) or 3 (colour), any H and W. quality: an integer in [1, 100], with libjpeg's scaling of
    the tables of ITU-T T.81, Annex K. chroma_subsampling: True is 4:2:0, False 4:4:4; no matter for grey images. real:
    True runs the codec of Pillow on the CPU image by image, False a model of it in torch, on x's device.
    noise_model, device: deepinv's. x and y are (B, C, H, W), y in [0, 1] in steps of 1/255; x outside [0, 1] is clipped.

    The model rounds where the codec rounds, but for constants that the codec has as integers: where a coefficient is half of a
    step, it may be rounded the other way. On crops of four photographs, new or out of another JPEG, at qualities from 5 to 100,
    the two differ by 0.004 grey levels in the median, by less than 0.03 on 95 % and by 0.19 at most (measured with
    libjpeg-turbo). Gradients pass a rounding as if it were the identity (straight-through, Bengio et al. 2013; Shin & Song 2017
    smooth it instead) and stop where a value is clipped; `real` has those of the model. They are not those of a misfit:
    Langevin dynamics that trust them against noise smaller than the steps heat up, so `piecewise_constant` tells samplers.
    Raises ValueError on values outside these ranges, and when called on a tensor of another size.
    """

    piecewise_constant = True
    _tables: Tensor
    _cosines: Tensor
    _to_ycbcr: Tensor
    _to_rgb: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        quality: int = 20,
        chroma_subsampling: bool = True,
        real: bool = False,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        img_size = _check.image_size(img_size)
        if img_size[0] not in (1, 3):
            raise ValueError(f"img_size: expected (C, H, W) with 1 or 3 channels, got {img_size}")
        quality = _check.integer("quality", quality, 1)
        if quality > 100:
            raise ValueError(f"quality: expected at most 100, got {quality}")
        super().__init__(noise_model=noise_model)
        self.img_size = self.measurement_size = img_size
        self.quality, self.chroma_subsampling, self.real = quality, bool(chroma_subsampling), bool(real)
        ycbcr = (torch.tensor(_YCBCR, dtype=torch.float64) * 2**16).round() / 2**16  # as in libjpeg, so that sums are exact
        buffers = {
            "_tables": quantization_tables(quality),
            "_cosines": dct(torch.eye(8, dtype=torch.float64)),
            "_to_ycbcr": ycbcr,
            "_to_rgb": torch.linalg.inv(ycbcr),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.to(device, torch.get_default_dtype()))

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The decoded image, (B, C, H, W)."""
        _check.images(self, "x", x, self.img_size)
        work = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(-1, *self.img_size)
        levels = round_through(work.clamp(0, 1) * 255)
        if self.img_size[0] == 1:
            decoded = self._compress(levels, 0)
        elif self.chroma_subsampling:
            decoded = self._colour(levels, _halve, _double)
        else:
            decoded = self._colour(levels, lambda plane: plane, lambda plane, size: plane)
        if self.real:
            decoded = straight_through(_Codec.apply(levels.detach(), self.quality, self.chroma_subsampling), decoded)
        return (decoded / 255).reshape(x.shape).to(x.dtype)

    def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
        """A copy of y, the decoded image: to compress it again changes it little."""
        _check.images(self, "y", y, self.measurement_size)
        return y.clone()

    def _colour(self, levels: Tensor, shrink: Any, grow: Any) -> Tensor:
        """The decoded colour image (B, 3, H, W) in 0..255, with the chroma planes shrunk in between."""
        size = levels.shape[-2:]
        ycbcr = _algebra.mix_channels(self._to_ycbcr.to(levels), levels)
        offset = torch.tensor([0.0, 128 - 2**-16, 128 - 2**-16]).to(levels)  # half a level of chroma is rounded down
        ycbcr = ycbcr + offset[:, None, None]
        ycbcr = straight_through((ycbcr + 0.5).floor(), ycbcr).clamp(0, 255)
        luma = self._compress(ycbcr[:, :1], 0)
        chroma = grow(self._compress(shrink(ycbcr[:, 1:]), 1), size)
        decoded = torch.cat([luma, chroma - 128], dim=1)
        return _round_up(_algebra.mix_channels(self._to_rgb.to(decoded), decoded)).clamp(0, 255)

    def _compress(self, planes: Tensor, table: int) -> Tensor:
        """Planes (B, C, h, w) in 0..255 after quantisation of the cosine coefficients of their 8 x 8 blocks.

        The codec's transforms have integers in between, coefficients in steps of 1/8, and are sqrt(8) as large along an axis.
        """
        height, width = planes.shape[-2:]
        cosines, steps = self._cosines.to(planes), self._tables[table].to(planes)
        padded = functional.pad(planes - 128, (0, -width % 8, 0, -height % 8), mode="replicate")
        blocks = padded.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)  # (B, C, h / 8, w / 8, 8, 8)
        rows = _round_up(4 * 8**0.5 * matmul(blocks, cosines))
        exact = _round_up(8**0.5 / 4 * matmul(cosines.T, rows)) / (8 * steps)
        coefficients = straight_through(exact.sign() * _round_up(exact.abs()), exact) * steps
        columns = _round_up(4 * 8**0.5 * matmul(cosines, coefficients))
        decoded = matmul(columns, cosines.T) / (4 * 8**0.5)
        decoded = decoded.transpose(-3, -2).flatten(-2).flatten(-3, -2)
        return _round_up(decoded[..., :height, :width] + 128).clamp(0, 255)


def quantization_tables(quality: int) -> Tensor:
    """Luminance and chrominance steps (2, 8, 8) of libjpeg at `quality` in [1, 100] (jcparam.c), vertical frequency first."""
    base = torch.tensor([int(step) for step in (_LUMINANCE + " " + _CHROMINANCE).split()], dtype=torch.float64)
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((base * percent + 50) / 100).floor().clamp(1, 255).reshape(2, 8, 8)


def _round_up(x: Tensor) -> Tensor:
    """x rounded, halves up as in libjpeg, in spite of the error of floats; with the gradient of x."""
    return straight_through((x + 0.5 + 1e-4).floor(), x)


def _halve(planes: Tensor) -> Tensor:
    """Means over 2 x 2 pixels, (..., ceil(H / 2), 8 ceil(W / 16)); libjpeg rounds halves down and up in turns.

    As in libjpeg the last column is repeated to the end of the blocks before the means are taken, but the last row after.
    """
    height, width = planes.shape[-2:]
    means = functional.avg_pool2d(functional.pad(planes, (0, -width % 16, 0, height % 2), mode="replicate"), 2)
    return round_through(means + _in_turns(-1 / 8, means))


def _double(planes: Tensor, size: Sequence[int]) -> Tensor:
    """Planes of twice the size, cropped to `size`, by libjpeg's triangle filter, which it skips on very narrow images."""
    planes = planes[..., : (size[1] + 1) // 2]
    if planes.shape[-1] <= 2:
        return functional.interpolate(planes, scale_factor=2, mode="nearest")[..., : size[0], : size[1]]
    large = functional.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)
    return round_through(large + _in_turns(1 / 32, large))[..., : size[0], : size[1]]


def _in_turns(value: float, like: Tensor) -> Tensor:
    """value, -value, value, ... (W,), too small to matter but for a half."""
    return value * (1 - 2 * (torch.arange(like.shape[-1], device=like.device) % 2)).to(like)


class _Codec(torch.autograd.Function):
    """Pillow's codec on images (..., C, H, W) in 0..255. A Function, so that torch.func hands it plain tensors."""

    @staticmethod
    def forward(levels: Tensor, quality: int, subsampled: bool) -> Tensor:
        from PIL import Image

        decoded = []
        for image in levels.reshape(-1, *levels.shape[-3:]).movedim(-3, -1).to("cpu", torch.uint8).numpy():
            file = io.BytesIO()
            mode = {"subsampling": 2 if subsampled else 0} if image.shape[-1] == 3 else {}
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality, **mode)
            decoded.append(np.array(Image.open(file)).reshape(image.shape))
        return torch.from_numpy(np.stack(decoded)).to(levels).movedim(-1, -3).reshape(levels.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, levels: Tensor, quality: int, subsampled: bool) -> Any:
        return _Codec.apply(levels.movedim(in_dims[0], 0), quality, subsampled), 0
