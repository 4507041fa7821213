"""Noise: deepinv's models, and estimates of the standard deviation of white Gaussian noise from images and k-space.

The models are deepinv's own, in the units of the measurement; an operator takes one as `noise_model`:

- `GaussianNoise(sigma)`: y = x + sigma n. sigma is a number or (B,). Complex data are two real channels here, (B, 2, ...), so
  the same model is white complex noise of sigma per real channel, E|n|² = 2 sigma².
- `PoissonNoise(gain)`: y = gain · Poisson(x / gain), mean x, variance gain · x; 1 / gain is the number of photons at white.
- `PoissonGaussianNoise(gain, sigma)`: both, variance gain · x + sigma².

None of them clips y to [0, 1]. The Poisson ones raise on x < 0, which a blur by FFT gives by rounding: use clip_positive=True.
They pass no gradient to x. To repeat a measurement give `rng=torch.Generator(device).manual_seed(seed)`, one for each model
and on the device of x: `seed=` without an rng is ignored with a warning (deepinv 0.5), a generator on another device is
replaced by one with the default seed, and models that share one draw the same noise. `sigma=` in a call stays set after it.
In deepinv 0.5 the product of two models, a * b, adds no noise at all; nest the calls instead.
"""

from __future__ import annotations

import math

import torch
from deepinv.physics.noise import GaussianNoise, PoissonGaussianNoise, PoissonNoise
from torch import Tensor
from torch.nn import functional

from operators import _check
from operators._precision import exact, matmul
from operators._transforms import dct

__all__ = ["GaussianNoise", "PoissonGaussianNoise", "PoissonNoise", "estimate_kspace_sigma", "estimate_sigma",
           "noise_whiteness"]

_SIDE = 8           # of a block in `estimate_sigma`
_ROWS = 16          # of blocks whose coefficients are held at a time
_CLIPPED = 0.99     # share of the blocks from which on those that are left are too few, and the ones with the least noise
_correlate = exact(functional.conv2d)


def estimate_sigma(y: Tensor) -> Tensor:
    """Standard deviation (B,) of the white Gaussian noise in images y (B, C, H, W), the same in all channels of an image.

    Overlapping 8 x 8 blocks are ranked by the energy of their low-frequency cosine coefficients, and the noise variance is
    the mean square of the high-frequency ones in the flattest 0.5 % of the blocks, or in all that are as flat as noise alone
    makes them on average. White noise is independent in the two, so choosing by one does not bias the other. The method is
    that of Ponomarenko et al. 2007 in the form of Colom & Buades 2013 (IPOL 3); to take all flat blocks is ours.

    Measured on the 68 test photographs of BSDS, in per cent of sigma, mean error ± standard deviation (and the share of the
    images within 5 %), colour: sigma 0.01: 3.3 ± 6.2 (85 %), 0.02: 1.1 ± 1.8 (97 %), 0.05: 0.4 ± 0.7, 0.1: 0.4 ± 0.6,
    0.2: 0.3 ± 0.4 (100 %). Their grey versions: 3.1 ± 6.6 (87 %), 0.9 ± 2.7 (96 %), 0.3 ± 1.2, 0.5 ± 0.9, 0.3 ± 0.6 (99 to
    100 %). A part of it is noise that the photographs have themselves. Of pure noise the estimate is right on average; its
    standard deviation for one channel is 4.5 % of sigma at 32 x 32, 1.3 % at 128 x 128, 0.65 % at 256 x 256.

    On 8-bit images the rounding adds 1 / (255 sqrt 12) = 0.0011 in quadrature. Blocks that touch clipped or saturated pixels
    (the least and greatest values, where they occur more than once) are left out, and so are those that touch 8 x 8 pixels of
    one value, such as a frame or what was painted over, unless there are no others: a constant image has no noise. Texture
    everywhere, or sides under some 100 pixels, makes it less certain; noise that is not white (`noise_whiteness`), or pixels
    that are missing, make it wrong.
    Raises ValueError unless y is real, floating, finite, (B, C, H, W), with sides of at least 16 pixels; and where over 99 %
    of a channel's blocks touch clipped pixels, as what is left has the least noise (in dark photographs down to 0.55 of it).
    """
    return _of_images(y)[:, 0].sqrt()


def noise_whiteness(y: Tensor) -> Tensor:
    """Is the noise in images y (B, C, H, W) white? The ratio (B,) of its finest detail to coarser, in standard deviation.

    Of the blocks that `estimate_sigma` goes by: cosine coefficients (i, j) with i + j of 12 to 14 against 5 to 7. It is 1.0 to
    1.1 for white noise, and 1 without any. JPEG, enlarging and demosaicing take the finest detail away, and then
    `estimate_sigma`, which measures it, is too small; under 0.5 or 0.6 do not trust it.

    Measured on 23 colour photographs of BSDS, 256 x 256, sigma from 0.005 to 0.2. White noise, of floats and 8 bits, also
    blurred, dark (0.3 and 0.1) and overexposed (1.8) photographs: below 0.5 in 14 of 805, of sigma 0.02 at most, with texture
    everywhere, where the estimate is 1.2 to 6 times sigma. Photographs enlarged by 1.5 or 2, or demosaiced, after the noise:
    all below 0.5 (estimate 0.03 to 0.7 of sigma). JPEG of quality 75 and sigma up to 0.05: 96 to 100 % (estimate 0.1 to 0.3);
    of quality 90, 4:2:0: 87 % for 0.005 and 0.01, 48 % for 0.02 (0.2 to 0.4), and none of stronger noise, of which JPEG leaves
    more (0.6 to 0.75). Raises ValueError as `estimate_sigma` does.
    """
    _, top, middle = _of_images(y).unbind(1)
    return torch.where(middle > 0, top / middle, 1).sqrt()


def _of_images(y: Tensor) -> Tensor:
    """`_flat_noise` of images (B, C, H, W), the mean over their channels but for constant ones, (B, 3)."""
    if y.ndim != 4 or min(y.shape) < 1 or min(y.shape[-2:]) < 2 * _SIDE:
        raise ValueError(f"y: expected (B, C, H, W) with H and W at least {2 * _SIDE}, got {tuple(y.shape)}")
    if not y.is_floating_point():
        raise ValueError(f"y: expected a real floating-point tensor, got {y.dtype}")
    _check.finite("y", y)
    planes = y.detach().to(torch.promote_types(y.dtype, torch.float32))
    found = torch.stack([torch.stack([_flat_noise(plane) for plane in image]) for image in planes])
    return found.sum(1) / (found[..., :1] > 0).sum(1).clamp_min(1)


def _flat_noise(plane: Tensor) -> Tensor:
    """Mean square (3,) of the high, the highest and the middle frequencies of the flattest blocks of one channel (H, W)."""
    index = torch.arange(_SIDE, device=plane.device)
    order = (index[:, None] + index).flatten()
    blocks = (plane.shape[0] - _SIDE + 1) * (plane.shape[1] - _SIDE + 1)
    split = 11 if blocks > 10_000 else 9  # of small images there are too few blocks to be choosy
    bands = [(order > 0) & (order < split), order >= split, order >= 12, (order >= 5) & (order < 8)]
    usable = _usable_blocks(plane)
    valid = usable.sum()
    if valid == 0:  # each touches one that is constant
        return plane.new_zeros(3)
    energy, *others = _block_energies(plane - plane.mean(), torch.stack(bands))
    energy = torch.where(usable, energy, math.inf)

    flattest = (0.005 * valid).long().clamp(min=32).minimum(valid)
    limit = energy.sort().values[flattest - 1]
    for _ in range(3):
        chosen = energy <= limit
        variance = torch.where(chosen, others[0], 0).sum() / chosen.sum()
        limit = limit.maximum(variance)
    return torch.stack([torch.where(chosen, other, 0).sum() / chosen.sum() for other in others])


def _block_energies(plane: Tensor, bands: Tensor) -> Tensor:
    """Mean squares (G, M) of the cosine coefficients in G bands (G, 64), of the M blocks of a plane (H, W)."""
    weights = bands.to(plane) / bands.sum(1, keepdim=True)
    height, width = (side - _SIDE + 1 for side in plane.shape)
    energies = plane.new_empty(len(bands), height * width)
    for start in range(0, height, _ROWS):  # all 64 coefficients of all blocks would be a lot of memory
        squares = _block_coefficients(plane[start : start + _ROWS + _SIDE - 1]).square()
        energies[:, start * width : start * width + squares.shape[1]] = matmul(weights, squares)
    return energies


def _block_coefficients(plane: Tensor) -> Tensor:
    """Orthonormal cosine coefficients (64, M) of the M blocks of 8 x 8 pixels in a plane (H, W)."""
    cosines = dct(torch.eye(_SIDE, dtype=plane.dtype, device=plane.device)).T  # (8, 8), a row a frequency
    down = _correlate(plane[None, None], cosines[:, None, :, None])
    return _correlate(down.transpose(0, 1), cosines[:, None, None, :]).flatten(2).flatten(0, 1)


def _usable_blocks(plane: Tensor) -> Tensor:
    """Which of the blocks (M,) touch neither a clipped pixel nor a block that is exactly constant, as no noise leaves it.

    Raises ValueError where nearly all touch clipped ones.
    """
    clipped = torch.zeros_like(plane)
    for extreme in (plane.min(), plane.max()):
        at = plane == extreme
        clipped = clipped + at * (at.sum() > 1)
    clipped = _largest(clipped, _SIDE)
    constant = (_largest(plane, _SIDE) == -_largest(-plane, _SIDE)).to(plane)
    if clipped.mean() > _CLIPPED and not constant.all():
        raise ValueError(f"y: {float(clipped.mean()):.1%} of the {_SIDE} x {_SIDE} blocks of a channel touch clipped pixels, "
                         "whose noise is cut off")
    return ((clipped == 0) & (_largest(constant, 2 * _SIDE - 1, _SIDE - 1) == 0)).flatten()


def _largest(plane: Tensor, side: int, padding: int = 0) -> Tensor:
    """The largest value in every window of a plane (H, W)."""
    rows = functional.max_pool2d(plane[None, None], (side, 1), 1, (padding, 0))
    return functional.max_pool2d(rows, (1, side), 1, (0, padding))[0, 0]


def estimate_kspace_sigma(kspace: Tensor, border: float = 0.1, per_coil: bool = False) -> Tensor:
    """Standard deviation per real channel of the white noise in k-space, from its border, where there is the least signal.

    kspace: real (B, 2, ..., H, W) or complex (B, ..., H, W), centred, such as (B, 2, N, H, W) for N coils. border: in
    (0, 1], how far from the edge to the centre of H and of W the border reaches. Entries that are exactly zero were not
    sampled, and are left out. The median of |k| of complex noise is sigma sqrt(2 ln 2) (Rayleigh); few large values do not
    move it. Returns (B,), the root mean square over the coils; with per_coil (B, N), one for each index of the dimension
    after B (and after the 2). The transform to images is orthonormal, so it is the sigma of the coil images too.

    It is an upper bound where the object's detail reaches the border: on a fully sampled 256 x 256 brain scan it was 1.4
    times the noise of the images' empty corners, on one of 96 x 96 pixels ten times. Filtered or zero-filled data have less
    noise there, and give too little. A noise scan is best: pass it with border = 1. For fully sampled data `estimate_sigma`
    on the coil images (N, 2, H, W) is better: 1.0 and 1.2 times the noise of the corners in those two scans.
    Raises ValueError on other shapes or types, on values that are not finite, and where a border has no sampled entry.
    """
    border = _check.real("border", border, 0, 1, low_included=False)
    if not kspace.is_complex():
        if kspace.ndim < 4 or kspace.shape[1] != 2:
            raise ValueError(f"kspace: expected complex (B, ..., H, W) or real (B, 2, ..., H, W), got {tuple(kspace.shape)}")
        if not kspace.is_floating_point():
            raise ValueError(f"kspace: expected complex or real floating-point numbers, got {kspace.dtype}")
        magnitude = torch.hypot(kspace[:, 0], kspace[:, 1])
    else:
        magnitude = kspace.abs()
    if magnitude.ndim < 3 or min(magnitude.shape) < 1:
        raise ValueError(f"kspace: expected complex (B, ..., H, W) or real (B, 2, ..., H, W), got {tuple(kspace.shape)}")
    _check.finite("kspace", magnitude)
    if magnitude.ndim == 3:  # one coil
        magnitude = magnitude.unsqueeze(1)
    height, width = magnitude.shape[-2:]
    edge = _near_edge(height, border)[:, None] | _near_edge(width, border)
    values = magnitude.detach()[..., edge.to(magnitude.device)].flatten(2)
    median = torch.where(values > 0, values, math.nan).nanmedian(-1).values
    if median.isnan().any():
        raise ValueError(f"kspace: expected sampled (nonzero) entries in the outer {border:g} of every coil, got none")
    sigma = median / math.sqrt(2 * math.log(2))
    return sigma if per_coil else sigma.square().mean(-1).sqrt()


def _near_edge(size: int, border: float) -> Tensor:
    """Which of `size` indices are among the outer ceil(border · size / 2) on either side."""
    index = torch.arange(size)
    depth = math.ceil(border * size / 2)
    return (index < depth) | (index >= size - depth)
