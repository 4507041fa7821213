"""A prior on disk: one safetensors file, weights in half precision, its card as JSON in the header.

Nothing is unpickled. The card says how to rebuild the network, what it was trained on, and what it was measured to do.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from invdiff.errors import InputError
from invdiff.io.files import replacing, writing
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.networks import build_network
from invdiff.priors.spectrum import ErrorSpectrum

FORMAT = "invdiff-prior-1"
Network = TypeVar("Network", bound=nn.Module)


def save_prior(path: str | Path, denoiser: EDMDenoiser, card: dict[str, Any]) -> None:
    """Write weights (float16) and card; the file is complete or absent."""
    write_tensors(path, half_precision(denoiser.network), {"format": FORMAT, "card": json.dumps(card)})


def half_precision(network: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The weights of a network as a file has them: float16, on the CPU, their names after a prefix."""
    return {prefix + k: v.detach().to("cpu", torch.float16).contiguous() for k, v in network.state_dict().items()}


def load_checkpoint(path: str | Path) -> EDMDenoiser:
    """The denoiser of a file that `save_prior` wrote, in evaluation mode, with its `.card`.

    Raises:
        InputError: missing, truncated, not ours, or weights that do not fit the architecture the card names.
    """
    tensors, metadata = read_tensors(path)
    with matching(path, "an invdiff prior"):
        card = card_of(metadata, FORMAT)
        network = filled(lambda: build_network(card["architecture"]), tensors)
        denoiser = EDMDenoiser(network, channels=card["architecture"]["channels"], **card["preconditioning"])
        check_card(card)
    denoiser.card = card
    return denoiser.eval().requires_grad_(False)


def card_of(metadata: Mapping[str, str], form: str | None = None) -> dict[str, Any]:
    """The card in a file's metadata. Raises KeyError or ValueError where there is none, or the file has another format."""
    if form and metadata.get("format") != form:
        raise ValueError(f"expected the format {form!r}, got {metadata.get('format')!r}")
    card = json.loads(metadata["card"])
    if not isinstance(card, dict):
        raise ValueError(f"its card is a {type(card).__name__}, not a mapping")
    return card


def filled(build: Callable[[], Network], state: Mapping[str, Tensor]) -> Network:
    """The network that `build` makes, with weights of its own, in float32. A file may claim any size, so the network takes no
    memory until names and shapes have been compared. What is no weight, such as a buffer that files leave out, is still to
    be set.

    Raises RuntimeError where a name or a shape differs, ValueError for weights that are not finite, and what `build` does.
    """
    with torch.device("meta"):
        network = build()
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    for name, weights in network.named_parameters():
        if not bool(weights.isfinite().all()):
            raise ValueError(f"{name} holds NaN or infinity")
    return network


def check_card(card: Mapping[str, Any]) -> None:
    """Raises an error of the kinds that a wrong card raises, for what would be found out in the middle of a run."""
    for key in ("spectrum", "spectrum_grey"):
        if card.get(key):
            ErrorSpectrum.from_dict(card[key])
    if card.get("sigma_range"):
        low, high = map(float, card["sigma_range"])
        if not 0 < low < high < math.inf:
            raise ValueError(f"sigma_range: expected two rising positive numbers, got {card['sigma_range']}")
    size = card.get("image_size", [1, 1])
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise ValueError(f"image_size: expected height and width in pixels, got {size!r}")
    if not isinstance(own := card.get("sampling", {}), dict):
        raise ValueError(f"sampling: expected a mapping, such as {{solver: ddim, steps: 4}}, got {own!r}")
    known = card["preconditioning"]
    if not (0 < known.get("sigma_data", 1) < math.inf and math.isfinite(known.get("centre", 0))):
        raise ValueError(f"preconditioning: expected sigma_data > 0 and a centre, got {known}")


@contextmanager
def matching(path: str | Path, what: str) -> Iterator[None]:
    """Whatever a file's card and weights raise that are not those of `what`, as one InputError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not {what}, or weights and card do not match ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, ('architecture', *first['loc'][1:])))}: {first['msg'].lower()}"
    lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
    reason = lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0]    # which tensor it is, in torch's second
    return reason if len(reason) <= 200 else f"{reason[:197]}..."


def read_card(path: str | Path) -> dict[str, Any]:
    """The card alone, without loading weights. Raises InputError as `load_checkpoint` does."""
    try:
        with safe_open(_existing(path), framework="pt") as file:
            return card_of(file.metadata() or {})
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not an invdiff prior, or truncated ({error})") from error


def read_format(path: str | Path) -> str | None:
    """What format a file says it has, without loading weights. Raises InputError as `read_tensors` does."""
    try:
        with safe_open(_existing(path), framework="pt") as file:
            return (file.metadata() or {}).get("format")
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file, or truncated ({error})") from error


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """safetensors, written whole or not at all: a kill leaves the old file or the new one.

    Raises InputError where it cannot be written, and for numbers that are not finite, which no file is to keep.
    """
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise InputError(f"{path}: is not written, as {name} holds NaN or infinity: the training has diverged; start anew "
                             "with a lower rate, a longer warmup or precision=fp32")
    with writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
            temporary.chmod(0o644)      # safetensors makes it private


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
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
