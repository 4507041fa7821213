"""The U-Net of Dhariwal and Nichol 2021 ("ablated diffusion model"), built to fit a state dict.

A layer is what its tensors' names and shapes say it is, so that every variant is covered: any widths and depths, attention
anywhere, scale-shift norm or not, residual blocks or convolutions for resampling, class-conditional or not. Only what has no
tensor has to be told: how attention is cut into heads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Heads:
    """How attention is cut into heads.

    Attributes:
        channels: of a head; used unless `count` is given.
        count: of heads, the same at every resolution.
        split_first: does the last of its convolutions' outputs hold q, k and v of all heads (True), or of one after the other?
    """

    channels: int = 64
    count: int | None = None
    split_first: bool = False


class ResBlock(nn.Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x)))))), with the embedding in between (Section 3), and perhaps resampled."""

    def __init__(self, state: State, prefix: str, resample: str):
        super().__init__()
        inner, outer = state[f"{prefix}in_layers.2.weight"], state[f"{prefix}out_layers.3.weight"]
        width, embedding = state[f"{prefix}emb_layers.1.weight"].shape
        self.resample, self.scales = resample, width == 2 * inner.shape[0]
        self.in_layers = nn.Sequential(_norm(inner.shape[1]), nn.SiLU(), _conv(inner))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, width))
        self.out_layers = nn.Sequential(_norm(outer.shape[1]), nn.SiLU(), nn.Identity(), _conv(outer))
        skip = state.get(f"{prefix}skip_connection.weight")
        self.skip_connection = nn.Identity() if skip is None else _conv(skip)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[1](self.in_layers[0](x))
        h = self.in_layers[2](_resampled(h, self.resample))
        e = self.emb_layers(emb)[:, :, None, None]
        if self.scales:
            scale, shift = e.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[1:](h)
        else:
            h = self.out_layers(h + e)
        return self.skip_connection(_resampled(x, self.resample)) + h


class Attention(nn.Module):
    """x + proj(attention over positions), in heads."""

    def __init__(self, state: State, prefix: str, heads: Heads):
        super().__init__()
        width = state[f"{prefix}norm.weight"].shape[0]
        self.heads = heads.count or width // heads.channels
        if width % (heads.count or heads.channels):
            cut = f"{heads.count} heads" if heads.count else f"heads of {heads.channels} channels"
            raise ValueError(f"{width} channels of attention cannot be cut into {cut}; say ?head_channels=... or ?heads=...")
        self.split_first = heads.split_first
        self.norm, self.qkv, self.proj_out = _norm(width), nn.Conv1d(width, 3 * width, 1), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        b, c, *size = x.shape
        qkv = self.qkv(self.norm(x.flatten(2)))                                                 # (B, 3 C, positions)
        if self.split_first:
            qkv = qkv.reshape(b, 3, self.heads, c // self.heads, -1).transpose(1, 2)
        else:
            qkv = qkv.reshape(b, self.heads, 3, c // self.heads, -1)
        q, k, v = qkv.transpose(-2, -1).unbind(2)                                               # (B, heads, positions, width)
        out = F.scaled_dot_product_attention(q, k, v).transpose(-2, -1).reshape(b, c, -1)
        return x + self.proj_out(out).unflatten(2, size)


class Resample(nn.Module):
    """Half the size by a convolution with a stride (its name is `op`), or twice the size and then a convolution (`conv`)."""

    def __init__(self, state: State, prefix: str):
        super().__init__()
        self.down = f"{prefix}op.weight" in state
        conv = _conv(state[f"{prefix}{'op' if self.down else 'conv'}.weight"], stride=2 if self.down else 1)
        self.add_module("op" if self.down else "conv", conv)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.get_submodule("op")(x) if self.down else self.get_submodule("conv")(_resampled(x, "up"))


class Plain(nn.Conv2d):
    """The first convolution, which needs no embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:        # type: ignore[override]
        return super().forward(x)


class Stage(nn.ModuleList):
    """Layers one after the other."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb)
        return x


class ADM(nn.Module):
    """eps(x_t, t), with learned variances in more channels where there are any; built for, not from, the tensors of `state`.

    Attributes:
        channels: of the image.
        stride: what image sizes must be multiples of.
        classes: 0 for an unconditional network.
        label: the class to draw, of a conditional one; to be set.

    Raises:
        KeyError, IndexError, ValueError: tensors missing, or of shapes that make no network.
    """

    def __init__(self, state: State, heads: Heads):
        super().__init__()
        inner, outer = _indices(state, "input_blocks."), _indices(state, "output_blocks.")
        first = state["input_blocks.0.0.weight"]
        ups = [i for i in range(outer) if _layers_up(state, f"output_blocks.{i}.")]
        per_level = inner // (len(ups) + 1)                     # the first convolution or a resampling included
        if inner != outer or per_level * (len(ups) + 1) != inner:
            raise ValueError(f"{inner} input blocks, {outer} output blocks and {len(ups)} upsamplings make no U-Net")
        self.channels, self.stride = first.shape[1], 2 ** len(ups)
        self.label: int | None = None
        self.classes = len(state["label_emb.weight"]) if "label_emb.weight" in state else 0
        width, self.width = state["time_embed.0.weight"].shape
        self.time_embed = nn.Sequential(nn.Linear(self.width, width), nn.SiLU(), nn.Linear(width, width))
        if self.classes:
            self.label_emb = nn.Embedding(self.classes, width)
        self.input_blocks = nn.ModuleList(
            _stage(state, f"input_blocks.{i}.", heads, "down" if i and i % per_level == 0 else "") for i in range(inner))
        self.middle_block = _stage(state, "middle_block.", heads, "")
        self.output_blocks = nn.ModuleList(_stage(state, f"output_blocks.{i}.", heads, "up") for i in range(outer))
        last = state["out.2.weight"]
        self.out = nn.Sequential(_norm(last.shape[1]), nn.SiLU(), _conv(last))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, C, H, W), t (B,) -> (B, C or 2 C, H, W)."""
        emb = self.time_embed(sinusoids(t, self.width))
        if self.classes:
            emb = emb + self.label_emb.weight[self.label]
        skips = []
        for stage in self.input_blocks:
            x = stage(x, emb)
            skips.append(x)
        x = self.middle_block(x, emb)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb)
        return self.out(x)


def sinusoids(t: Tensor, width: int) -> Tensor:
    """(B,) -> (B, width): cosines, then sines, of frequencies from 1 down to nearly 1 / 10,000 (Vaswani et al. 2017)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


def _stage(state: State, prefix: str, heads: Heads, resample: str) -> Stage:
    """The layers below `prefix`. `resample` is for its residual block: "down", "up" (if it is the second), or none."""
    layers, residual = Stage(), 0
    for i in range(_indices(state, prefix)):
        name = f"{prefix}{i}."
        if f"{name}in_layers.2.weight" in state:
            residual += 1
            layers.append(ResBlock(state, name, "" if resample == "up" and residual == 1 else resample))
        elif f"{name}qkv.weight" in state:
            layers.append(Attention(state, name, heads))
        elif f"{name}weight" in state:
            weight = state[f"{name}weight"]
            layers.append(Plain(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2))
        else:
            layers.append(Resample(state, name))
    return layers


def _layers_up(state: State, prefix: str) -> bool:
    """Does an output block end in an upsampling: a convolution, or a second residual block?"""
    names = [f"{prefix}{i}." for i in range(_indices(state, prefix))]
    return any(f"{n}conv.weight" in state for n in names) or sum(f"{n}in_layers.2.weight" in state for n in names) == 2


def _indices(state: State, prefix: str) -> int:
    """How many numbered parts there are below `prefix`. Raises KeyError for none."""
    parts = (name[len(prefix):].split(".")[0] for name in state if name.startswith(prefix))
    numbers = {int(part) for part in parts if part.isdecimal()}
    if not numbers:
        raise KeyError(f"{prefix}0")
    return max(numbers) + 1


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width)


def _conv(weight: Tensor, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride=stride, padding=weight.shape[2] // 2)


def _resampled(x: Tensor, how: str) -> Tensor:
    if how == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2.0, mode="nearest") if how == "up" else x
