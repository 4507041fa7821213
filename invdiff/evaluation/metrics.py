"""Image quality against a known truth, by scikit-image, piq and torchmetrics. Heavy imports wait for the first call.

METRICS has them all by name.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from invdiff.errors import InputError
from invdiff.io.files import checksum, replacing

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SSIM_WINDOW = 11
HAARPSI_SIDE = 16           # three scales of Haar wavelets on an image of half the size
NETWORK_SIDE = 32           # AlexNet's and VGG's poolings leave nothing of smaller ones
WEIGHTS = {"lpips": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",        # 233 MiB
           "dists": "https://download.pytorch.org/models/vgg16-397923af.pth"}              # 528 MiB
PATIENCE = 20               # seconds without an answer, after which a download is given up


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, (B,) float32 on the CPU; infinite where x equals the truth.

    x, truth: (B, C, H, W); x is clipped to [0, 1], the range of the truth, so the peak is 1. The mean square error is
    over channels and pixels. Raises ValueError where the shapes differ or are none of images.
    """
    import numpy as np
    import torch
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return torch.tensor([peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in _pairs(x, truth)],
                            dtype=torch.float32)


def ssim(x: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image, (B,) float32 on the CPU; 1 where x equals the truth.

    Wang et al. 2004, with their constants: Gaussian window of standard deviation 1.5, 11 x 11, K1 = 0.01, K2 = 0.03,
    data range 1, population covariances; windows that leave the image are not counted, colours are averaged.

    x, truth: (B, C, H, W); x is clipped to [0, 1]. Raises ValueError where the shapes differ or are none of images, or
    the images are smaller than the window.
    """
    import torch
    from skimage.metrics import structural_similarity

    if x.ndim == 4 and min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"ssim: expected images of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, the size of its window, "
                         f"got {x.shape[-2]} x {x.shape[-1]}")
    return torch.tensor([
        structural_similarity(b, a, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
                              use_sample_covariance=False)
        for a, b in _pairs(x, truth)
    ], dtype=torch.float32)


def nmse(x: Tensor, truth: Tensor) -> Tensor:
    """|x - truth|^2 / |truth|^2 of each image, (B,) float32 on the CPU; 0 where they are equal.

    x, truth: (B, C, H, W); x is clipped to [0, 1]. Raises ValueError as `psnr` does.
    """
    import torch

    return torch.tensor([((a - b) ** 2).sum() / max((b**2).sum(), 1e-30) for a, b in _pairs(x, truth)], dtype=torch.float32)


def haarpsi(x: Tensor, truth: Tensor) -> Tensor:
    """Haar wavelet perceptual similarity of each image, (B,) float32 on the CPU, in [0, 1]; 1 where x equals the truth.

    Reisenhofer et al. 2018, with their constants (C = 30, alpha = 4.2, images halved first), by piq.

    x, truth: (B, C, H, W), C = 1 or 3; both are clipped to [0, 1]. Raises ValueError as `psnr` does and for images under
    16 x 16 pixels, InputError where piq is not installed.
    """
    import torch

    pairs = _perceptual_pairs("haarpsi", "piq", x, truth, HAARPSI_SIDE)
    from piq import haarpsi as one_of_piq

    return torch.stack([one_of_piq(a, b, data_range=1.0) for a, b in pairs])


def lpips(x: Tensor, truth: Tensor) -> Tensor:
    """Learned perceptual distance of each image, (B,) float32 on the CPU, 0 and more; 0 where x equals the truth.

    Zhang et al. 2018, version 0.1 with AlexNet, which they recommend for comparisons, by torchmetrics. AlexNet's weights are
    fetched at the first call, unless they are on disk. Grey images are taken for colour ones.

    x, truth: (B, C, H, W), C = 1 or 3; both are clipped to [0, 1]. Raises ValueError as `psnr` does and for images under
    32 x 32 pixels, InputError where torchmetrics or the weights are missing.
    """
    return _by_network("lpips", x, truth)


def dists(x: Tensor, truth: Tensor) -> Tensor:
    """Deep image structure and texture distance of each image, (B,) float32 on the CPU, in [0, 1]; 0 where x equals the truth.

    Ding et al. 2020, with VGG16, by torchmetrics; otherwise as `lpips`.
    """
    return _by_network("dists", x, truth)


@dataclass(frozen=True)
class Metric:
    """A measure of quality: function (x, truth) -> (B,), which way is better, what to call it, and digits to show."""

    function: Callable[[Tensor, Tensor], Tensor]
    better: Literal["higher", "lower"]
    label: str
    digits: int = 3


METRICS: dict[str, Metric] = {
    "psnr": Metric(psnr, "higher", "PSNR (dB)", 2),
    "ssim": Metric(ssim, "higher", "SSIM"),
    "nmse": Metric(nmse, "lower", "NMSE", 4),
    "haarpsi": Metric(haarpsi, "higher", "HaarPSI"),
    "lpips": Metric(lpips, "lower", "LPIPS"),
    "dists": Metric(dists, "lower", "DISTS"),
}


def enlarged(y: Tensor, size: Sequence[int]) -> Tensor:
    """A low-resolution measurement (B, C, h, w), bicubically enlarged to (H, W) so that it can be scored; others as is."""
    from torch.nn.functional import interpolate

    return y if tuple(y.shape[-2:]) == tuple(size) else interpolate(y, list(size), mode="bicubic", align_corners=False)


def _pairs(x: Tensor, truth: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Clipped image and truth, (C, H, W) in double precision, item by item."""
    if x.ndim != 4 or x.shape != truth.shape:
        raise ValueError(f"x: expected images (B, C, H, W) of the truth's shape {tuple(truth.shape)}, got {tuple(x.shape)}")
    yield from zip(x.detach().cpu().double().clamp(0, 1).numpy(), truth.detach().cpu().double().numpy(), strict=True)


def _perceptual_pairs(name: str, package: str, x: Tensor, truth: Tensor, side: int) -> list[tuple[Tensor, Tensor]]:
    """Image and truth as the networks take them, (1, C, H, W) float32 on the CPU, item by item."""
    import torch

    if find_spec(package) is None:
        raise InputError(f'{name}: needs {package}: pip install "invdiff[evaluate]"')
    pairs = [(torch.from_numpy(a).float()[None], torch.from_numpy(b).float()[None].clamp(0, 1)) for a, b in _pairs(x, truth)]
    if x.shape[1] not in (1, 3) or min(x.shape[-2:]) < side:
        raise ValueError(f"{name}: expected images of 1 or 3 channels, at least {side} x {side} pixels, got "
                         f"{tuple(x.shape[1:])}")
    return pairs


def _by_network(name: str, x: Tensor, truth: Tensor) -> Tensor:
    import torch

    pairs = _perceptual_pairs(name, "torchmetrics", x, truth, NETWORK_SIDE)
    network = _network(name, str(_weights(name)))
    with torch.no_grad():
        return torch.stack([network(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)).reshape(()) for a, b in pairs])


@cache
def _network(name: str, weights: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The distance of two images by a network whose weights are on disk; torchmetrics finds them where torch keeps its own."""
    from torchmetrics import image

    kind: Any = {"lpips": lambda: image.LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True),
                 "dists": lambda: image.DeepImageStructureAndTextureSimilarity()}[name]
    return kind().eval()


def _weights(name: str) -> Path:
    """The file of a network's weights, fetched if need be. Raises InputError: it cannot be had, or is another's or damaged,
    told by the checksum in its name, as it is unpickled."""
    import torch

    url = WEIGHTS[name]
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(url, timeout=PATIENCE) as stream, replacing(file) as temporary:
                temporary.write_bytes(stream.read())
        except OSError as error:
            raise InputError(f"{name}: its network's weights are not at {file}, and {url} cannot be fetched "
                             f"({getattr(error, 'reason', error)}); put that file there") from error
    if not _checksum(file).startswith(file.stem.rsplit("-", 1)[1]):
        raise InputError(f"{name}: {file} is damaged, or other weights than those of {url}; fetch it again")
    return file


_checksum = cache(checksum)       # of hundreds of MiB
