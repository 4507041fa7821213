"""`diffusers:ORG/NAME` or `diffusers:FOLDER`: a UNet2DModel of the diffusers library, with its scheduler."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invdiff.errors import InputError
from invdiff.priors.foreign.adapter import ForeignDenoiser
from invdiff.priors.foreign.vp import VPDenoiser
from invdiff.priors.foreign.weights import fill, read_state
from invdiff.priors.names import class_label
from invdiff.priors.networks import check_sizes

OPTIONS = ("class",)
_STEM = "diffusion_pytorch_model"
_CONFIGS = ["config.json", "unet/config.json", "scheduler_config.json", "scheduler/scheduler_config.json"]
# attention of the first releases had other names
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def load(target: str, options: Mapping[str, str]) -> ForeignDenoiser:
    """The denoiser of an unconditional (or, with `class`, class-conditional) pixel-space diffusion model.

    A folder as `save_pretrained` writes it, of the pipeline or of model and scheduler; otherwise a repository of the hub,
    from its local cache or downloaded.

    Raises InputError: the library is missing, the model is not there or of another kind, or its files do not fit.
    """
    name = f"diffusers:{target}"
    folder = Path(target) if Path(target).is_dir() else _from_hub(target)
    home = folder / "unet" if (folder / "unet").is_dir() else folder
    config = _read(home / "config.json")
    scheduler = _read(_first(folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"))
    network, classes = _network(config, home), int(config.get("num_class_embeds") or 0)
    label = class_label(options, classes, name)
    try:
        denoiser = VPDenoiser(Labelled(network, label), _alphas(scheduler), scheduler.get("prediction_type", "epsilon"),
                              whole_steps=config.get("time_embedding_type") == "learned")
    except ValueError as error:
        raise InputError(f"{name}: its scheduler makes no prior ({error})") from error
    card = {"name": name, "source": str(target), "data": "unknown", "licence": "unknown",
            "channels": network.config.in_channels, "image_size": _height_and_width(config.get("sample_size")),
            "sigma_range": denoiser.sigma_range, "predicts": denoiser.predicts}
    return ForeignDenoiser(denoiser, card, 2 ** (len(network.config.block_out_channels) - 1))


class Labelled(nn.Module):
    """A UNet2DModel as a function of x_t and t alone."""

    def __init__(self, network: nn.Module, label: int | None):
        super().__init__()
        self.network, self.label = network, label

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, C, H, W), t (B,) -> (B, C, H, W)."""
        labels = None if self.label is None else torch.full((len(x),), self.label, device=x.device)
        t = t.long() if isinstance(getattr(self.network, "time_proj", None), nn.Embedding) else t
        return self.network(x, t, class_labels=labels, return_dict=False)[0]


def _network(config: Mapping[str, Any], home: Path) -> Any:
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise InputError("diffusers: needs the package diffusers; pip install diffusers") from error
    kind = config.get("_class_name")
    if kind not in ("UNet2DModel", "UNetUnconditionalModel") or config.get("time_embedding_type") == "fourier":
        raise InputError(f"{home}: a {kind} with {config.get('time_embedding_type', 'unknown')} time embedding; expected a "
                         "UNet2DModel of a variance-preserving diffusion on pixels, which no latent or text-to-image model is")
    if config.get("class_embed_type"):
        raise InputError(f"{home}: class_embed_type {config['class_embed_type']!r}: expected numbered classes, or none")
    try:
        check_sizes(config.get("block_out_channels", (64,)), [config.get("layers_per_block", 1)])
        with torch.device("meta"):
            network = UNet2DModel.from_config(dict(config))
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{home / 'config.json'}: makes no UNet2DModel ({str(error).splitlines()[0]})") from error
    path = _first(home / f"{_STEM}.safetensors", home / f"{_STEM}.bin")
    fill(network, {_renamed(key): value for key, value in read_state(path).items()}, str(path), "the model in config.json")
    return network


def _alphas(scheduler: Mapping[str, Any]) -> Tensor:
    """abar (T,) of a scheduler's config. Raises ValueError: no discrete variance-preserving diffusion."""
    from diffusers import DDPMScheduler

    if "beta_schedule" not in scheduler and "trained_betas" not in scheduler:
        raise ValueError(f"{scheduler.get('_class_name')} has no betas")
    known = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
    try:
        made: Any = DDPMScheduler(**{key: scheduler[key] for key in known if key in scheduler})
    except (NotImplementedError, TypeError) as error:
        raise ValueError(str(error)) from error
    return made.alphas_cumprod


def _height_and_width(size: Any) -> list[int] | None:
    """[H, W] of a config's `sample_size`: one number, two, or none."""
    if isinstance(size, int):
        return [size, size]
    return list(size) if isinstance(size, list) and len(size) == 2 else None


def _renamed(key: str) -> str:
    if ".attentions." in key:
        for old, new in _RENAMED.items():
            key = key.replace(old, new)
    return key


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a folder that save_pretrained wrote") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


def _first(*paths: Path) -> Path:
    """The first that exists, or else the first."""
    return next((path for path in paths if path.is_file()), paths[0])


def _from_hub(repository: str) -> Path:
    """The cached or downloaded files of a repository of the hub."""
    if repository.count("/") != 1 or repository.startswith((".", "/")):
        raise InputError(f"diffusers:{repository}: no such folder; expected one, or ORG/NAME of the hub")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError as error:
        raise InputError("diffusers: downloads need the package huggingface-hub; pip install huggingface-hub") from error
    problem: Exception | None = None
    for local in (True, False):
        for suffix in ("safetensors", "bin"):
            patterns = [*_CONFIGS, f"{_STEM}.{suffix}", f"unet/{_STEM}.{suffix}"]
            try:
                folder = Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=local))
            except Exception as error:      # of the network, the hub or the cache, and of many classes
                problem = error
                break
            if any((folder / place).is_file() for place in patterns[len(_CONFIGS):]):
                return folder
    reason = (str(problem).splitlines() or ["unknown"])[0] if problem else f"it has no {_STEM} file"
    raise InputError(f"diffusers:{repository}: not in the cache {HF_HUB_CACHE} and cannot be downloaded ({reason}); fetch "
                     f"config.json, scheduler_config.json and {_STEM}.safetensors from https://huggingface.co/{repository} "
                     "into a folder, and give that: diffusers:FOLDER")
