"""What is known of a prior, whatever denoiser it is."""

import hashlib
import json
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.priors.denoiser import AsItsPrior
from invdiff.priors.spectrum import ErrorSpectrum, spectrum_on

SPECTRA = ("spectrum", "spectrum_grey")     # on a card


def channels_of(prior: Denoiser) -> int | None:
    """Image channels that a prior is for; None where it does not say."""
    channels = getattr(prior, "channels", None)
    return channels if isinstance(channels, int) else getattr(prior, "card", {}).get("channels")


def fingerprint(prior: Denoiser) -> str:
    """A digest of a prior's weights, the same wherever they are loaded, and whatever was measured of it."""
    prior = prior.prior if isinstance(prior, Measured) else prior
    total = hashlib.sha256()
    for key, value in sorted(prior.state_dict().items()):
        total.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def measured_errors(prior: Denoiser) -> str:
    """A digest of the error spectra on a prior's card, which change what samplers make of the same weights; "" without one."""
    known = {key: value for key, value in (getattr(prior, "card", None) or {}).items() if key in SPECTRA}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest() if known else ""


def known_spectrum(prior: Denoiser, channels: int) -> Any:
    """The `ErrorSpectrum` on a prior's card for images of so many channels; None where there is none."""
    measured = getattr(prior, "error_spectrum", None)
    return measured(channels) if measured else None


def card_range(prior: Any) -> tuple[float, float]:
    """The noise levels that a prior was trained on, as its card says; 0.002 and 40 for an end that it leaves open."""
    low, high = (getattr(prior, "card", None) or {}).get("sigma_range") or (None, None)
    return float(low or 0.002), float(high or 40.0)


def own_sampling(prior: Any) -> dict[str, Any]:
    """How a prior of few steps, which is no denoiser, is to be drawn from, by its card or that of the prior that it wraps; {}
    of a denoiser."""
    card, wrapped = getattr(prior, "card", None), getattr(prior, "prior", None)
    return own_sampling(wrapped) if card is None and wrapped is not None else dict((card or {}).get("sampling", {}))


class Measured(AsItsPrior):
    """Any prior with a card for error spectra."""

    def __init__(self, prior: Denoiser):
        super().__init__()
        self.prior, self.card = prior, getattr(prior, "card", {})

    def forward(self, x: Tensor, sigma: float | Tensor, *args: object, **kwargs: object) -> Tensor:
        return self.prior(x, sigma, *args, **kwargs)

    def error_spectrum(self, channels: int) -> ErrorSpectrum | None:
        return spectrum_on(self.card, channels_of(self), channels)
