"""Checkpoints that others made, by format: `FORMAT:WHAT?option=value`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deepinv.models import Denoiser

from invdiff.errors import InputError
from invdiff.priors.foreign import deepinv_models, diffusers_unet, edm, guided_diffusion, programs
from invdiff.priors.names import check, join

__all__ = ["FORMATS", "Format", "is_foreign", "load_foreign"]


@dataclass(frozen=True)
class Format:
    """A format of checkpoints.

    Attributes:
        load: from what follows the colon, and the options, to a deepinv Denoiser with a `.card`; raises InputError.
        options: the names of these.
        example: how a user would write it.
        about: one line.
    """

    load: Callable[[str, Mapping[str, str]], Denoiser]
    options: tuple[str, ...]
    example: str
    about: str


FORMATS: dict[str, Format] = {
    "deepinv": Format(deepinv_models.load, deepinv_models.OPTIONS, "deepinv:drunet", "a pretrained denoiser of deepinv's"),
    "diffusers": Format(diffusers_unet.load, diffusers_unet.OPTIONS, "diffusers:google/ddpm-celebahq-256",
                        "a UNet2DModel and its scheduler, from the hub or a folder"),
    "guided-diffusion": Format(guided_diffusion.load, guided_diffusion.OPTIONS, "guided-diffusion:ffhq_10m.pt",
                               "a state dict of OpenAI's guided-diffusion"),
    "edm": Format(edm.load, edm.OPTIONS, "edm:ffhq64.safetensors", "a network of NVlabs EDM, as safetensors"),
    "torchscript": Format(programs.load_torchscript, programs.TORCHSCRIPT_OPTIONS, "torchscript:mine.pt",
                          "a TorchScript module f(x, sigma); a program, so trust its author"),
    "python": Format(programs.load_python, (), "python:mypackage.priors:faces",
                     "a denoiser, or D(x, sigma), of your own code"),
}


def is_foreign(name: str) -> bool:
    """Does it begin with a format, known or mistyped? (One letter and a colon is a drive.)"""
    prefix, colon, _ = name.partition(":")
    return bool(colon) and len(prefix) > 1 and not set(prefix) & set("/\\. ")


def load_foreign(plain: str, options: Mapping[str, str]) -> Denoiser:
    """A deepinv Denoiser with a `.card`, in image units, by its name and the options that follow it.

    Raises InputError: an unknown format or option, or what the format's loader says.
    """
    name = join(plain, options)
    prefix, _, target = plain.partition(":")
    if prefix not in FORMATS:
        raise InputError(f"prior: unknown format {prefix!r} in {name!r}; known are {', '.join(FORMATS)}")
    if not target:
        raise InputError(f"prior: {name!r} names no checkpoint; write for example {FORMATS[prefix].example}")
    check(options, (*FORMATS[prefix].options, "spectrum"), name)         # which every prior takes
    denoiser = FORMATS[prefix].load(target, options)
    denoiser.card["name"] = name
    return denoiser
