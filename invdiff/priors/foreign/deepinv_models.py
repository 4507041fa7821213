"""`deepinv:NAME`: the pretrained denoisers of deepinv, with its downloads but without its unpickling."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import deepinv
import torch
from torch import nn

from invdiff.errors import InputError
from invdiff.priors.foreign import guided_diffusion
from invdiff.priors.foreign.adapter import BySigma, ForeignDenoiser
from invdiff.priors.foreign.weights import fill, read_state
from invdiff.priors.names import class_label
from invdiff.validation import nearest

_HUB = "https://huggingface.co/deepinv/{}/resolve/main/{}?download=true"
_SWINIR = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/{}DN_DFWB_s128w8_SwinIR-M_noise{}.pth"
_EDM: dict[str, Any] = {"_was_trained_on_minus_one_one": True, "pixel_std": 0.5}
EDM_RANGE = (0.001, 40.0)                   # 0.002 to 80 for images in [-1, 1] (Karras et al. 2022, Table 1)
_NVIDIA = "CC BY-NC-SA 4.0"


@dataclass(frozen=True)
class Checkpoint:
    """A class of deepinv's, its arguments, and the weights for them.

    Attributes:
        model: name in deepinv.models.
        url: what deepinv downloads for these arguments.
        sigma_range: noise levels it was trained on, in image units, as far as is known.
        pretrained: what deepinv calls these weights.
        stride: what image sizes must be multiples of; deepinv pads by itself where that is 1.
        classes: of a class-conditional network, else 0.
        strict: does deepinv insist that the names match?
    """

    model: str
    url: str
    arguments: dict[str, Any] = field(default_factory=dict)
    channels: int | None = 3
    sigma_range: tuple[float, float | None] = (0.0, None)
    pretrained: Any = "download"
    stride: int = 1
    data: str = "unknown"
    licence: str = "unknown"
    classes: int = 0
    strict: bool = True


def _fixed(grey_levels: float) -> tuple[float, float]:
    return grey_levels / 255, grey_levels / 255


def _dncnn(file: str, channels: int, pretrained: str = "download") -> Checkpoint:
    return Checkpoint("DnCNN", _HUB.format("dncnn", file), {"in_channels": channels, "out_channels": channels}, channels,
                      _fixed(2), pretrained)


def _swinir(channels: int, noise: int) -> Checkpoint:
    url = _SWINIR.format("005_color" if channels == 3 else "004_gray", noise)
    return Checkpoint("SwinIR", url, {"in_chans": channels, "pretrained_noise_level": noise}, channels, _fixed(noise))


def _edm(file: str, data: str, **arguments: Any) -> Checkpoint:
    return Checkpoint("NCSNpp", _HUB.format("edm", f"{file}.pt"), {**_EDM, **arguments}, 3, EDM_RANGE, file, 8, data, _NVIDIA)


_GREY: dict[str, Any] = {"in_channels": 1, "out_channels": 1}
_CIFAR: dict[str, Any] = {"img_resolution": 32, "channel_mult": (2, 2, 2)}

CHECKPOINTS: dict[str, Checkpoint] = {
    "drunet": Checkpoint("DRUNet", _HUB.format("drunet", "drunet_deepinv_color_finetune_22k.pth")),
    "drunet-gray": Checkpoint("DRUNet", _HUB.format("drunet", "drunet_deepinv_gray_finetune_26k.pth"), _GREY, 1),
    "gsdrunet": Checkpoint("GSDRUNet", _HUB.format("gradientstep", "GSDRUNet_torch.ckpt"), {}, 3, (0, 50 / 255)),
    "gsdrunet-gray": Checkpoint("GSDRUNet", _HUB.format("gradientstep", "GSDRUNet_grayscale_torch.ckpt"), _GREY, 1,
                                (0, 50 / 255)),
    "ffdnet": Checkpoint("FFDNet", _HUB.format("FFDNet", "ffdnet_color.pth"),
                         {"n_conv_layers": 12, "nf": 96, "img_channels": 3}, 3, (0, 75 / 255), stride=2),
    "ffdnet-gray": Checkpoint("FFDNet", _HUB.format("FFDNet", "ffdnet_gray.pth"), {}, 1, (0, 75 / 255), stride=2),
    "dncnn": _dncnn("dncnn_sigma2_color.pth", 3),
    "dncnn-gray": _dncnn("dncnn_sigma2_gray.pth", 1),
    "dncnn-lipschitz": _dncnn("dncnn_sigma2_lipschitz_color.pth", 3, "download_lipschitz"),
    "dncnn-lipschitz-gray": _dncnn("dncnn_sigma2_lipschitz_gray.pth", 1, "download_lipschitz"),
    "scunet": Checkpoint("SCUNet", _HUB.format("scunet", "scunet_color_real_psnr.pth"), {}, 3, (0, 50 / 255)),
    "restormer": Checkpoint("Restormer", _HUB.format("restormer", "gaussian_color_denoising_blind.pth"), {}, 3, (0, 50 / 255),
                            "denoising", 8),
    "restormer-gray": Checkpoint("Restormer", _HUB.format("restormer", "gaussian_gray_denoising_blind.pth"), _GREY, 1,
                                 (0, 50 / 255), "denoising", 8),
    **{f"swinir-{noise}": _swinir(3, noise) for noise in (15, 25, 50)},
    **{f"swinir-gray-{noise}": _swinir(1, noise) for noise in (15, 25, 50)},
    "ram": Checkpoint("RAM", "https://huggingface.co/mterris/ram/resolve/main/ram.pth.tar", {}, None, pretrained=True,
                      strict=False),
    "diffunet": Checkpoint("DiffUNet", _HUB.format("diffunet", "diffusion_ffhq_10m.pt"), data="FFHQ, faces of 256 x 256"),
    "diffunet-imagenet": Checkpoint("DiffUNet", _HUB.format("diffunet", "diffusion_openai.pt"), {"large_model": True},
                                    data="ImageNet, 256 x 256"),
    "ncsnpp-ffhq64": _edm("edm-ffhq-64x64-uncond-ve", "FFHQ, faces of 64 x 64"),
    "ddpmpp-ffhq64": _edm("edm-ffhq-64x64-uncond-vp", "FFHQ, faces of 64 x 64", model_type="ddpm"),
    "ncsnpp-cifar10": _edm("edm-cifar10-32x32-uncond-ve", "CIFAR-10, 32 x 32", **_CIFAR),
    "ddpmpp-cifar10": _edm("edm-cifar10-32x32-uncond-vp", "CIFAR-10, 32 x 32", model_type="ddpm", **_CIFAR),
    "adm-imagenet64": Checkpoint("ADMUNet", _HUB.format("edm", "adm-imagenet64-cond.pt"), {**_EDM, "label_dim": 1000}, 3,
                                 EDM_RANGE, "download", 8, "ImageNet, 64 x 64", _NVIDIA, 1000),
}
OPTIONS = ("weights", "class")
ALIASES = {"ncsnpp": "ncsnpp-ffhq64", "ncsnpp-imagenet64": "adm-imagenet64", "swinir": "swinir-15"}


def load(target: str, options: Mapping[str, str]) -> ForeignDenoiser:
    """A denoiser of the table by name. Options: `weights`, a file of one's own for the same network; `class`, of a
    class-conditional network.

    Raises:
        InputError: an unknown name, weights that are not there and cannot be downloaded, or that do not fit.
    """
    name = ALIASES.get(target, target)
    if name not in CHECKPOINTS:
        raise InputError(f"deepinv: no denoiser is called {target!r}; {nearest(target, [*CHECKPOINTS, *ALIASES])}")
    entry = CHECKPOINTS[name]
    path = options.get("weights") or _cached(f"deepinv:{target}", entry)
    about = {"name": f"deepinv:{target}", "source": entry.url, "data": entry.data, "licence": entry.licence}
    label = class_label(options, entry.classes, f"deepinv:{target}")
    if entry.model == "DiffUNet":       # deepinv's denoiser rounds the noise to whole steps, and clips
        denoiser = guided_diffusion.load(path, {})
        denoiser.card.update(about)
        return denoiser
    try:
        network = build(entry)
    except ImportError as error:
        raise InputError(f"deepinv:{target}: needs the package {error.name}; pip install {error.name}") from error
    fill(network, read_state(path), path, f"deepinv's {entry.model}", entry.strict)
    card = {**about, "channels": entry.channels, "sigma_range": list(entry.sigma_range)}
    return ForeignDenoiser(BySigma(network, **one_hot(label, entry.classes)), card, entry.stride)


def build(entry: Checkpoint, pretrained: Any = None) -> nn.Module:
    """The network, with random weights unless `pretrained` says otherwise."""
    make: Callable[..., nn.Module] = getattr(deepinv.models, entry.model)
    return make(**entry.arguments, pretrained=pretrained)


def one_hot(label: int | None, classes: int) -> dict[str, torch.Tensor]:
    """`class_labels` (1, classes) as deepinv's networks take them; nothing without a class."""
    if label is None:
        return {}
    return {"class_labels": torch.nn.functional.one_hot(torch.tensor([label]), classes).float()}


def _cached(name: str, entry: Checkpoint) -> str:
    """The path of the weights in torch's cache, downloaded if need be."""
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    file = entry.url.rpartition("/")[2].partition("?")[0]
    path = os.path.join(folder, file)
    if not os.path.exists(path):
        try:
            os.makedirs(folder, exist_ok=True)
            torch.hub.download_url_to_file(entry.url, path)
        except OSError as error:        # urllib's errors are such
            raise InputError(f"{name}: its weights are not in the cache and cannot be downloaded ({error}); fetch {entry.url} "
                             f"and put it at {path}") from error
    return path
