"""Phase retrieval: a detector sees how strong each Fourier coefficient is, but not its phase."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from deepinv.physics import Physics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from operators import _algebra, _check


class PhaseRetrieval(Physics):
    """y = |F pad(x)| + n: magnitudes of the centred orthonormal Fourier transform of the image with a margin of zeros.

    img_size: (C, H, W). oversampling: in [1, 8], the padded image has ceil(oversampling · H) by ceil(oversampling · W)
    pixels. (What DPS and DAPS call "oversample 2" pads 256 to 384 pixels: that is 1.5 here.) noise_model, device:
    deepinv's. x is (B, C, H, W), real; y is (B, C, H', W') in the units of x, |y| = |x|, with frequency zero at
    (H' // 2, W' // 2).

    x, -x and x turned by 180 degrees have the same y, and so has an x shifted within the margin. The gradient at a
    coefficient that is exactly zero is zero.
    Raises ValueError on values outside these ranges, and when called on a tensor of another size.
    """

    def __init__(
        self,
        img_size: Sequence[int],
        oversampling: float = 2.0,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        channels, height, width = img_size = _check.image_size(img_size)
        oversampling = _check.real("oversampling", oversampling, 1, 8)
        super().__init__(noise_model=noise_model, max_iter=300)
        self.img_size = img_size
        self.measurement_size = (channels, math.ceil(oversampling * height), math.ceil(oversampling * width))
        self.register_buffer("_device_holder", torch.zeros((), device=device), persistent=False)

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The magnitudes, (B, C, H', W')."""
        _check.images(self, "x", x, self.img_size)
        spectrum = torch.fft.fft2(x, s=self.measurement_size[1:], norm="ortho")
        return torch.fft.fftshift(spectrum.abs(), (-2, -1))

    def A_dagger(self, y: Tensor, x_init: Tensor | None = None, *, max_iter: int | None = None, **kwargs) -> Tensor:
        """An estimate to start from, (B, C, H, W): nonnegative, perhaps turned by 180 degrees, and a local solution.

        Fienup's hybrid input-output algorithm (1982, Eq. 44) with the image's frame and nonnegativity as constraints
        and beta = 0.9, then a tenth as many error-reduction steps. It starts from x_init, or from the same random image
        each time. max_iter: the steps in all, 300 by default. Channels are solved one by one, and turned to match the first.
        """
        _check.images(self, "y", y, self.measurement_size)
        height, width = self.img_size[1:]
        size = y.shape[-2:]
        y = torch.fft.ifftshift(y.clamp(min=0), (-2, -1))
        y = (y + _algebra.negate_frequencies(y))[..., : size[1] // 2 + 1] / 2  # a real image's half spectrum
        if x_init is None:
            x_init = torch.rand(height, width, generator=torch.Generator().manual_seed(0)).to(y).expand(*y.shape[:-2], -1, -1)
        _check.images(self, "x_init", x_init, self.img_size)
        margin = (0, size[1] - width, 0, size[0] - height)
        frame = torch.nn.functional.pad(torch.ones_like(x_init[:1], dtype=torch.bool), margin)
        guess = torch.nn.functional.pad(x_init, margin)
        steps = self.max_iter if max_iter is None else _check.integer("max_iter", max_iter, 1)
        for i in range(steps):
            phases = torch.sgn(torch.fft.rfft2(guess, norm="ortho"))
            image = torch.fft.irfft2(y * phases, s=size, norm="ortho")
            push = guess - 0.9 * image if i < steps - steps // 10 - 1 else torch.zeros_like(image)
            guess = torch.where(frame & (image >= 0), image, push)
        return _turn_alike(guess[..., :height, :width])


class CodedPhaseRetrieval(Physics):
    """y_k = |F (d_k · x)| + n for `masks` random phase masks d_k: coded diffraction patterns.

    img_size: (C, H, W). masks: >= 1, how many patterns; with 4 or more, A_dagger finds photographs without noise. seed: an
    integer >= 0; one seed, one set of masks. noise_model, device: deepinv's. x is (B, C, H, W), real; y is
    (B, C · masks, H, W), the patterns of the first channel first, each with its frequency zero at (H // 2, W // 2).
    F is orthonormal and the masks, one set for all channels, have entries 1, i, -1 or -i: each pattern has the norm of x.

    Candès, Li & Soltanolkotabi 2015, "Phase retrieval from coded diffraction patterns"; masks as in Chen & Candès 2017.
    x and -x have the same y. The gradient at a coefficient that is exactly zero is zero.
    Raises ValueError on values outside these ranges, and when called on a tensor of another size.
    """

    _masks: Tensor

    def __init__(
        self,
        img_size: Sequence[int],
        masks: int = 4,
        seed: int = 0,
        *,
        noise_model: NoiseModel | None = None,
        device: torch.device | str = "cpu",
    ):
        channels, height, width = img_size = _check.image_size(img_size)
        masks = _check.integer("masks", masks, 1)
        turns = np.random.default_rng(_check.integer("seed", seed, 0)).integers(0, 4, (masks, height, width))
        values = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.get_default_dtype())
        super().__init__(noise_model=noise_model, max_iter=50)
        self.img_size = img_size
        self.measurement_size = (channels * masks, height, width)
        self.register_buffer("_masks", values[torch.from_numpy(turns)].to(device))  # (K, H, W, 2)

    @property
    def masks(self) -> Tensor:
        """The masks, complex (K, H, W)."""
        return torch.view_as_complex(self._masks)

    def _waves(self, x: Tensor) -> Tensor:
        """Complex waves at the detector (B, C, K, H, W), frequency zero at the corner."""
        return torch.fft.fft2(self.masks * x.unsqueeze(-3), norm="ortho")

    def _back(self, waves: Tensor) -> Tensor:
        """The transpose of `_waves` divided by K, which makes it its inverse on real images."""
        return (self.masks.conj() * torch.fft.ifft2(waves, norm="ortho")).real.mean(-3)

    def _magnitudes(self, y: Tensor) -> Tensor:
        """y as (B, C, K, H, W), frequency zero at the corner, noise below zero clipped."""
        _check.images(self, "y", y, self.measurement_size)
        patterns = y.unflatten(-3, (self.img_size[0], -1))
        return torch.fft.ifftshift(patterns.clamp(min=0), (-2, -1))

    def A(self, x: Tensor, **kwargs) -> Tensor:
        """The magnitudes, (B, C · masks, H, W)."""
        _check.images(self, "x", x, self.img_size)
        return torch.fft.fftshift(self._waves(x).abs(), (-2, -1)).flatten(-4, -3)

    def spectral_estimate(self, y: Tensor) -> Tensor:
        """Image (B, C, H, W) that correlates with x and has its norm, by 20 power iterations.

        It is the leading eigenvector of Re A* diag(w) A with the bounded weights w = t / (t + 1/4), t = y² / mean y²: the
        form of Mondelli & Montanari 2019, who have sqrt(K) - 1 in place of 1/4 for Gaussian measurements. It
        starts from a constant image, and its sign makes its sum positive.
        """
        y = self._magnitudes(y)
        power = y.square().mean((-3, -2, -1), keepdim=True)
        t = y.square() / torch.where(power > 0, power, 1)
        weights = t / (t + 0.25)
        x = torch.ones_like(y[..., 0, :, :])
        for _ in range(20):
            x = self._back(weights * self._waves(x))
            x = x / x.square().mean((-2, -1), keepdim=True).sqrt().clamp(min=torch.finfo(x.dtype).tiny)
        sign = torch.where(x.sum((-2, -1), keepdim=True) < 0, -1, 1)
        return sign * power.squeeze(-3).sqrt() * x

    def A_dagger(self, y: Tensor, x_init: Tensor | None = None, *, max_iter: int | None = None, **kwargs) -> Tensor:
        """An estimate to start from, (B, C, H, W), of a positive sum: without noise, x itself where enough masks are given.

        `max_iter` (50 by default) alternating projections from x_init, or from `spectral_estimate`: the phases of A x
        are put on y, and the least-squares image of that is the next x (Netrapalli, Jain & Sanghavi 2013).
        """
        x = self.spectral_estimate(y) if x_init is None else x_init
        _check.images(self, "x_init", x, self.img_size)
        magnitudes = self._magnitudes(y)
        for _ in range(self.max_iter if max_iter is None else _check.integer("max_iter", max_iter, 0)):
            x = self._back(magnitudes * torch.sgn(self._waves(x)))
        return torch.where(x.sum((-2, -1), keepdim=True) < 0, -x, x)


def _turn_alike(x: Tensor) -> Tensor:
    """x (..., C, H, W) with those channels turned by 180 degrees that look more like the first one so."""
    turned = x.flip((-2, -1))
    first = x[..., :1, :, :]
    better = (turned * first).sum((-2, -1), keepdim=True) > (x * first).sum((-2, -1), keepdim=True)
    return torch.where(better, turned, x)
