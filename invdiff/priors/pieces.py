"""A large image through a network piece by piece, so that memory does not grow with the image. Nothing is lost by it: a piece
is seen with as much around it as reaches its pixels."""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LARGEST = 2**21         # pixels that are seen at once: 1.3 GB for the shipped priors, 4.4 with a gradient
PIECES = 64             # a side


class Span(NamedTuple):
    """Of one side: pixels start to stop, of which first to last (counted from start) are kept."""

    start: int
    stop: int
    first: int
    last: int


def in_pieces(network: nn.Module, z: Tensor, *labels: Tensor) -> Tensor:
    """network(z, *labels) for z (B, C, H, W), whose sides are multiples of the network's `stride`.

    In one piece up to LARGEST pixels, and where the network does not say how many pixels around one it sees (`reach`). With
    gradients a piece is computed once more on the way back, rather than kept.
    """
    reach, (height, width) = getattr(network, "reach", None), z.shape[-2:]
    if reach is None or height * width <= LARGEST:
        return network(z.contiguous(memory_format=torch.channels_last), *labels)
    stride = network.stride
    margin = -(-reach // stride) * stride
    rows, columns = _grid(height, width, margin, stride, LARGEST)

    def piece(row: Span, column: Span) -> Tensor:
        part = z[..., row.start : row.stop, column.start : column.stop].contiguous(memory_format=torch.channels_last)
        differentiated = torch.is_grad_enabled() and z.requires_grad
        out = (checkpoint(network, part, *labels, use_reentrant=False, preserve_rng_state=False) if differentiated
               else network(part, *labels))
        return out[..., row.first : row.last, column.first : column.last]

    return torch.cat([torch.cat([piece(row, column) for column in columns], -1) for row in rows], -2)


@lru_cache(maxsize=16)
def _grid(height: int, width: int, margin: int, stride: int, most: int) -> tuple[list[Span], list[Span]]:
    """Rows and columns of the pieces that are least work, of at most `most` pixels; as small as may be if none are."""
    def choices(length: int) -> list[tuple[int, int, list[Span]]]:
        """The longest span, all lengths together, and the spans."""
        ways = (_spans(length, count, margin, stride) for count in range(1, PIECES + 1))
        return [(max(seen), sum(seen), spans) for spans in ways if (seen := [span.stop - span.start for span in spans])]

    def work(choice: tuple[tuple[int, int, list[Span]], ...]) -> tuple[int, int]:
        (highest, rows, _), (widest, columns, _) = choice
        return max(highest * widest - most, 0), rows * columns

    (_, _, rows), (_, _, columns) = min(product(choices(height), choices(width)), key=work)
    return rows, columns


def _spans(length: int, count: int, margin: int, stride: int) -> list[Span]:
    """A side in at most `count` parts of about one size, multiples of the stride, each seen with the margin around it."""
    part = -(-length // (count * stride)) * stride
    spans = []
    for begin in range(0, length, part):
        end = min(begin + part, length)
        start, stop = max(begin - margin, 0), min(end + margin, length)
        spans.append(Span(start, stop, begin - start, end - start))
    return spans
