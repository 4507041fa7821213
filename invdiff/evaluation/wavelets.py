"""l1-wavelet reconstruction of multi-coil k-space, the classical baseline of compressed-sensing MRI, by whoever has it."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError

ITERATIONS = 100
Reconstruct = Callable[[np.ndarray, np.ndarray, float], np.ndarray]     # k-space and maps (N, H, W), weight -> (H, W)


def bart(kspace: np.ndarray, maps: np.ndarray, weight: float) -> np.ndarray:
    """BART's `pics` (Uecker et al. 2015): FISTA, random cycle spinning."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("k", kspace), ("s", maps)):
            _write_cfl(Path(folder, name), np.moveaxis(data, 0, -1)[:, :, None])
        subprocess.run(["bart", "pics", "-S", "-w", "1", "-i", str(ITERATIONS), "-l1", "-r", str(weight), "k", "s", "x"],
                       cwd=folder, check=True, capture_output=True)
        return np.fromfile(Path(folder, "x.cfl"), np.complex64).reshape(kspace.shape[1:], order="F")


def sigpy(kspace: np.ndarray, maps: np.ndarray, weight: float) -> np.ndarray:
    """SigPy's L1WaveletRecon (Ong & Lustig 2019), db4."""
    from sigpy.mri.app import L1WaveletRecon

    return L1WaveletRecon(kspace, maps, weight, max_iter=ITERATIONS, show_pbar=False).run()


def installed() -> Reconstruct:
    """BART's, or else SigPy's. Raises InputError where there is neither."""
    if shutil.which("bart"):
        return bart
    try:
        import sigpy as _  # noqa: F401
    except ImportError:
        raise InputError("the l1-wavelet baseline needs BART on the path, or SigPy: python -m pip install sigpy") from None
    return sigpy


def l1_wavelet(reconstruct: Reconstruct, y: Tensor, maps: Tensor, weight: float) -> Tensor:
    """Images (B, 2, H, W) of k-space y (B, 2, N, H, W) and complex maps (N, H, W)."""
    kspace, coils = torch.complex(y[:, 0], y[:, 1]).cpu().numpy(), maps.cpu().numpy()
    images = torch.from_numpy(np.stack([reconstruct(item, coils, weight) for item in kspace]))
    return torch.stack([images.real, images.imag], 1).float()


def tuned_l1_wavelet(reconstruct: Reconstruct, y: Tensor, maps: Tensor, weights: Sequence[float],
                     score: Callable[[Tensor], float]) -> tuple[Tensor, float]:
    """The images with the best of `weights`, and it. The truth behind `score` chooses, which flatters the baseline."""
    tried = [(l1_wavelet(reconstruct, y, maps, weight), weight) for weight in weights]
    return max(tried, key=lambda pair: score(pair[0]))


def _write_cfl(path: Path, array: np.ndarray) -> None:
    """BART's format: sixteen dimensions in a text file, and the numbers in Fortran's order."""
    sizes = [*array.shape, *[1] * (16 - array.ndim)]
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, sizes))}\n")
    array.astype(np.complex64).flatten(order="F").tofile(path.with_suffix(".cfl"))
