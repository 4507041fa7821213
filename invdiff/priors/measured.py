"""Any denoiser with an error spectrum of its own, measured on request."""

from collections.abc import Sequence

import numpy as np
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.priors.spectrum import ErrorSpectrum, measure_spectrum

LEVELS = tuple(np.geomspace(0.005, 20.0, 17).tolist())      # noise levels in image units


class CalibratedDenoiser(Denoiser):
    """A denoiser that answers for its error, as a shipped prior does from its card."""

    def __init__(self, denoiser: Denoiser, spectrum: ErrorSpectrum):
        super().__init__()
        self.denoiser, self.spectrum = denoiser, spectrum

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        return self.denoiser(x, sigma, **kwargs)

    def error_spectrum(self, channels: int) -> ErrorSpectrum | None:
        """The measured spectrum, for images with as many channels as it was measured on."""
        return self.spectrum if self.spectrum.power.shape[1] == channels else None


def calibrate(denoiser: Denoiser, images: Sequence[Tensor], sigmas: Sequence[float] = LEVELS, seed: int = 0
              ) -> CalibratedDenoiser:
    """Measure C(sigma, f) of any deepinv Denoiser on clean images (C, H, W) in [0, 1], all of one size.

    Use images that the denoiser was not trained on; a few dozen crops of 128 x 128 or larger do.
    Raises ValueError for fewer than two noise levels, or images of different sizes.
    """
    spectrum = measure_spectrum(denoiser, images, sigmas, f"measured on {len(images)} images given by the user", seed=seed)
    return CalibratedDenoiser(denoiser, spectrum)
