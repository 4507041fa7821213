"""`edm:PATH.safetensors`: the networks of NVlabs EDM (Karras et al. 2022): NCSN++, DDPM++ and ADM."""

import math
from collections.abc import Mapping
from typing import Any

import deepinv
import torch
from torch import Tensor, nn

from invdiff.errors import InputError
from invdiff.priors.foreign.adapter import BySigma, ForeignDenoiser
from invdiff.priors.foreign.deepinv_models import EDM_RANGE, one_hot
from invdiff.priors.foreign.weights import fill, read_state
from invdiff.priors.names import class_label

OPTIONS = ("class",)
_PICKLES = (".pkl", ".pickle")


def load(target: str, options: Mapping[str, str]) -> ForeignDenoiser:
    """The denoiser of EDM weights, its architecture read from names and shapes; `class` is for a class-conditional one.

    The weights are those of a network that was trained with EDM's own preconditioning, sigma_data = 0.5 on images in
    [-1, 1]; names may begin with "model.", as in EDM's files.

    Raises InputError: a pickle, a file that holds no such network, or a wrong option.
    """
    name = f"edm:{target}"
    if target.lower().endswith(_PICKLES):
        raise InputError(f"{target}: a pickle runs whatever code is in it, and is not read; convert it to safetensors once, as "
                         "docs/priors.md shows")
    state = {key.removeprefix("model."): value for key, value in read_state(target).items()}
    try:
        arguments = architecture(state)
        network = _build(arguments)
    except (KeyError, IndexError, ValueError, RuntimeError, ZeroDivisionError) as error:
        missing = "no " if isinstance(error, KeyError) else ""
        raise InputError(f"{target}: not the weights of an EDM network ({missing}{error})") from error
    fill(network, state, target, "an EDM network")
    channels, classes = arguments["in_channels"], arguments["label_dim"]
    card = {"name": name, "source": target, "data": "unknown", "licence": "unknown", "channels": channels,
            "image_size": [arguments["img_resolution"]] * 2, "sigma_range": list(EDM_RANGE)}
    label = class_label(options, classes, name)
    return ForeignDenoiser(BySigma(network, **one_hot(label, classes)), card, 2 ** (len(arguments["channel_mult"]) - 1))


def architecture(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of deepinv's NCSNpp (with a `model_type`) or ADMUNet (without) for these weights.

    Raises KeyError, ValueError, ZeroDivisionError: names or shapes of another network.
    """
    sizes = {int(key.split(".")[1].split("x")[0]) for key in state if key.startswith("enc.")}
    if not sizes:
        raise KeyError("enc")
    side, adm = max(sizes), "out_conv.weight" in state
    first = state[f"enc.{side}x{side}_conv.weight"]
    base = _shape(state, "map_layer0.weight", 1) if adm else first.shape[0]
    levels = sorted(sizes, reverse=True)
    blocks = [f"enc.{n}x{n}_block" for n in levels]
    count = 1 + max(int(key[len(blocks[0]):].split(".")[0]) for key in state if key.startswith(blocks[0]))
    arguments = {
        "img_resolution": side, "in_channels": first.shape[1], "out_channels": first.shape[1], "model_channels": base,
        "channel_mult": [_ratio(_shape(state, f"{block}0.conv1.weight", 0), base) for block in blocks],
        "num_blocks": count, "channel_mult_emb": _ratio(_shape(state, "map_layer0.weight", 0), base),
        "attn_resolutions": [n for n, block in zip(levels, blocks, strict=True) if f"{block}0.qkv.weight" in state],
        "label_dim": _shape(state, "map_label.weight", 1, 0), "augment_dim": _shape(state, "map_augment.weight", 1, 0),
    }
    return arguments if adm else {**arguments, "model_type": "ncsn" if "map_noise.freqs" in state else "ddpm"}


def _build(arguments: Mapping[str, Any]) -> nn.Module:
    kind = deepinv.models.NCSNpp if "model_type" in arguments else deepinv.models.ADMUNet
    with torch.device("meta"):
        return kind(**arguments, pretrained=None, pixel_std=0.5, _was_trained_on_minus_one_one=True)


def _shape(state: Mapping[str, Tensor], key: str, axis: int, default: int | None = None) -> int:
    """The length of a tensor along an axis, or a default where it is missing and there is one."""
    if key not in state and default is not None:
        return default
    return state[key].shape[axis]


def _ratio(part: int, base: int) -> int:
    if part % base:
        raise ValueError(f"{part} channels are no multiple of {base}")
    return math.floor(part / base)
