"""Non-uniform Fourier transforms of images, with finufft by way of mri-nufft."""

from __future__ import annotations

import importlib.util
import math
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


def require() -> None:
    """Raise ImportError, which names what to install, unless mri-nufft and finufft are there."""
    missing = [name for name in ("mrinufft", "finufft") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"non-Cartesian MRI needs mri-nufft with finufft, but there is no {' and no '.join(missing)}: "
            "pip install 'invdiff[mri]', or pip install 'mri-nufft[finufft]'"
        )


class Nufft:
    """F at the points k: (F x)(k) = Σ_n x_n exp(-2 pi i k · n / size) / sqrt(prod(size)), n = 0 at index size // 2.

    points: (K, d), cycles per field of view. size: of the images, d integers. transforms: images in each call.
    tolerance: relative error. The arithmetic is in double precision: in single, the rounding of the points alone costs
    2e-5 at 320 x 320, and finufft is hardly faster. Repeated calls agree bit for bit: one thread adds up one image.
    """

    def __init__(self, points: Tensor, size: Sequence[int], transforms: int, tolerance: float):
        require()
        from mrinufft import get_operator

        self.size, self.transforms, self.count = tuple(size), transforms, len(points)
        turns = points.detach().cpu().double() / torch.tensor(self.size)
        with warnings.catch_warnings():  # mri-nufft announces that it takes [-0.5, 0.5] for what it is
            warnings.simplefilter("ignore")
            operator = get_operator("finufft")(
                turns.numpy(),
                self.size,
                n_coils=transforms,
                n_trans=transforms,
                eps=tolerance,
                nthreads=torch.get_num_threads() if transforms > 1 else 1,
                spread_thread=2,
            )
        self._plans = operator.raw_op  # its own op() copies and scales
        self._scale = math.prod(self.size) ** -0.5
        self._lock = threading.Lock()  # a plan has one workspace, and finufft releases Python's lock

    def forward(self, images: Tensor) -> Tensor:
        """complex128 (transforms, K) on the CPU, of complex images (transforms, *size) on any device."""
        images = images.detach().to("cpu", torch.complex128).mul(self._scale).contiguous().resolve_conj()
        samples = np.empty((self.transforms, self.count), np.complex128)
        with self._lock:
            self._plans.op(samples, images.numpy())
        return torch.from_numpy(samples)

    def adjoint(self, samples: Tensor) -> Tensor:
        """complex128 (transforms, *size) on the CPU, of complex samples (transforms, K) on any device."""
        samples = samples.detach().to("cpu", torch.complex128).contiguous().resolve_conj()
        images = np.empty((self.transforms, *self.size), np.complex128)
        with self._lock:
            self._plans.adj_op(samples.numpy(), images)
        return torch.from_numpy(images).mul_(self._scale)


class Derived(Generic[T]):
    """What is computed from a buffer on first use, and again when the buffer is another or was written to.

    A copy of the operator starts without: plans cannot be copied.
    """

    def __init__(self, compute: Callable[..., T]):
        self._compute = compute
        self._source: tuple[Tensor, int | None] | None = None
        self._value: T

    def __call__(self, source: Tensor, *arguments) -> T:
        version = None if source.is_inference() else source._version
        if self._source is None or self._source[0] is not source or self._source[1] != version:
            self._value = self._compute(source, *arguments)
            self._source = (source, version)
        return self._value

    def __deepcopy__(self, memo):
        return type(self)(self._compute)
