"""A restored volume as files: HDF5 with all samples, NIfTI, DICOM, fastMRI's HDF5, pictures."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.diffusion.randomness import sample_variance
from invdiff.evaluation.intervals import ends
from invdiff.figures import colorize, comparison
from invdiff.io.files import replacing
from invdiff.io.results import new_hdf5
from invdiff.io.scans.scan import Header
from invdiff.io.volumes.dicom import Labels, write_dicom
from invdiff.io.volumes.fastmri import write_fastmri
from invdiff.io.volumes.montage import write_montage
from invdiff.io.volumes.nifti import DESCRIPTION, write_nifti
from invdiff.mri.scoring import estimates
from invdiff.mri.uncertainty import magnitudes
from invdiff.mri.volume import Slices

Part = Mapping[str, Tensor]


def write_result(path: Path, slices: Slices, factor: float, provenance: Mapping[str, Any]) -> None:
    """result.h5: samples (D, S, 2 M, h, w), their mean and std (D, 2 M, h, w), magnitude, magnitude_std, the interval's lower
    and upper end, zero_filled, truth and baselines (D, 1, h, w), float32 in the scan's unit. A single sample has neither std
    nor interval. factor: of the interval. provenance: kept as JSON."""
    with replacing(path) as temporary, new_hdf5(temporary) as file:
        file.attrs["format"], file.attrs["format_version"] = "invdiff result", 1
        file.attrs["provenance"] = json.dumps(provenance)
        channels = max(len(tensors["samples"][0]) for tensors, _ in slices)     # two a set of maps
        for number, (tensors, _) in enumerate(slices):
            for name, value in _arrays(tensors, channels, factor).items():
                if name not in file:
                    shape = (len(slices), *value.shape)
                    data = file.create_dataset(name, shape, "<f4", chunks=(1, *value.shape), compression="gzip",
                                               compression_opts=1, shuffle=True)
                    data.attrs["units"] = "1" if name == "measured" else "of the scan"
                file[name][number] = value.numpy()


def _arrays(tensors: Part, channels: int, factor: float) -> dict[str, Tensor]:
    missing = channels - len(tensors["samples"][0])
    samples = torch.nn.functional.pad(tensors["samples"], (0, 0, 0, 0, 0, missing))
    magnitude, deviation = magnitudes(samples)
    arrays, images = {"samples": samples, "mean": samples.mean(0)}, {"magnitude": magnitude}
    if len(samples) > 1:
        arrays["std"] = sample_variance(samples, 0).sqrt()
        lower, upper = (end.clamp_min(0) for end in ends(magnitude, deviation, factor))
        images |= {"magnitude_std": deviation, "lower": lower, "upper": upper}
    images |= {name: value for name, value in tensors.items() if name not in ("samples", "features")}
    return arrays | {name: value[None] for name, value in images.items()}


def write_volumes(folder: Path, slices: Slices, header: Header, formats: tuple[str, ...], identity: bool, seed: str) -> None:
    """The magnitude of the mean, and the standard deviation, which a single sample has not, as each of `formats`. seed: of
    DICOM's identifiers, with what is written: other images never have the same."""
    samples, _, *size = next(iter(slices))[0]["samples"].shape
    shape = (len(slices), *size)
    magnitude = _stream(slices, lambda t: magnitudes(t["samples"])[0])
    several = {"std": _stream(slices, lambda t: magnitudes(t["samples"])[1])} if samples > 1 else {}
    if "nifti" in formats:
        write_nifti(folder / "magnitude.nii.gz", magnitude(), shape, header)
        for name, stream in several.items():
            write_nifti(folder / f"{name}.nii.gz", stream(), shape, header, f"{name}; {DESCRIPTION}")
    if "complex" in formats:
        mean = _stream(slices, lambda t: torch.complex(*t["samples"].mean(0)[:2]))
        write_nifti(folder / "complex.nii.gz", mean(), shape, header, dtype=np.complex64)
    if "dicom" in formats:
        seed += _digest(magnitude())
        for number, (name, stream) in enumerate({"magnitude": magnitude, **several}.items(), 1):
            labels = Labels(name=name, derivation=f"{name} of posterior samples of a diffusion prior", number=number, seed=seed)
            write_dicom(folder / f"dicom-{name}", stream(), shape, header, labels, identity)
    if "fastmri" in formats:
        write_fastmri(folder / "reconstruction.h5", magnitude(), shape, header)
    if "montage" in formats:
        write_montage(folder / "montage.png", magnitude(), shape)


def _digest(images: Iterator[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for image in images:
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def _stream(slices: Slices, image: Callable[[Part], Tensor]) -> Callable[[], Iterator[np.ndarray]]:
    """A function that reads the slices anew and makes an image (h, w) of each."""
    return lambda: (image(tensors).numpy() for tensors, _ in slices)


def figure(tensors: Part, scores: Mapping[str, Any]) -> Image.Image:
    """A slice: zero-filled, baselines, one sample, the mean and spread of several, what the prior filled in, and truth where
    there is one, in one window."""
    images = {name: torch.from_numpy(image)[None] for name, image in estimates(tensors).items()}
    top = float(images["restored"].quantile(0.998)) or 1.0
    panels, captions = {}, {}
    labels = {"zero_filled": "zero-filled", "restored": "restored (mean)", "sample": "one sample"}
    found = {"zero_filled": scores.get("measurement"), **scores.get("baselines", {}), **scores}
    several = len(tensors["samples"]) > 1
    order = ["zero_filled", *(name for name in images if name not in labels), *(["restored"] if several else []), "sample"]
    for name in order:
        label = labels.get(name, name.replace("_", " "))
        panels[label] = (images[name] / top).clamp(0, 1)
        if found.get(name):
            captions[label] = f"PSNR {found[name]['psnr']:.2f} dB, SSIM {found[name]['ssim']:.3f}"
    if several:
        panels["std"], most = colorize(magnitudes(tensors["samples"])[1][None])
        captions["std"] = f"0 to {most / top:.3f} of white"
    if "prior_part" in tensors:
        panels["filled in by the prior"], most = colorize(tensors["prior_part"][None])
        captions["filled in by the prior"] = f"0 to {most / top:.3f} of white"
    if "truth" in tensors:
        panels["truth"] = (tensors["truth"][None] / top).clamp(0, 1)
    return comparison(panels, captions)
