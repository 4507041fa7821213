"""Small scans of a phantom: in memory, and as files of every format; and what was made of them."""

import json
from functools import lru_cache
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import torch

from invdiff.io.scans.scan import RawSlice, Scan
from operators import mri
from operators.mri import phantom, sampling
from operators.mri.trajectories import radial

SIZE = (48, 40)
COILS = 4
SIGMA = 0.01
MASKED = ("--set", "operator.acceleration=2", "--set", "operator.noise=none")


def noise(*shape, sigma=SIGMA, seed=7):
    """Complex white noise, sigma per real channel."""
    return sigma * torch.view_as_complex(torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed)))


def mixing(coils=COILS, strength=0.25, seed=1):
    """A well-conditioned mixture of coils, as of cables that couple."""
    random = torch.randn(coils, coils, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    return torch.eye(coils) + strength * random


def kspace(slices=1, size=SIZE, coils=COILS, sigma=SIGMA):
    """(D, N, H, W), each slice a little darker than the one before."""
    return torch.cat([phantom.kspace(size, coils, sigma=sigma, seed=d) * (1 - 0.1 * d) for d in range(slices)])


def lines(size=SIZE, acceleration=2.0, center=12, seed=0):
    return sampling.random_lines(size, acceleration, center_fraction=center / size[1], seed=seed)


def scan_of(data, mask=None, noise_scan=None, calibration=None, read=None, crop=None):
    """A scan of k-space (D, N, H, W), fully sampled unless there is a mask (H, W)."""
    size = tuple(data.shape[-2:])
    mask = torch.ones(size, dtype=torch.bool) if mask is None else mask
    read = read or (lambda number: RawSlice(data[number] * mask, mask, None, calibration))
    return Scan("phantom", "test", len(data), data.shape[1], size, crop or size, read, noise_scan)


def write_fastmri(path, data, mask=None, **more):
    with h5py.File(path, "w") as file:
        file["kspace"] = (data if mask is None else data * mask).numpy()
        if mask is not None:
            file["mask"] = mask[0].numpy().astype(np.uint8)
        for name, value in more.items():
            file[name] = value
    return path


def write_cfl(stem, array):
    """k-space (D, N, H, W) in BART's order."""
    values = np.transpose(array.numpy(), (2, 3, 1, 0))[:, :, None]                 # (H, W, 1, N, D)
    dims = [*values.shape[:4], *[1] * 9, values.shape[4], 1, 1]
    Path(f"{stem}.hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n")
    Path(f"{stem}.cfl").write_bytes(values.astype("<c8").tobytes(order="F"))
    return f"{stem}.cfl"


def radial_points(side=48, spokes=48):
    """(K, 2) in cycles per field of view."""
    return radial((side, side), spokes, 2 * side).reshape(-1, 2).float()


@lru_cache
def radial_kspace(side=48, coils=COILS):
    """(N, K)"""
    return phantom.kspace((side, side), coils, trajectory=radial_points(side), sigma=SIGMA)[0]


def write_radial(path, slices=1, side=48):
    with open(path, "wb") as file:                                       # by this name, whatever its ending
        np.savez(file, kspace=torch.stack([radial_kspace(side)] * slices).numpy(), trajectory=radial_points(side).numpy())
    return path


def mrd_header(size, coils, slices, person=""):
    height, width = size
    fov = f"<x>{2.0 * height}</x><y>{1.5 * width}</y><z>4</z>"
    space = f"<matrixSize><x>{height}</x><y>{width}</y><z>1</z></matrixSize><fieldOfView_mm>{fov}</fieldOfView_mm>"
    limits = f"<minimum>0</minimum><maximum>{width - 1}</maximum><center>{width // 2}</center>"
    return ('<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">' + person +
            "<experimentalConditions><H1resonanceFrequency_Hz>127000000</H1resonanceFrequency_Hz></experimentalConditions>"
            f"<encoding><encodedSpace>{space}</encodedSpace><reconSpace>{space}</reconSpace><encodingLimits>"
            f"<kspace_encoding_step_1>{limits}</kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory>"
            "</encoding></ismrmrdHeader>")


def write_mrd(path, data, columns=None, noise_scan=None, calibration=None, person=""):
    """ISMRMRD of k-space (D, N, H, W): the columns given, a noise scan (N, S), and separate calibration columns of `data`."""
    slices, coils, height, width = data.shape
    columns = range(width) if columns is None else columns

    def line(samples, step=0, number=0, flags=()):
        one = ismrmrd.Acquisition.from_array(np.ascontiguousarray(samples, np.complex64))
        one.idx.kspace_encode_step_1, one.idx.slice = int(step), number
        one.center_sample, one.sample_time_us = samples.shape[1] // 2, 5.0
        one.read_dir, one.phase_dir, one.slice_dir = (0, 1, 0), (1, 0, 0), (0, 0, 1)
        one.position = (3.0, -5.0, 10.0 + 6.0 * number)
        for flag in flags:
            one.setFlag(flag)
        return one

    with ismrmrd.Dataset(str(path), "dataset", mode="w") as file:
        file.write_xml_header(mrd_header((height, width), coils, slices, person).encode())
        if noise_scan is not None:
            file.append_acquisition(line(noise_scan.numpy(), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT]))
        for d in range(slices):
            for column in columns:
                file.append_acquisition(line(data[d, :, :, column].numpy(), column, d))
            for column in calibration or ():
                file.append_acquisition(line(data[d, :, :, column].numpy(), column, d,
                                             [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]))
    return path


def names(folder):
    return {path.name for path in folder.iterdir()}


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def arrays_of(folder):
    with h5py.File(folder / "result.h5") as file:
        return {name: file[name][()] for name in file}


def head(size=(64, 56)):
    return mri.combine_sets(phantom.image(size))[0, 0].numpy()


def folded(tall=76, size=(64, 64), coils=8):
    """K-space of a phantom on `tall` rows, of which so many are encoded: its ends fold over, noise is added once."""
    full = mri.ifft(phantom.kspace((tall, size[1]), coils)[0], (-2, -1))
    top = tall // 2 - size[0] // 2
    images = full[:, top : top + size[0]].clone()
    images[:, size[0] - top :] += full[:, :top]
    images[:, : tall - top - size[0]] += full[:, top + size[0] :]
    return (mri.fft(images, (-2, -1)) + noise(coils, *size))[None]
