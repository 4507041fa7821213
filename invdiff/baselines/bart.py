"""BART's l1-wavelet reconstruction (Uecker et al. 2015), where BART is installed, of one of our problems."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import operators
from invdiff.errors import InputError
from invdiff.problem import Problem


def bart_l1_wavelet(problem: Problem, weight: float, iterations: int) -> Tensor:
    """`bart pics -l1`, (B, 2 M, H, W): FISTA with random cycle spinning of "dau2", real and imaginary part jointly.

    Raises InputError where there is no `bart` on the path, for another operator than MRI or MultiCoilMRI of single slices of
    even sides and without weights, and where BART fails.
    """
    if not shutil.which("bart"):
        raise InputError("bart_l1_wavelet needs BART's command `bart` on the path; l1_wavelet does the same without it")
    maps = _maps(problem).cpu().numpy()                                                    # (1 or B, M, N, H, W)
    height, width = maps.shape[-2:]
    if height % 2 or width % 2:     # BART 0.8 returns the image a pixel off along an odd side, and its phase turned
        raise InputError(f"bart_l1_wavelet needs even sides, and got {height} x {width}; l1_wavelet takes it")
    y = torch.complex(problem.y[:, 0], problem.y[:, 1]).cpu().numpy()
    y = y.reshape(len(y), *maps.shape[2:])
    images = [_pics(y[i], maps[i % len(maps)], weight, iterations) for i in range(len(y))]   # each (M, H, W)
    return torch.view_as_real(torch.from_numpy(np.stack(images))).movedim(-1, 2).flatten(1, 2).to(problem.y)


def _maps(problem: Problem) -> Tensor:
    physics, size = problem.physics, problem.image_shape
    if len(size) == 3 and isinstance(physics, operators.MultiCoilMRI) and bool((physics.weights == 1).all()):
        return torch.view_as_complex(physics.coil_maps.float())
    if len(size) == 3 and isinstance(physics, operators.MRI):
        return torch.ones((1, 1, 1, *size[1:]), dtype=torch.complex64)
    raise InputError(f"bart_l1_wavelet needs single slices under MRI, or MultiCoilMRI without weights, and got "
                     f"{type(physics).__name__} of {size}; l1_wavelet takes it")


def _pics(kspace: np.ndarray, maps: np.ndarray, weight: float, iterations: int) -> np.ndarray:
    """(M, H, W) of k-space (N, H, W) and maps (M, N, H, W)."""
    with tempfile.TemporaryDirectory() as folder:
        _write_cfl(Path(folder, "k"), kspace.transpose(1, 2, 0)[:, :, None])                  # (H, W, 1, N)
        _write_cfl(Path(folder, "s"), maps.transpose(2, 3, 1, 0)[:, :, None])                 # (H, W, 1, N, M)
        command = ["bart", "pics", "-S", "-w", "1", "-e", "-i", str(iterations), "-l1", "-r", repr(float(weight))]
        done = subprocess.run([*command, "k", "s", "x"], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"bart pics failed: {' '.join((done.stderr or done.stdout).split())}")
        flat = np.fromfile(Path(folder, "x.cfl"), np.complex64)
    return flat.reshape((*kspace.shape[1:], len(maps)), order="F").transpose(2, 0, 1)


def _write_cfl(path: Path, array: np.ndarray) -> None:
    """BART's format: sixteen dimensions in a text file, and the numbers in Fortran's order."""
    sizes = [*array.shape, *[1] * (16 - array.ndim)]
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, sizes))}\n")
    array.astype(np.complex64).flatten(order="F").tofile(path.with_suffix(".cfl"))
