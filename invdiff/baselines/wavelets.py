"""Orthogonal two-dimensional wavelets as matrix products: short, exact, and as fast on a GPU as on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Daubechies 1988: the scaling filter "db2", four taps and two vanishing moments, which BART calls dau2.
DB2 = tuple((a + b * 3**0.5) / 32**0.5 for a, b in ((1, 1), (3, 1), (3, -1), (1, -1)))
SMALLEST = 16       # a side shorter than this is not halved again


class Wavelets:
    """Fully decimated db2 over the last two axes, wrapped round at the edges: (..., H, W) to coefficients of that shape.

    W is orthogonal for any H and W >= 2: the last row of an odd side goes into the next level as it is. `inverse` is the
    transpose. The coefficients lie as Mallat (1989) draws them, the coarsest approximation first.
    Raises ValueError for a side shorter than 2.
    """

    def __init__(self, size: Sequence[int], like: Tensor):
        height, width = size
        if min(height, width) < 2:
            raise ValueError(f"size: expected (H, W), each 2 or more, got {tuple(size)}")
        self._levels: list[tuple[Tensor, Tensor]] = []
        while not self._levels or min(height, width) >= SMALLEST:
            self._levels.append((_level(height).to(like), _level(width).to(like)))
            height, width = (height + 1) // 2, (width + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """W x."""
        x = x.clone()
        for rows, columns in self._levels:
            corner = x[..., : len(rows), : len(columns)]
            corner.copy_(rows @ corner @ columns.T)
        return x

    def inverse(self, c: Tensor) -> Tensor:
        """Wᵀ c = W⁻¹ c."""
        c = c.clone()
        for rows, columns in reversed(self._levels):
            corner = c[..., : len(rows), : len(columns)]
            corner.copy_(rows.T @ corner @ columns)
        return c


def _level(n: int) -> Tensor:
    """One level along an axis of n, an orthogonal matrix (n, n), float64: low-pass rows, then high-pass ones."""
    low = torch.tensor(DB2, dtype=torch.float64)
    high = low.flip(0) * torch.tensor([1.0, -1.0] * 2, dtype=torch.float64)
    half, odd = n // 2, n % 2
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for k in range(half):
        for tap in range(len(low)):     # a short axis is wrapped round more than once
            at = (2 * k + tap - 1) % (n - odd)
            matrix[k, at] += low[tap]
            matrix[half + odd + k, at] += high[tap]
    if odd:
        matrix[half, n - 1] = 1
    return matrix
