"""What attention over the places of an image is made of: where a token is enters by rotating queries and keys (Su et al. 2021,
on two axes as in Heo et al. 2024)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotations(height: int, width: int, size: int, device: torch.device) -> Tensor:
    """Angles (tokens, size / 2) of the tokens of a grid: the first half by rows, the second by columns."""
    frequencies = 100.0 ** -torch.linspace(0, 1, size // 4, device=device)
    rows, columns = (torch.arange(n, device=device)[:, None] * frequencies for n in (height, width))
    return torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], -1).flatten(0, 1)


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Pairs of x (..., tokens, size), halves apart, turned by angles (tokens, size / 2)."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def normalised(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def zero_(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
