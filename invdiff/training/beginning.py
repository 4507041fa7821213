"""What a training run begins with: an untrained denoiser, or a prior."""

import torch

from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.training.settings import TrainSettings


def build_denoiser(settings: TrainSettings) -> EDMDenoiser:
    """A denoiser of the settings' architecture and preconditioning, untrained unless they name an initial prior.

    Raises InputError for a network whose parts do not fit together, and as `start_from` does.
    """
    try:
        network = settings.network.build()
    except ValueError as error:
        raise InputError(f"network.{error}") from error
    denoiser = EDMDenoiser(network, settings.network.channels, settings.noise.sigma_data, settings.noise.centre)
    if settings.initial:
        start_from(denoiser, settings.initial)
    return denoiser


def start_from(denoiser: EDMDenoiser, name: str) -> None:
    """Begin as a prior, of the same network or of a part of it: blocks that it lacks are the identity at first.

    Raises InputError where there is none, or one of another architecture or preconditioning.
    """
    initial = load_prior(name)
    if not isinstance(initial, EDMDenoiser):
        raise InputError(f"initial: {name} is not a prior that `invdiff train` wrote")
    if (initial.sigma_data, initial.centre) != (denoiser.sigma_data, denoiser.centre):
        raise InputError(f"initial: {name} has noise.sigma_data {initial.sigma_data:g} and noise.centre {initial.centre:g}, "
                         f"not {denoiser.sigma_data:g} and {denoiser.centre:g}")
    known = initial.network.state_dict()
    unlike = InputError(f"initial: {name} is of another architecture than `network`")
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
