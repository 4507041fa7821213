"""The error of a denoiser as a spectrum: C(sigma, f), the power of D(x, sigma) - x0 by noise level and frequency.

It stands for the covariance of x0 given x_sigma, taken as stationary: diagonal in Fourier space after a fixed rotation
of the colours (luminance and two chrominances). That is the covariance which spectral moment matching needs.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor, nn

from invdiff.priors import local_error
from invdiff.priors.local_error import LocalError
from invdiff.priors.running import in_use

BINS = 32       # of frequency

# opponent colours: rows are luminance, red-green and blue-yellow, an orthonormal basis of RGB
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
OPPONENT = OPPONENT / OPPONENT.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class ErrorSpectrum:
    """Power spectral density of the denoising error.

    Attributes:
        sigmas: noise levels, increasing, (L,).
        frequencies: radial frequencies in cycles per pixel, increasing, (F,).
        power: (L, K, F), or (L, B, K, F) with a spectrum for each image, per pixel in an orthonormal transform: white
            noise of standard deviation s has power s^2. K = 3 opponent colours, or the channels as they are: two, a complex
            image's real and imaginary part, have one spectrum.
        source: where it comes from, for the report.
        local: where in the image the error is, if that was measured.
    """

    sigmas: Tensor
    frequencies: Tensor
    power: Tensor
    source: str
    local: LocalError | None = None

    def at(self, sigma: float, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        """C(sigma, f) on the half plane of rfft2, (K, H, W // 2 + 1) or (B, K, ...). Log-log interpolation, ends carried on.

        Below the lowest measured level the error is that level's, scaled with sigma^2; it never exceeds sigma^2,
        since no denoiser need do worse than returning its input.
        """
        curve = self._between(self.power.clamp_min(1e-14).log(), sigma).exp()
        return self._on_plane((curve * self._below(sigma)).clamp_max(sigma**2), size).to(device)

    def local_at(self, sigma: float, x0: Tensor) -> tuple[Tensor, Tensor]:
        """The covariance W S W to expect of the error of x0 (B, C, H, W): S (B, K, H, W // 2 + 1), which does not exceed
        sigma^2, and W (B, 1, H, W), whose mean square over an image is 1. Raises ValueError where it was not measured."""
        if self.local is None:
            raise ValueError("local_at: this spectrum was measured without it; expected one with `local`")
        total, scale = local_error.weights(x0, self._between(self.local.coefficients, sigma))
        total = (local_error.SURPLUS * total * self._below(sigma)).clamp_max(sigma**2)
        curve = self._between(self.local.power.clamp_min(1e-14).log(), sigma).exp()
        power = self._on_plane(curve, (x0.shape[-2], x0.shape[-1])).to(x0.device)
        return (power * total).clamp_max(sigma**2), scale

    def _between(self, values: Tensor, sigma: float) -> Tensor:
        """Values (L, ...) at a noise level, linear in its logarithm, those of the ends beyond them."""
        level = torch.clamp(torch.as_tensor(sigma, dtype=torch.float32), self.sigmas[0], self.sigmas[-1])
        return _interpolate(level.log(), self.sigmas.log(), values)

    def _below(self, sigma: float) -> float:
        """What the error's power below the lowest level is of that level's."""
        return min(1.0, sigma / float(self.sigmas[0])) ** 2

    def _on_plane(self, curve: Tensor, size: tuple[int, int]) -> Tensor:
        """(..., F) by ring on the half plane of rfft2, (..., H, W // 2 + 1)."""
        index, weight = _rings(size, tuple(self.frequencies.tolist()))
        logs = curve.log()
        steps = logs.diff(append=logs[..., -1:])
        flat = logs.index_select(-1, index) + weight * steps.index_select(-1, index)
        return flat.exp_().unflatten(-1, (size[0], -1))

    def to_dict(self) -> dict:
        """For the card: plain lists, six significant digits."""
        plain: dict = {"sigmas": _plain(self.sigmas), "frequencies": _plain(self.frequencies), "power": _plain(self.power),
                       "source": self.source}
        if self.local:
            plain["local"] = {"coefficients": _plain(self.local.coefficients), "power": _plain(self.local.power)}
        return plain

    @classmethod
    def from_dict(cls, data: dict) -> "ErrorSpectrum":
        """What `to_dict` gave. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
        local = data.get("local")
        where = LocalError(_floats(local["coefficients"]), _floats(local["power"])) if local else None
        made = cls(_floats(data["sigmas"]), _floats(data["frequencies"]), _floats(data["power"]), data["source"], where)
        _check(made)
        return made


def _check(spectrum: ErrorSpectrum) -> None:
    """Raises ValueError unless the shapes and values are those of a spectrum."""
    knots, shape = (spectrum.sigmas, spectrum.frequencies), spectrum.power.shape
    if len(shape) != 3 or knots[0].shape != shape[:1] or knots[1].shape != shape[2:] or min(shape[0], shape[2]) < 2:
        raise ValueError(f"power of {tuple(shape)} for sigmas {tuple(knots[0].shape)} and frequencies {tuple(knots[1].shape)}")
    if not all(bool((each >= 0).all() & each.isfinite().all() & (each.diff() > 0).all()) for each in knots) or knots[0][0] == 0:
        raise ValueError("sigmas or frequencies that do not rise, are negative or not finite")
    if not bool((spectrum.power >= 0).all() & spectrum.power.isfinite().all()):
        raise ValueError("power that is negative or not finite")
    local = spectrum.local
    if local and (tuple(local.coefficients.shape) != (len(spectrum.sigmas), 3) or local.power.shape != spectrum.power.shape):
        raise ValueError(f"local: coefficients {tuple(local.coefficients.shape)} and power {tuple(local.power.shape)}")
    if local and not bool(local.coefficients.isfinite().all() & local.power.isfinite().all() & (local.power >= 0).all()):
        raise ValueError("local: values that are negative or not finite")


def _floats(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def rotate_colours(x: Tensor) -> Tensor:
    """(B, 3, H, W) RGB to opponent colours; other channel counts are left as they are. Orthonormal."""
    return _mixed(OPPONENT, x) if x.shape[1] == 3 else x


def rotate_colours_back(x: Tensor) -> Tensor:
    """The inverse, and transpose, of `rotate_colours`."""
    return _mixed(OPPONENT.T, x) if x.shape[1] == 3 else x


def _mixed(matrix: Tensor, x: Tensor) -> Tensor:
    """The channels of x (B, C, H, W) mixed by a matrix. Contiguous, unlike einsum's, which costs copies later on."""
    return (matrix.to(x) @ x.flatten(2)).unflatten(2, x.shape[2:])


def radial_spectrum(error: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Mean power of error (B, K, H, W) in rings of radial frequency: (bins,) cycles per pixel, (K, bins), for a complex image,
    K = 2, that of both parts.

    A Hann window keeps the edges of the crop from leaking into high frequencies; its energy is divided out. Of two pixels it
    would leave none, and they have none.
    """
    height, width = error.shape[-2:]
    rows, columns = (torch.hann_window(n, periodic=False) if n > 2 else torch.ones(n) for n in (height, width))
    window = rows[:, None] * columns[None]
    window = window / window.square().mean().sqrt()
    power = torch.fft.fft2(error * window.to(error), norm="ortho").abs().square().mean(0)             # (K, H, W)
    fy, fx = (torch.fft.fftfreq(n, dtype=torch.float32) for n in (height, width))
    radius = (fy[:, None].square() + fx.square()).sqrt()
    ring = (radius / 0.5**0.5 * bins).long().clamp_max(bins - 1).flatten()
    count = torch.bincount(ring, minlength=bins)
    centre = torch.zeros(bins, dtype=torch.float32).index_add(0, ring, radius.flatten()) / count
    total = torch.zeros(error.shape[1], bins, dtype=torch.float32).index_add(1, ring, power.flatten(1).float().cpu())
    if len(total) == 2:         # real and imaginary part: the phase of an image is any, that of those at hand may not be
        total = total.mean(0, keepdim=True).expand_as(total)
    return centre[count > 0], (total / count)[:, count > 0]


@torch.no_grad()
def measure_spectrum(denoiser: Denoiser, images: Sequence[Tensor], sigmas: Sequence[float], source: str, *,
                     bins: int = BINS, seed: int = 0) -> ErrorSpectrum:
    """Error spectrum of a denoiser on clean images (C, H, W), all of one size, at the given noise levels.

    Raises:
        ValueError: fewer than two noise levels, or images of different sizes.
    """
    if len(sigmas) < 2 or len({tuple(i.shape) for i in images}) != 1:
        raise ValueError("measure_spectrum: expected at least two noise levels and images of one size")
    generator = torch.Generator().manual_seed(seed)
    coefficients, rows, local = [], [], []
    for sigma in sigmas:
        clean = torch.stack(list(images))
        noise = torch.stack([torch.randn(image.shape, generator=generator, dtype=torch.float32) for image in images]).to(clean)
        with in_use(denoiser) if isinstance(denoiser, nn.Module) else nullcontext():       # or a plain function
            estimates = torch.cat([denoiser(x[None], sigma) for x in clean + sigma * noise]).float()
        errors = estimates - clean
        coefficients.append(local_error.fit(estimates.cpu(), errors.cpu()))
        frequencies, power = radial_spectrum(rotate_colours(errors).cpu(), bins)
        total, scale = local_error.weights(estimates, coefficients[-1])
        rows.append(power)
        frequencies, even = radial_spectrum(rotate_colours(errors / (scale * total.sqrt())).cpu(), bins)
        local.append(even / (even * frequencies).sum(1).mean() * frequencies.sum())     # of mean power 1, as whole rings count
    where = LocalError(torch.stack(coefficients), torch.stack(local))
    return ErrorSpectrum(torch.tensor(sigmas, dtype=torch.float32), frequencies, torch.stack(rows), source, where)


def spectrum_on(card: Mapping[str, Any], known: int | None, channels: int) -> ErrorSpectrum | None:
    """What the card of a prior for images of `known` channels (None: of any) has for images of `channels`, or None."""
    data = card.get("spectrum_grey" if channels == 1 and known in (None, 3) else "spectrum")
    spectrum = ErrorSpectrum.from_dict(data) if data else None
    return spectrum if spectrum is None or spectrum.power.shape[1] == channels else None


def model_spectrum(image: Tensor) -> ErrorSpectrum:
    """What a stationary Gaussian prior with the image's own spectrum would err, for a prior without a card.

    Each image (B, C, H, W), a crude estimate, fixes the amplitude of its S = a / (f^2 + f0^2) at low frequencies, which
    most measurements keep; the error is the Wiener filter's, sigma^2 S / (S + sigma^2).
    """
    deviation = rotate_colours(image - image.mean((-2, -1), keepdim=True)).cpu()
    curves = [radial_spectrum(item[None], BINS) for item in deviation]
    frequencies, power = curves[0][0], torch.stack([curve for _, curve in curves])                # (F,), (B, K, F)
    if len(frequencies) == 1:                                   # of a pixel alone: as if all grey levels were as likely
        frequencies, power = torch.tensor([0.0, 0.5]), torch.full_like(power, 1 / 12).expand(-1, -1, 2)
    shape = frequencies.square() + (0.5 / max(image.shape[-2:])) ** 2
    low = frequencies <= max(0.15, float(frequencies[1]))
    low[0] = False                                              # the ring around zero has lost its mean
    amplitude = (power * shape)[..., low].clamp_min(1e-10).log().mean(-1, keepdim=True).exp()
    signal = amplitude / shape                                  # (B, K, F)
    sigmas = torch.logspace(-3, 2, 40, dtype=torch.float32)
    noise = sigmas.square()[:, None, None, None]
    return ErrorSpectrum(sigmas, frequencies, signal * noise / (signal + noise), "a 1/f^2 model of the measured image")


def _interpolate(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation of values (L, ...) over increasing knots (L,)."""
    i = int(torch.searchsorted(knots, at).clamp(1, len(knots) - 1))
    weight = (at - knots[i - 1]) / (knots[i] - knots[i - 1])
    return torch.lerp(values[i - 1], values[i], weight.clamp(0, 1))


@lru_cache(maxsize=8)
def _rings(size: tuple[int, int], frequencies: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """For each frequency of rfft2, flattened: the knot below it, and how far it is on the way to the next. Shared: do not
    change them."""
    knots = _floats(frequencies)
    fy, fx = torch.fft.fftfreq(size[0], dtype=torch.float32), torch.fft.rfftfreq(size[1], dtype=torch.float32)
    radius = (fy[:, None].square() + fx.square()).sqrt().flatten()
    index = torch.searchsorted(knots, radius).clamp(1, len(knots) - 1) - 1
    return index, ((radius - knots[index]) / (knots[index + 1] - knots[index])).clamp(0, 1)


def _plain(values: Tensor) -> list:
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [float(f"{v:.6g}") for v in values.tolist()]
