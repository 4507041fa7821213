"""A diffusion transformer, DiT (Peebles & Xie 2023), for any number of channels and any size.

Patches are tokens, the noise level enters by adaLN-Zero. Only distances between tokens matter, so that what was learned on
patches holds on images.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from invdiff.priors.tokens import normalised, rotated, rotations, zero_
from invdiff.priors.unet import ClassEmbedding, NoiseEmbedding


class DiT(nn.Module):
    """Maps (x, noise label) to an image of x's shape; height and width must be multiples of `stride`, the patch's side.

    width is divided among the heads, in parts that are multiples of four. With `classes` it takes the class of each image too.
    """

    def __init__(self, channels: int = 3, patch: int = 4, width: int = 256, depth: int = 8, heads: int = 4,
                 classes: int = 0):
        super().__init__()
        if width % (4 * heads):
            raise ValueError(f"width: expected a multiple of {4 * heads}, four for each head, got {width}")
        self.stride, self.heads = patch, heads
        self.embed = NoiseEmbedding(width)
        self.label = ClassEmbedding(classes, width) if classes else None
        self.stem = nn.Linear(channels * patch**2, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulate = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, channels * patch**2)
        zero_(self.modulate, self.head)

    def forward(self, x: Tensor, noise_label: Tensor, classes: Tensor | None = None) -> Tensor:
        """x (B, C, H, W) of about unit variance, noise_label (B,), classes (B,) or None for any -> (B, C, H, W)."""
        emb = self.embed(noise_label, self.label(classes, len(x)) if self.label else None)
        planes = F.pixel_unshuffle(x, self.stride)                              # (B, C p^2, H / p, W / p)
        angles = rotations(planes.shape[-2], planes.shape[-1], self.modulate.in_features // self.heads, x.device)
        h = self.stem(planes.flatten(2).mT)                                     # (B, tokens, width)
        for block in self.blocks:
            h = block(h, emb, angles)
        shift, scale = self.modulate(emb)[:, None].chunk(2, dim=-1)
        h = self.head(normalised(h) * (1 + scale) + shift)
        return F.pixel_shuffle(h.mT.unflatten(2, planes.shape[-2:]), self.stride)


class Block(nn.Module):
    """Attention and a multilayer perceptron, each scaled, shifted and gated by the noise embedding; starts as the identity."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.modulate = nn.Linear(width, 6 * width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        zero_(self.modulate)

    def forward(self, h: Tensor, emb: Tensor, angles: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(emb)[:, None].chunk(6, dim=-1)
        h = h + gate1 * self.attention(normalised(h) * (1 + scale1) + shift1, angles)
        return h + gate2 * self.mlp(normalised(h) * (1 + scale2) + shift2)

    def attention(self, h: Tensor, angles: Tensor) -> Tensor:
        q, k, v = self.mix(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)     # (B, heads, tokens, width / heads)
        q, k = (rotated(normalised(part), angles) for part in (q, k))       # normalised: attention stays stable in bfloat16
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
