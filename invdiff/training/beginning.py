"""What a training run begins with: an untrained denoiser, or a prior."""

from collections.abc import Callable
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import nn

from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.priors.checkpoint import half_precision
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.facts import fingerprint
from invdiff.priors.latent import LatentPrior, latent_of
from invdiff.training.settings import TrainSettings


def build_denoiser(settings: TrainSettings) -> EDMDenoiser:
    """An untrained denoiser of the settings' architecture and preconditioning.

    Raises InputError for a network whose parts do not fit together.
    """
    try:
        network = settings.network.build()
    except ValueError as error:
        raise InputError(f"network.{error}") from error
    return EDMDenoiser(network, settings.network.channels, settings.noise.sigma_data, settings.noise.centre)


def begin(denoiser: EDMDenoiser, settings: TrainSettings, coder: Any = None) -> tuple[str, str]:
    """Begin as `initial` or, without it, as the teacher of a distillation (Salimans & Ho 2022, Algorithm 2); where the teacher
    is of another network, and without either, weights stay random. Returns `weights_of` `initial`, and what is to be said.

    coder: the autoencoder of a run on latents.
    Raises InputError as `start_from` does for `initial`.
    """
    if settings.initial:
        return start_from(denoiser, settings.initial, coder), ""
    if teacher := getattr(settings.loss, "teacher", None):
        untrained = {name: value.clone() for name, value in denoiser.state_dict().items()}
        try:
            start_from(denoiser, teacher, coder, "loss.teacher")
        except InputError as error:
            denoiser.load_state_dict(untrained)
            return "", f"it begins with random weights, not as its teacher; {error}"
    return "", ""


def start_from(denoiser: EDMDenoiser, name: str, coder: Any = None, key: str = "initial") -> str:
    """Begin as a prior, of the same network or of a part of it: blocks that it lacks are the identity at first. Returns
    `weights_of` it.

    coder: the autoencoder of a run on latents.
    key: the setting that names the prior.
    Raises InputError where there is none, or one of another architecture, preconditioning or autoencoder.
    """
    prior = load_prior(name)
    initial = prior.denoiser if isinstance(prior, LatentPrior) else prior
    if not isinstance(initial, EDMDenoiser):
        raise InputError(f"{key}: {name} is not a prior that `invdiff train` wrote")
    check_latents(key, name, prior, coder)
    if (initial.sigma_data, initial.centre) != (denoiser.sigma_data, denoiser.centre):
        raise InputError(f"{key}: {name} has noise.sigma_data {initial.sigma_data:g} and noise.centre {initial.centre:g}, "
                         f"not {denoiser.sigma_data:g} and {denoiser.centre:g}")
    known = initial.network.state_dict()
    unlike = InputError(f"{key}: {name} is of another architecture than `network`")
    try:
        if denoiser.network.load_state_dict(known, strict=False).unexpected_keys:
            raise unlike
    except RuntimeError as error:
        raise unlike from error
    side = 8 * int(getattr(denoiser.network, "stride", 4))
    x = torch.randn(2, initial.channels, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not torch.allclose(denoiser(x, 1.0), initial(x, 1.0), atol=1e-4):
            raise unlike
    return fingerprint(prior)


def check_latents(key: str, name: str, prior: Denoiser, coder: Any) -> None:
    """Raises InputError for a prior, named by a setting, that is of latents where the run is of images, or the other way round,
    or of those of another autoencoder than `coder`."""
    latent = latent_of(prior)
    if (latent is None) != (coder is None):
        raise InputError(f"{key}: {name} is a prior of {'latents' if latent else 'images'}, and the run is one of "
                         f"{'latents' if coder else 'images'}; give another, or set latent")
    if latent and not _same_weights(latent.autoencoder, coder):
        raise InputError(f"{key}: {name} is a prior of the latents of another autoencoder than latent.autoencoder")


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    """As files have them, in half precision."""
    mine, theirs = half_precision(a), half_precision(b)
    return mine.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in mine.items())


def weights_of(name: str | None, load: Callable[[str], nn.Module] = load_prior) -> str | None:
    """The fingerprint of a network that a setting names; "" if it names none, None if what it names is not there (any more)."""
    try:
        return fingerprint(load(name)) if name else ""
    except InputError:
        return None
