"""Convolution of images that go on outside of their borders, its exact transpose, and properties of kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from operators._precision import exact

BOUNDARIES = ("circular", "reflect", "replicate", "zero", "valid")
# Up to so many taps for each plane (channel of an image), counting no more than a vector register holds, PyTorch's own
# convolution beats the Fourier transform: in float32 on a CPU. In float64 it takes twenty times as long; on a GPU, cuDNN
# would round to TF32.
_DIRECT_TAPS, _REGISTER = 17, 16

Margins = list[tuple[int, int]]  # (before, after) of rows and of columns

_correlate, _correlate_transposed = exact(F.conv2d), exact(F.conv_transpose2d)


class Convolution(torch.nn.Module):
    """x (..., H, W) -> kernel * x, by Fourier transforms or directly, whichever is faster.

    size: (H, W). kernel: (kh, kw), no larger than that; its centre is (kh // 2, kw // 2). boundary: one of BOUNDARIES.
    """

    kernel: Tensor
    interior_power: Tensor  # (H, W // 2 + 1): |spectrum|² of the kernel on a circle
    _response: Tensor

    def __init__(self, size: tuple[int, int], kernel: Tensor, boundary: str):
        super().__init__()
        around: Margins = [((k - 1) // 2, k // 2) for k in kernel.shape]
        nothing: Margins = [(0, 0), (0, 0)]
        self.size, self.boundary = size, boundary
        self.margins, self.border = (nothing, around) if boundary == "valid" else (around, nothing)  # outside of x, and of y
        self.output_size = tuple(n + sum(m) - k + 1 for n, m, k in zip(size, self.margins, kernel.shape, strict=True))
        self.register_buffer("kernel", kernel)
        self.register_buffer("interior_power", None)
        self.register_buffer("_response", None)
        self._set_response()

    def set_kernel(self, kernel: Tensor) -> None:
        """Take the float64 `kernel` (kh, kw) instead, of which the present one is a rounded copy."""
        self.kernel = kernel.to(self.kernel)
        self._set_response(kernel)

    def _set_response(self, kernel: Tensor | None = None) -> None:
        kernel = (self.kernel if kernel is None else kernel).detach().cpu().double()
        self.interior_power = torch.fft.rfft2(kernel, s=self.size).abs().square().to(self.kernel)
        grid = [fast_length(n + sum(m)) for n, m in zip(self.size, self.margins, strict=True)]
        padded = F.pad(kernel, (0, grid[1] - kernel.shape[1], 0, grid[0] - kernel.shape[0]))
        # turned back by the kernel's size: the first pixel of the result is the first that the padding's end does not reach
        response = torch.fft.rfft2(padded.roll([1 - k for k in kernel.shape], (0, 1)))
        self._grid = grid
        self._response = torch.view_as_real(response).to(self.kernel)  # a pair: Module.to(dtype) would drop the imaginary part

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._set_response()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(..., H, W), or the smaller output_size of "valid"."""
        planes = _extend(x.flatten(0, -3), self.margins, self.boundary)  # (planes, h, w)
        if self._is_direct(planes):
            y = _correlate(planes[None], self._weights(planes), groups=len(planes))[0]
        else:
            spectrum = torch.fft.rfft2(planes, s=self._grid) * torch.view_as_complex(self._response)
            y = torch.fft.irfft2(spectrum, s=self._grid)[..., : self.output_size[0], : self.output_size[1]]
        return y.reshape(*x.shape[:-2], *self.output_size).contiguous()

    def transpose(self, y: Tensor) -> Tensor:
        """(..., H, W), of y (..., *output_size)."""
        planes = y.flatten(0, -3)
        if self._is_direct(planes):
            x = _correlate_transposed(planes[None], self._weights(planes), groups=len(planes))[0]
        else:
            spectrum = torch.fft.rfft2(planes, s=self._grid) * torch.view_as_complex(self._response).conj()
            height, width = (n + sum(margin) for n, margin in zip(self.size, self.margins, strict=True))
            x = torch.fft.irfft2(spectrum, s=self._grid)[..., :height, :width]
        return _fold(x, self.margins, self.boundary).reshape(*y.shape[:-2], *self.size).contiguous()

    def matrices(self, down: Tensor, across: Tensor) -> list[Tensor]:
        """For the kernel down · acrossᵀ, the matrices that act on the rows and on the columns of the image, in float64."""
        result = []
        for n, margin, profile in zip(self.size, self.margins, (down, across), strict=True):
            identity = torch.eye(n, dtype=torch.float64)[None]
            extended = _extend(identity, [(0, 0), margin], self.boundary)[0]  # (n, n + margins)
            windows = extended.unfold(-1, len(profile), 1)  # (n, outputs, k)
            result.append((windows @ profile.cpu().double().flip(0)).T)
        return result

    def _is_direct(self, planes: Tensor) -> bool:
        few_taps = self.kernel.numel() <= _DIRECT_TAPS * min(len(planes), _REGISTER)
        return few_taps and planes.dtype == self.kernel.dtype == torch.float32 and planes.device.type == "cpu"

    def _weights(self, planes: Tensor) -> Tensor:
        """Of PyTorch's correlation, (planes, 1, kh, kw)."""
        return self.kernel.flip((0, 1)).expand(len(planes), 1, *self.kernel.shape)


def check_boundary(boundary: str) -> None:
    """Raise unless `boundary` is one of BOUNDARIES."""
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary: expected one of {', '.join(BOUNDARIES)}, got {boundary!r}")


def fast_length(n: int) -> int:
    """The least m >= n that has no prime factor above 7."""
    rest = n
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            rest //= prime
    return n if rest == 1 else fast_length(n + 1)


def symmetric(kernel: Tensor) -> Tensor | None:
    """The kernel with both sides odd, exactly symmetric in each axis; None if it is not symmetric but for rounding."""
    odd = F.pad(kernel, (0, 1 - kernel.shape[1] % 2, 0, 1 - kernel.shape[0] % 2))  # the centre stays kh // 2, kw // 2
    result = (odd + odd.flip(0)) / 2
    result = (result + result.flip(1)) / 2
    return result if (result - odd).abs().max() <= 1e-6 * odd.abs().max() else None


def factors(kernel: Tensor) -> tuple[Tensor, Tensor] | None:
    """down (kh,) and across (kw,) with kernel = down · acrossᵀ but for rounding, None if there are none."""
    u, s, v = torch.linalg.svd(kernel.double(), full_matrices=False)
    if s[1:].sum() > 1e-6 * s[0]:
        return None
    sign = torch.where(u[:, 0].sum() < 0, -1, 1)
    return tuple((sign * s[0].sqrt() * side).to(kernel) for side in (u[:, 0], v[0]))


def cosines(n: int, k: int) -> Tensor:
    """(n, k): cos(pi f m / n) for the frequencies f = 0 .. n - 1 and the places m = -(k // 2) .. k // 2."""
    place = torch.arange(k, dtype=torch.float64) - k // 2
    return torch.cos(torch.pi / n * torch.arange(n, dtype=torch.float64)[:, None] * place)


def _extend(x: Tensor, margins: Margins, boundary: str) -> Tensor:
    """x (planes, H, W) with (before, after) entries more on each axis, no more than it has."""
    if boundary == "valid":
        return x
    if boundary != "reflect":
        mode = {"circular": "circular", "replicate": "replicate", "zero": "constant"}[boundary]
        return F.pad(x, (*margins[1], *margins[0]), mode=mode)
    for dim, (before, after) in zip((-2, -1), margins, strict=True):
        n = x.shape[dim]
        x = torch.cat([x.narrow(dim, 0, before).flip(dim), x, x.narrow(dim, n - after, after).flip(dim)], dim)
    return x


def _fold(x: Tensor, margins: Margins, boundary: str) -> Tensor:
    """The transpose of `_extend`: what came from an entry is added to it."""
    for dim, (before, after) in zip((-2, -1), margins, strict=True):
        n = x.shape[dim] - before - after
        left, x, right = x.split([before, n, after], dim)
        if boundary in ("valid", "zero"):
            continue
        x = x.clone()
        if boundary == "circular":
            x.narrow(dim, n - before, before).add_(left)
            x.narrow(dim, 0, after).add_(right)
        elif boundary == "reflect":
            x.narrow(dim, 0, before).add_(left.flip(dim))
            x.narrow(dim, n - after, after).add_(right.flip(dim))
        else:
            x.narrow(dim, 0, 1).add_(left.sum(dim, keepdim=True))
            x.narrow(dim, n - 1, 1).add_(right.sum(dim, keepdim=True))
    return x
