"""Somebody else's denoiser, as a prior of ours."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from deepinv.models import Denoiser
from torch import Tensor, nn

from invdiff.errors import InputError
from invdiff.priors.spectrum import ErrorSpectrum, spectrum_on


class ForeignDenoiser(Denoiser):
    """D(x, sigma) around a denoiser that knows fewer sizes, channels and noise levels than samplers ask for.

    x (B, C, H, W) = x0 + sigma n in image units, any H and W; sigma a float or (B,). What the denoiser does not know:

    - Sizes: the image is padded by reflection to multiples of `stride`, and cropped again.
    - Grey images, where it has three channels: repeated on the channels, and averaged again.
    - Noise above its highest level: x is drawn towards mid-grey until its noise is at that level. What comes back has less
      contrast than the image, as an estimate from so much noise should.
    - Noise below its lowest level: D = x + (sigma / lowest)^2 (D(x, lowest) - x), Tweedie's formula with the score held. So a
      network without a noise level, trained at one, is exact there and harmless elsewhere; D(x, 0) = x.

    Args:
        model: D(x, sigma) for x (B, C, H, W) in float32 and sigma (B,), in image units.
        card: needs `name`; `channels` (None: any) and `sigma_range` [lowest, highest] (None: no end) say what the model knows.
        stride: what height and width must be multiples of.
    """

    def __init__(self, model: Callable[[Tensor, Tensor], Tensor], card: dict[str, Any], stride: int = 1):
        super().__init__()
        self.model, self.card, self.stride = model, {"channels": None, "sigma_range": [0.0, None], **card}, stride

    @property
    def channels(self) -> int | None:
        """Image channels of the model, or None if it takes any."""
        return self.card["channels"]

    def error_spectrum(self, channels: int) -> ErrorSpectrum | None:
        """The measured error spectrum for images of this many channels, or None: see `invdiff priors calibrate`."""
        return spectrum_on(self.card, self.channels, channels)

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """E[x0 | x], of x's shape. Raises ValueError for channels the model was not made for."""
        grey = x.shape[1] == 1 and self.channels == 3
        if self.channels is not None and not grey and x.shape[1] != self.channels:
            raise ValueError(f"x: expected {self.channels} channels, as {self.card['name']} has, got {tuple(x.shape)}")
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1).expand(x.shape[0])
        out = self._within_range(x.expand(-1, 3, -1, -1).float() if grey else x.float(), sigma)
        return (out.mean(1, keepdim=True) if grey else out).to(x.dtype)

    def _within_range(self, x: Tensor, sigma: Tensor) -> Tensor:
        low, high = self.card["sigma_range"]
        level = sigma.clamp(low, high)
        shrink = torch.where(sigma > level, level / sigma, 1.0).reshape(-1, 1, 1, 1)
        out = self._padded(0.5 + (x - 0.5) * shrink, level)
        trust = torch.where(sigma < level, sigma / level, 1.0).square().reshape(-1, 1, 1, 1)
        return torch.lerp(x, out, trust)

    def _padded(self, x: Tensor, level: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        bottom, right = -h % self.stride, -w % self.stride
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="reflect" if bottom < h and right < w else "replicate")
        out = self.model(x, level)
        if not isinstance(out, Tensor) or out.shape != x.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"{self.card['name']}: expected a denoiser that returns x's shape {tuple(x.shape)}, got {got}")
        return out.float()[..., :h, :w]


class BySigma(nn.Module):
    """A denoiser that is given sigma by name, and only what it takes: deepinv's differ in what comes second.

    Args:
        model: D(x, sigma=...).
        extra: more tensors for it, by name.
    """

    def __init__(self, model: nn.Module, **extra: Tensor):
        super().__init__()
        self.model = model
        self.extra = nn.ParameterDict(extra).requires_grad_(False)      # so that they follow the network to its device
        self.blind = "sigma" not in inspect.signature(model.forward).parameters

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x (B, C, H, W), sigma (B,)."""
        return self.model(x, **({} if self.blind else {"sigma": sigma}), **dict(self.extra.items()))
