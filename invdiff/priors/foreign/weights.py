"""Weights from files that others wrote. Nothing in them is executed."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from invdiff.errors import InputError
from invdiff.priors.checkpoint import read_tensors

_NESTED = ("state_dict", "params_ema", "params", "ema", "model")        # where training scripts put the weights


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of what torch.save wrote (.pt, .pth, .ckpt, .bin), in float32.

    Files of torch.save are pickles; they are read with `weights_only=True`, which builds tensors and containers and refuses
    everything else. Raises InputError: missing, truncated, or anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the weights of a network")
    tensors = read_tensors(path)[0] if path.suffix == ".safetensors" else _read_torch(path)
    if not tensors:
        raise InputError(f"{path}: holds no tensors; expected the weights of a network")
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*TorchScript")      # which is refused below, in a sentence
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:      # a pickle that is none can raise anything
        if "unsupported global" in str(error).lower() or "unsupported class" in str(error).lower():
            raise InputError(f"{path}: holds more than tensors, and what else is pickled there might run code, so it is not "
                             "read; save the weights alone, see docs/priors.md") from error
        raise InputError(f"{path}: cannot be read as weights; it is truncated, or of another kind") from error
    for key in _NESTED:
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    if not isinstance(data, Mapping) or not all(isinstance(v, Tensor) for v in data.values()):
        raise InputError(f"{path}: expected a mapping of names to tensors, found {type(data).__name__}")
    return dict(data)


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str, what: str, strict: bool = True) -> None:
    """Put weights into a network, and make it ready for use. Raises InputError, one sentence.

    Args:
        network: of which they should be; it may have been built on the device "meta".
        state: by name.
        where: the file.
        what: the network, for the message.
        strict: must every name match? If not, nine in ten of the network's must.
    """
    try:
        missing = network.load_state_dict(dict(state), strict=strict, assign=True).missing_keys
        if 10 * len(missing) > len(network.state_dict()):
            raise RuntimeError(f"{len(missing)} tensors are missing")
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:40])
        raise InputError(f"{where}: these are not the weights of {what} ({reason} ...)") from error
    network.eval().requires_grad_(False)
