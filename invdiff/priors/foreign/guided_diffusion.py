"""`guided-diffusion:PATH.pt`: state dicts of OpenAI's guided-diffusion, such as DPS and DiffPIR use for faces and ImageNet."""

from collections.abc import Mapping

import torch

from invdiff.diffusion.schedules import cosine_chain, linear_chain
from invdiff.errors import InputError
from invdiff.priors.foreign.adapter import ForeignDenoiser
from invdiff.priors.foreign.adm import ADM, Heads
from invdiff.priors.foreign.vp import VPDenoiser
from invdiff.priors.foreign.weights import fill, read_state
from invdiff.priors.names import choice, class_label, integer

OPTIONS = ("schedule", "steps", "head_channels", "heads", "attention", "class")
_SCHEDULES = {"linear": linear_chain, "cosine": cosine_chain}
_NO_WEIGHTS = ("sqrt_1m_alphas_cumprod", "sqrt_alphas_cumprod")         # which deepinv's DiffUNet has beside them


def load(target: str, options: Mapping[str, str]) -> ForeignDenoiser:
    """The denoiser of a state dict, its architecture read from names and shapes.

    Options, for what no shape tells: `schedule` (linear or cosine), `steps` of it (1000), `head_channels` of attention (64)
    or the number of its `heads`, `attention` (legacy or new: the order of queries, keys and values), `class` for a
    class-conditional network. The network predicts the noise; learned variances are dropped.

    Raises InputError: a file that is no such state dict, or a wrong option.
    """
    name = f"guided-diffusion:{target}"
    heads = Heads(integer(options, "head_channels", 64, name) or 64, integer(options, "heads", None, name),
                  choice(options, "attention", ("legacy", "new"), name) == "new")
    schedule = _SCHEDULES[choice(options, "schedule", tuple(_SCHEDULES), name)]
    steps = integer(options, "steps", 1000, name) or 1000
    if steps < 50:
        raise InputError(f"{name}: steps: expected at least 50, the length of the schedule in training, got {steps}")
    state = {key: value for key, value in read_state(target).items() if key not in _NO_WEIGHTS}
    try:
        with torch.device("meta"):          # shapes only: no memory, no random weights
            network = ADM(state, heads)
            side = 2 * network.stride
            _try(network, side)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise InputError(f"{target}: not a state dict of guided-diffusion ({_reason(error)})") from error
    fill(network, state, target, "a guided-diffusion network")
    network.label = class_label(options, network.classes, name)
    denoiser = VPDenoiser(network, schedule(steps))
    card = {"name": name, "source": target, "data": "unknown", "licence": "unknown", "channels": network.channels,
            "sigma_range": denoiser.sigma_range}
    return ForeignDenoiser(denoiser, card, network.stride)


def _try(network: ADM, side: int) -> None:
    """Run it on an image without values, so that shapes that do not fit together show up now."""
    if network.channels not in (1, 2, 3):
        raise ValueError(f"{network.channels} input channels, which no image has; an upsampler is no prior")
    network.label = 0
    out = network(torch.empty(1, network.channels, side, side), torch.empty(1))
    if out.shape[1] not in (network.channels, 2 * network.channels) or out.shape[2:] != (side, side):
        raise ValueError(f"maps {network.channels} channels to {tuple(out.shape[1:])}")


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return f"no {text}" if isinstance(error, KeyError) else text
