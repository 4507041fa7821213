"""Error spectra measured on request: of any denoiser, or kept in the user's cache folder and found by the prior's name."""

import copy
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.errors import InputError
from invdiff.io.files import write_text
from invdiff.paths import cache_folder
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.facts import SPECTRA, Measured, channels_of, fingerprint
from invdiff.priors.foreign.adapter import ForeignDenoiser
from invdiff.priors.spectrum import ErrorSpectrum, measure_spectrum

FORMAT = "invdiff-spectrum-1"
LEVELS = tuple(np.geomspace(0.005, 20.0, 17).tolist())      # noise levels in image units


class Watched(Denoiser):
    """A denoiser on a device, for images on the CPU, that says when it has been called."""

    def __init__(self, prior: Denoiser, device: torch.device, on_call: Callable[[], object]):
        super().__init__()
        self.prior, self.device, self.on_call = prior.to(device), device, on_call

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        out = self.prior(x.to(self.device), sigma).cpu()
        self.on_call()
        return out


def measure(name: str, prior: Denoiser, images: Sequence[Tensor], source: str, device: torch.device | str = "cpu",
            on_call: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """The record of a prior's error spectra on clean images, all of one size: (3, H, W) in [0, 1], or complex ones, (2, H, W).

    A prior of three channels, or of any, is measured on colour and on grey images, one of one channel on grey ones; the prior's
    card tells. `on_call` is called after each of `calls(name, prior, images)` network calls.

    Raises:
        InputError: the prior is for images of other channels or of latents, or its estimates are not finite.
    """
    watched = Watched(prior, torch.device(device), on_call)
    record: dict[str, Any] = {"format": FORMAT, "prior": name, "weights": fingerprint(prior)}
    for key, shown in _images(name, prior, images).items():
        spectrum = measure_spectrum(watched, shown, LEVELS, source)
        if not bool(spectrum.power.isfinite().all()):
            raise InputError(f"{name}: gives numbers that are not finite; expected a denoiser of images in [0, 1]")
        record[key] = spectrum.to_dict()
    return record


def calls(name: str, prior: Denoiser, images: Sequence[Tensor]) -> int:
    """How many network calls `measure` takes. Raises InputError as it does."""
    return len(LEVELS) * len(images) * len(_images(name, prior, images))


def _images(name: str, prior: Denoiser, images: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """What to measure on, by key of the record."""
    if getattr(prior, "latent", False):
        raise InputError(f"{name}: is a prior of latents, whose error spectrum was measured when it was trained; give one of "
                         "images")
    channels, given = channels_of(prior), len(images[0])
    if channels not in ((None, 2) if given == 2 else (None, 1, 3)):
        raise InputError(f"{name}: is for images of {channels} channels, and these have {given}; give it "
                         + ("slices, an HDF5 dataset (N, 2, H, W)" if channels == 2 else "photographs, if it has 1 or 3"))
    if given == 2:
        return {"spectrum": list(images)}
    grey = [image.mean(0, keepdim=True) for image in images]
    if channels == 1:
        return {"spectrum": grey}
    return {"spectrum": list(images)} | {"spectrum_grey": grey}


def place(name: str) -> Path:
    """Where the record of a prior of this name is kept: below $INVDIFF_CACHE, or the user's cache folder."""
    identity = _identity(name)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"[^:]*[/\\]", "", name)).strip("-")[-60:]     # folders are left out
    return cache_folder() / "spectra" / f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.json"


def _identity(name: str) -> str:
    """The name, with paths in it made absolute: the same file has the same one from every folder."""
    plain, mark, options = name.partition("?")
    prefix, colon, target = plain.rpartition(":")
    exists = bool(target) and Path(target).exists() and ("/" in target or "\\" in target or Path(target).suffix)
    return f"{prefix}{colon}{Path(target).resolve() if exists else target}{mark}{options}"


def write_record(path: str | Path, record: dict[str, Any]) -> None:
    """A record as JSON, written whole or not at all. Raises InputError where it cannot be written."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose a place where you may write") from error


def read_record(path: str | Path) -> dict[str, Any]:
    """What `write_record` wrote. Raises InputError: missing, truncated, or something else."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise InputError(f"{path}: format {record['format']!r}; this version reads {FORMAT!r}")
        for key in SPECTRA:
            if key in record:
                ErrorSpectrum.from_dict(record[key])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected what `invdiff priors calibrate` wrote"
                         ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not an error spectrum, or truncated ({error})") from error
    return record


def given_record(path: str | Path, name: str, prior: Denoiser) -> dict[str, Any]:
    """`read_record` of a file that was named for a prior, with a warning where it was measured with other weights."""
    record = read_record(path)
    if record.get("weights") != fingerprint(prior):
        warnings.warn(f"{path}: was measured with other weights than those of {name}, and is used as you say", stacklevel=3)
    return record


def find_record(name: str, prior: Denoiser) -> dict[str, Any] | None:
    """The stored record for a prior of this name, or None; one of other weights, or an unreadable one, is not used."""
    path = place(name)
    if not path.is_file():
        return None
    try:
        record = read_record(path)
    except InputError as error:
        warnings.warn(f"{error}; it is not used", stacklevel=3)
        return None
    if record.get("weights") != fingerprint(prior):
        warnings.warn(f"{name}: its weights have changed since it was calibrated; the error spectrum in {path} is not used",
                      stacklevel=3)
        return None
    return record


def with_spectrum(prior: Denoiser, record: dict[str, Any] | None) -> Denoiser:
    """The prior, answering with a record's error spectra: a copy of it with the same weights, or one that wraps it.

    Raises InputError for a prior of latents, which are no images.
    """
    if record is None:
        return prior
    if getattr(prior, "latent", False):
        raise InputError("spectrum: is for a prior of images, and this one is of latents, with one on its card; leave it out")
    known = copy.copy(prior) if isinstance(prior, EDMDenoiser | ForeignDenoiser) else Measured(prior)
    known.card = {**known.card, **{key: record[key] for key in SPECTRA if key in record}}
    return known


def calibrate(denoiser: Denoiser, images: Sequence[Tensor], sigmas: Sequence[float] = LEVELS) -> Denoiser:
    """A deepinv Denoiser with the error spectrum that it has on clean images (C, H, W) in [0, 1], all of one size; the rest
    (card, classes, weights ...) is as the denoiser has it.

    Use images that the denoiser was not trained on; a few dozen crops of 128 x 128 or larger do. The spectrum is for images of
    as many channels.
    Raises ValueError for fewer than two noise levels or images of different sizes, InputError for a prior of latents.
    """
    spectrum = measure_spectrum(denoiser, images, sigmas, f"measured on {len(images)} images given by the user")
    grey = len(images[0]) == 1 and channels_of(denoiser) in (None, 3)
    return with_spectrum(denoiser, {"spectrum_grey" if grey else "spectrum": spectrum.to_dict()})
