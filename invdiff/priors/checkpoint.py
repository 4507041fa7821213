"""A prior on disk: one safetensors file, weights in half precision, its card as JSON in the header.

Nothing is unpickled. The card says how to rebuild the network, what it was trained on, and what it was measured to do.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from invdiff.errors import InputError
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.networks import build_network
from invdiff.priors.spectrum import ErrorSpectrum

FORMAT = "invdiff-prior-1"


def save_prior(path: str | Path, denoiser: EDMDenoiser, card: dict[str, Any]) -> None:
    """Write weights (float16) and card; the file is complete or absent."""
    tensors = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in denoiser.network.state_dict().items()}
    write_tensors(path, tensors, {"format": FORMAT, "card": json.dumps(card)})


def load_checkpoint(path: str | Path) -> EDMDenoiser:
    """The denoiser of a file that `save_prior` wrote, in evaluation mode, with its `.card`.

    Raises:
        InputError: missing, truncated, not ours, or weights that do not fit the architecture the card names.
    """
    tensors, metadata = read_tensors(path)
    try:
        if metadata["format"] != FORMAT:
            raise InputError(f"{path}: format {metadata['format']!r}; this version reads {FORMAT!r}")
        card = json.loads(metadata["card"])
        network = build_network(card["architecture"])
        denoiser = EDMDenoiser(network, channels=card["architecture"]["channels"], **card["preconditioning"])
        network.load_state_dict({k: v.float() for k, v in tensors.items()})
        _check(card, network)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        reason = _reason(error)
        raise InputError(f"{path}: not an invdiff prior, or weights and card do not match ({reason})") from error
    denoiser.card = card
    return denoiser.eval().requires_grad_(False)


def _check(card: dict[str, Any], network: torch.nn.Module) -> None:
    """Raises an error of the kinds that a wrong card raises, for what would be found out in the middle of a run."""
    for key in ("spectrum", "spectrum_grey"):
        if card.get(key):
            ErrorSpectrum.from_dict(card[key])
    if card.get("sigma_range"):
        low, high = map(float, card["sigma_range"])
        if not 0 < low < high:
            raise ValueError(f"sigma_range: expected two rising positive numbers, got {card['sigma_range']}")
    for name, weights in network.named_parameters():
        if not bool(weights.isfinite().all()):
            raise ValueError(f"{name} holds NaN or infinity")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"architecture.{'.'.join(map(str, first['loc'][1:]))}: {first['msg'].lower()}"
    lines = [line.strip() for line in str(error).splitlines()]
    return lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0]      # which tensor it is, in torch's second


def read_card(path: str | Path) -> dict[str, Any]:
    """The card alone, without loading weights. Raises InputError as `load_checkpoint` does."""
    try:
        with safe_open(_existing(path), framework="pt") as file:
            return json.loads((file.metadata() or {})["card"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not an invdiff prior, or truncated ({error})") from error


def read_format(path: str | Path) -> str | None:
    """What format a file says it has, without loading weights. Raises InputError as `read_tensors` does."""
    try:
        with safe_open(_existing(path), framework="pt") as file:
            return (file.metadata() or {}).get("format")
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file, or truncated ({error})") from error


def write_tensors(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """safetensors, written to a neighbour and renamed, so that a kill leaves the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(0o644)        # safetensors makes it private
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises InputError if it is missing, truncated or of another kind."""
    try:
        with safe_open(_existing(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file, or truncated ({error})") from error


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a prior's .safetensors file")
    return path
