"""Denoisers that are programs: `torchscript:PATH.pt` and `python:MODULE:ATTRIBUTE`. Loading one is trusting its author."""

import hashlib
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.errors import InputError
from invdiff.own_code import failed, imported
from invdiff.priors.foreign.adapter import ForeignDenoiser
from invdiff.priors.names import integer

TORCHSCRIPT_OPTIONS = ("channels", "stride")


def load_torchscript(target: str, options: Mapping[str, str]) -> ForeignDenoiser:
    """A module f(x, sigma) -> x0 in image units, x (B, C, H, W) and sigma (B,), that torch.jit.save wrote.

    Options: `channels` of its images (3), `stride`, what height and width must be multiples of (1).

    No Python is unpickled, so a file of torch.save is refused and nothing in it runs. TorchScript is a program all the same,
    and can read and write files.

    Raises InputError: missing, no TorchScript, or no such function.
    """
    name = f"torchscript:{target}"
    channels, stride = (integer(options, key, default, name) for key, default in (("channels", 3), ("stride", 1)))
    if not Path(target).is_file():
        raise InputError(f"{target}: no such file; expected what torch.jit.save wrote")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # torch calls it deprecated, and files outlive that
            module = torch.jit.load(target, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{target}: not a TorchScript file, or truncated; expected what torch.jit.save wrote") from error
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    card = {"name": name, "source": target, "data": "unknown", "licence": "unknown", "channels": channels}
    denoiser = ForeignDenoiser(module, card, stride or 1)
    try:
        with torch.no_grad():
            denoiser(torch.full((1, channels or 3, 64, 64), 0.5), 0.1)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(f"{target}: expected f(x, sigma) -> x0 for x (1, {channels}, 64, 64) and sigma (1,); it says: "
                         f"{reason}") from error
    return denoiser


def load_python(target: str, options: Mapping[str, str]) -> Denoiser:
    """A denoiser by the name that it has in a module: a deepinv Denoiser, a function of no arguments that makes one, or a
    function D(x, sigma) in image units. Imports the module, also from the current folder.

    Raises InputError: no such module or name, one whose own code fails, or nothing that denoises.
    """
    thing = imported(target)
    try:
        denoiser = thing() if _takes(thing, 0) else thing
    except Exception as error:                               # whatever its author wrote
        raise failed(target, error) from error
    card = {"name": f"python:{target}", "source": target, "data": "unknown", "licence": "unknown"}
    if isinstance(denoiser, Denoiser):
        denoiser.card = card | dict(getattr(denoiser, "card", {}))
        return _with_code(denoiser, target).eval()
    if not callable(denoiser) or not _takes(denoiser, 2):
        raise InputError(f"python:{target}: expected a denoiser, or a function D(x, sigma), got a {type(denoiser).__name__}")
    return _with_code(ForeignDenoiser(ByFloat(denoiser), card), target).eval()


def _with_code(denoiser: Denoiser, target: str) -> Denoiser:
    """For one without weights a digest of its module's file in their place, so that a change of it makes another prior."""
    file = getattr(sys.modules[target.partition(":")[0]], "__file__", None)
    if file and Path(file).is_file() and not denoiser.state_dict():
        digest = hashlib.sha256(Path(file).read_bytes()).digest()
        denoiser.register_buffer("_digest_of_code", torch.frombuffer(bytearray(digest), dtype=torch.uint8))
    return denoiser


class ByFloat(Denoiser):
    """A function of an image and one number, for batches of several levels."""

    def __init__(self, function: Callable[[Tensor, float], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, sigma: Tensor, **kwargs: object) -> Tensor:
        """x (B, C, H, W), sigma (B,)."""
        levels = sigma.tolist()
        if len(set(levels)) == 1:
            return self.function(x, levels[0])
        return torch.cat([self.function(item[None], level) for item, level in zip(x, levels, strict=True)])


def _takes(thing: Any, count: int) -> bool:
    """Can it be called with so many arguments? A module can with two, whatever its signature says."""
    if isinstance(thing, torch.nn.Module):
        return count == 2
    try:
        inspect.signature(thing).bind(*[None] * count)
    except (TypeError, ValueError):     # too few, too many, no callable, or one without a signature
        return False
    return True
