"""A compact, fully convolutional U-Net, made to be fast on a CPU and to work at any image size.

Three choices keep it cheap: a pixel-unshuffle stem puts the widest images at half resolution, skips are added rather
than concatenated (as in DRUNet, Zhang et al. 2021), and unless it is given attention nothing looks at the whole image, so
that what was learned on patches holds on photographs. The noise level enters each block as a scale and a shift (FiLM).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invdiff.priors.tokens import normalised, rotated, rotations, zero_

HEAD = 32       # channels of a head of attention


class ResBlock(nn.Module):
    """x + conv(silu(scale * conv(x) + shift)), scale and shift from the noise embedding; starts as the identity."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        for layer in (self.conv2, self.film):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.conv1(x), 1 + scale)
        return x + self.conv2(F.silu(h))


class Stage(nn.ModuleList):
    """Residual blocks of one width, one after the other."""

    def __init__(self, width: int, depth: int, embedding: int):
        super().__init__(ResBlock(width, embedding) for _ in range(depth))

    def forward(self, x: Tensor, emb: Tensor, attention: nn.ModuleList | tuple[()] = ()) -> Tensor:
        for i, block in enumerate(self):
            x = block(x, emb)
            x = attention[i](x) if attention else x
        return x


class Attention(nn.Module):
    """x + W attention(x): all places of a small image see each other; starts as the identity.

    Queries and keys are normalised and know where they are (`rotations`). At the few places of a coarsest level the plain
    product is twice as fast on a CPU, backwards too, as the fused one.
    """

    def __init__(self, width: int):
        super().__init__()
        if width % HEAD:
            raise ValueError(f"attention: expected a last width that is a multiple of {HEAD}, got {width}")
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        zero_(self.out)

    def forward(self, x: Tensor) -> Tensor:
        h = normalised(x.flatten(2).mT)                                                     # (B, places, width)
        q, k, v = self.mix(h).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)           # (B, heads, places, HEAD)
        angles = rotations(x.shape[-2], x.shape[-1], HEAD, x.device)
        q, k = (rotated(normalised(part), angles) for part in (q, k))
        h = ((q @ k.mT) / HEAD**0.5).softmax(-1) @ v
        return x + self.out(h.transpose(1, 2).flatten(2)).mT.unflatten(2, x.shape[-2:])


class NoiseEmbedding(nn.Sequential):
    """A noise label (B,) as a vector (B, size)."""

    def __init__(self, size: int):
        self.frequencies = size // 4
        super().__init__(nn.Linear(2 * self.frequencies, size), nn.SiLU(), nn.Linear(size, size), nn.SiLU())

    def forward(self, noise_label: Tensor, label: Tensor | None = None) -> Tensor:
        """noise_label (B,), label an embedding of something else (B, size) -> (B, size)."""
        h = self[0](fourier_features(noise_label, self.frequencies))
        return self[3](self[2](self[1](h if label is None else h + label)))


class ClassEmbedding(nn.Embedding):
    """A class (B,) as a vector (B, size); one more, the last, stands for any class (Ho & Salimans 2022). Zero at first."""

    def __init__(self, classes: int, size: int):
        super().__init__(classes + 1, size)
        nn.init.zeros_(self.weight)

    def forward(self, classes: Tensor | None, count: int = 1) -> Tensor:
        """classes (B,), negative for any; None is any class for all `count` items."""
        last = self.num_embeddings - 1
        if classes is None:
            classes = torch.full((count,), last, device=self.weight.device)
        return super().forward(torch.where(classes < 0, last, classes))


class UNet(nn.Module):
    """Maps (x, noise label) to an image of x's shape; height and width must be multiples of `stride`.

    widths[i] channels and depths[i] residual blocks (each way) at 1 / 2^(i+1) of the input's resolution. With `classes` it
    takes the class of each image too. With `variance` it gives twice the channels. With `attention` there is one after each
    residual block at the coarsest resolution: for small images, all of about one size.
    """

    def __init__(self, channels: int = 3, widths: Sequence[int] = (64, 128, 192, 224), depths: Sequence[int] = (2, 2, 2, 1),
                 embedding: int = 256, classes: int = 0, variance: bool = False, attention: bool = False):
        super().__init__()
        if len(widths) != len(depths):
            raise ValueError(f"depths: expected {len(widths)} numbers, one for each width, got {len(depths)}")
        self.stride = 2 ** len(widths)
        self.embed = NoiseEmbedding(embedding)
        self.label = ClassEmbedding(classes, embedding) if classes else None
        self.stem = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        stages = list(zip(widths, depths, strict=True))
        self.encoder = nn.ModuleList(Stage(w, d, embedding) for w, d in stages[:-1])
        self.middle = Stage(widths[-1], depths[-1], embedding)
        self.attention = nn.ModuleList(Attention(widths[-1]) for _ in range(depths[-1] if attention else 0))
        self.decoder = nn.ModuleList(Stage(w, d, embedding) for w, d in reversed(stages[:-1]))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in reversed(list(pairwise(widths))))
        self.reach = None if attention else _reach(depths)
        self.variance = variance
        self.head = nn.Conv2d(widths[0], (8 if variance else 4) * channels, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, noise_label: Tensor, classes: Tensor | None = None) -> Tensor:
        """x (B, C, H, W) of about unit variance, noise_label (B,), classes (B,) or None for any -> (B, C or 2 C, H, W)."""
        emb = self.embed(noise_label, self.label(classes, len(x)) if self.label else None)
        h = stem = self.stem(F.pixel_unshuffle(x, 2))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            h = stage(h, emb)
            skips.append(h)
            h = down(h)
        h = self.middle(h, emb, self.attention)
        for stage, up in zip(self.decoder, self.up, strict=True):
            h = stage(F.pixel_shuffle(up(h), 2) + skips.pop(), emb)
        return F.pixel_shuffle(self.head(h + stem), 2)


def _reach(depths: Sequence[int]) -> int:
    """How many pixels around one, or around a block as large as the stride, a U-Net without attention sees."""
    reach = 1                                           # the head's; in pixels of a level, from the finest down and back up
    for depth in depths[:-1]:
        reach = -(-(reach + 2 * depth) // 2)
    reach += 2 * depths[-1]
    for depth in reversed(depths[:-1]):
        reach = 2 * reach + 2 * depth
    return 2 * (reach + 1)                              # the stem's


def fourier_features(t: Tensor, count: int) -> Tensor:
    """(B,) -> (B, 2 count): cosines and sines of geometrically spaced frequencies."""
    frequencies = torch.exp(torch.linspace(math.log(0.125), math.log(4.0), count, dtype=torch.float32, device=t.device))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)
